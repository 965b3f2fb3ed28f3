/// Equality of gradients to the last bit, for any threads, memory policy, head chunk and frozen parameters.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

#include <functional>
#include <map>
#include <string>

#include "../model/live.hpp"
#include "../numbers.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

using Gradients = std::map<std::string, std::vector<float>>;
using Wanted = std::function<bool(const TensorSpec&)>;

/// The size of a case: `large` is enough work for several threads; `small` is for laws in which every case takes two
/// passes.
struct Size {
  ModelSizes model;
  Index length;
};
const Size large{{.vocab = 61, .width = 112, .depth = 2, .head_size = 16, .ffn = 131}, 150};
const Size small{{.vocab = 61, .width = 19, .depth = 1, .ffn = 31}, 23};

/// The gradients of two batches in a row by name; the loss of the second as "loss", the gradient of its first state as
/// "state".
template <class P, class V = config::AnyVersion>
Gradients gradients(const Size& size, Cpu be, Index head_chunk, const Wanted& wanted) {
  using Net = LanguageModel<V, float, Cpu>;
  auto net = live<Net>(size.model, be);
  const Index batch = 2, length = size.length, vocab = size.model.vocab;
  Gradient<Net, P> gradient(net, {.batch = batch, .length = length, .head_chunk = head_chunk}, wanted);
  Gradients all;
  for (const std::uint64_t seed : {1u, 2u}) {
    const auto tokens = some_tokens(batch * length, vocab, seed);
    all["loss"] = {static_cast<float>(gradient.add(tokens, some_tokens(batch * length, vocab, seed + 5), 0.5))};
  }
  for (const auto& parameter : gradient.parameters()) {
    all[parameter.name] = {parameter.gradient.begin(), parameter.gradient.end()};
  }
  const auto state = gradient.state_gradient().numbers();
  all["state"] = {state.data, state.data + state.cols};
  return all;
}

bool everything(const TensorSpec&) { return true; }

}  // namespace

TEST_CASE("gradients have the same bits on any number of threads, and whatever is kept") {
  config::each_version([&]<class V>() {
    const auto one = gradients<Keep, V>(large, Cpu(1), 256, everything);
    for (const int threads : {2, 3, 5}) {
      CAPTURE(threads);
      CHECK(gradients<Keep, V>(large, Cpu(threads), 256, everything) == one);
    }
    CHECK(gradients<Recompute, V>(large, Cpu(1), 256, everything) == one);
    CHECK(gradients<Recompute, V>(large, Cpu(3), 256, everything) == one);
  });
}

TEST_CASE("the chunks of the head change no bit of what it passes back") {
  const auto want = gradients<Keep>(small, Cpu(1), 256, everything);
  for (const Index chunk : {1, 7, 46, 1000}) {
    CAPTURE(chunk);
    auto got = gradients<Keep>(small, Cpu(2), chunk, everything);
    for (const std::string name : {"head.weight", "ln_out.weight", "ln_out.bias"}) {  // sums over the chunks
      CHECK(golden::relative_error(got.at(name), want.at(name)) < 2e-5);
      got[name] = want.at(name);
    }
    CHECK(got == want);
  }
}

TEST_CASE("a parameter that is left out changes no bit of the gradients of the others") {
  const auto want = gradients<Keep>(small, Cpu(1), 256, everything);
  for (const auto& parameter : want) {
    const std::string& left_out = parameter.first;
    if (left_out == "loss" || left_out == "state") continue;
    CAPTURE(left_out);
    auto got = gradients<Keep>(small, Cpu(2), 256, [&](const TensorSpec& spec) { return spec.name != left_out; });
    CHECK(got.size() == want.size() - 1);
    got[left_out] = parameter.second;
    CHECK(got == want);
  }
  const auto none = gradients<Keep>(small, Cpu(2), 256, [](const TensorSpec&) { return false; });
  CHECK(none.size() == 2);
  CHECK(none.at("state") == want.at("state"));
}
