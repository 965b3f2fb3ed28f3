/// Equality to the last bit: threads, prompts and steps, 16-bit weights, files.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <filesystem>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::Scanning;
using config::some_tokens;

namespace {

/// Calls f.template operator()<V>() for the versions that are compiled in the scalar T.
template <class T, class F>
void each_version_in(const F& f) {
  if constexpr (std::is_floating_point_v<T>) config::each_version(f);
  else f.template operator()<config::AnyVersion>();
}

}  // namespace

TEST_CASE_TEMPLATE("logits have the same bits on any number of threads", T, RWKV_TEST_FLOATS, RWKV_TEST_HALVES) {
  // Wide enough that products, norms and the recurrence run on several threads.
  const ModelSizes sizes{.vocab = 301, .width = 328, .depth = 2, .head_size = 41};
  const auto tokens = some_tokens(150, sizes.vocab);
  each_version_in<T>([&]<class V>() {
    using Net = LanguageModel<V, T, Cpu>;
    const auto one = all_logits(live<Net>(sizes, Cpu(1)), tokens);
    for (const int threads : {2, 3, 5}) {
      CAPTURE(threads);
      CHECK(all_logits(live<Net>(sizes, Cpu(threads)), tokens) == one);
    }
  });
}

TEST_CASE_TEMPLATE("a scan over time has the same bits on any number of threads", T, RWKV_TEST_FLOATS) {
  using Net = LanguageModel<Scanning, T, Cpu>;
  const ModelSizes sizes{.vocab = 30, .width = 12, .depth = 1};
  const auto tokens = some_tokens(1400, sizes.vocab);
  const ContextOptions whole{.chunk = 1400};
  const auto one = all_logits(live<Net>(sizes, Cpu(1)), tokens, whole);
  for (const int threads : {2, 3}) CHECK(all_logits(live<Net>(sizes, Cpu(threads)), tokens, whole) == one);
}

TEST_CASE("on the CPU a prompt has the bits of its steps") {
  // The order of additions in a product does not depend on its number of rows, so prefill and decode give equal bits.
  for (const Index width : {3, 12, 96, 160}) {
    CAPTURE(width);
    const ModelSizes sizes{.vocab = 50, .width = width, .depth = 3, .head_size = width < 96 ? 3 : 32};
    const auto tokens = some_tokens(600, sizes.vocab);
    config::each_version([&]<class V>() {
      const auto net = live<LanguageModel<V, float, Cpu>>(sizes, Cpu(2));
      auto prompt = net.context({.chunk = 600}), steps = net.context();
      const auto logits = prompt.prefill(tokens);
      std::span<const float> last;
      for (const Token token : tokens) last = steps.step(token);
      CHECK(std::equal(logits.begin(), logits.end(), last.begin(), last.end()));
      CHECK(prompt.state() == steps.state());
    });
  }
}

TEST_CASE_TEMPLATE("16-bit weights compute as their widened copies", H, RWKV_TEST_HALVES) {
  const ModelSizes sizes{.vocab = 61, .width = 45, .depth = 2, .ffn = 83};
  const auto narrow_net = live<LanguageModel<config::AnyVersion, H, Cpu>>(sizes, Cpu(1));
  LanguageModel<config::AnyVersion, float, Cpu> wide(sizes);
  const auto from = narrow_net.parameters();
  auto to = wide.parameters();
  for (std::size_t p = 0; p < to.size(); ++p) {
    std::transform(from[p].numbers().begin(), from[p].numbers().end(), to[p].data, [](H x) { return widen<float>(x); });
  }
  const auto tokens = some_tokens(30, sizes.vocab);
  CHECK(all_logits(narrow_net, tokens) == all_logits(wide, tokens));
}

TEST_CASE_TEMPLATE("saving and loading is the identity", S, RWKV_TEST_FLOATS, RWKV_TEST_HALVES) {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_laws_round_trip.safetensors";
  each_version_in<S>([&]<class V>() {
    using Net = LanguageModel<V, S, Cpu>;
    const auto net = live<Net>({.vocab = 31, .width = 22, .depth = 3, .head_size = 11, .ffn = 41}, Cpu(1));
    save_checkpoint(net, path);
    const auto again = load_checkpoint<Net>(path);
    const auto mapped = load_checkpoint<Net>(path, {.access = Access::mapped});
    const auto tokens = some_tokens(17, 31);
    CHECK(all_logits(again, tokens) == all_logits(net, tokens));
    CHECK(all_logits(mapped, tokens) == all_logits(net, tokens));
  });
  std::filesystem::remove(path);
}
