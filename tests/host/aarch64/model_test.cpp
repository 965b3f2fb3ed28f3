/// Models on packs of 16 bytes: the official logits, and the same bits whatever the threads and chunks.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../../golden.hpp"

using namespace rwkv;

namespace {

template <class V>
void check_model(const std::string& name) {
  using Net = LanguageModel<V, AsStored<float>, Cpu>;
  const auto models = golden::folder() / "models";
  const golden::File expected(models / (name + ".expected.safetensors"));
  const auto tokens = expected["tokens"].template as<Token>();
  const auto run = [&](int threads, Index chunk, LayerOrder order) {
    const auto net = load_checkpoint<Net>(models / (name + ".safetensors"), {}, Cpu(threads));
    auto context = net.context({.chunk = chunk, .order = order});
    std::vector<float> logits(tokens.size() * static_cast<std::size_t>(net.sizes().vocab));
    context.sequence(tokens, logits);
    return logits;
  };
  const auto one = run(1, 256, LayerOrder::one_by_one);
  CHECK(golden::max_error(one, expected["logits_seq"].values) < 5e-5);
  CHECK(run(2, 64, LayerOrder::one_by_one) == one);
  CHECK(run(3, 256, LayerOrder::cascade) == one);
  CHECK(run(1, 1, LayerOrder::one_by_one) == one);
}

}  // namespace

TEST_CASE("models have the official logits, and the same bits for any threads and chunks") {
  check_model<V4>("rwkv4-rand-l2-d32-f32");
  check_model<V7>("rwkv7-rand-l2-d32-h4-f32");
}
