/// A hundred thousand tokens. Oracle: the same in double.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <span>

#include "../golden.hpp"
#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

TEST_CASE("after a hundred thousand tokens, float logits are those of double to 1e-4") {
  config::each_version([&]<class V>() {
    CAPTURE(V::official.name);
    const ModelSizes sizes{.vocab = 40, .width = 32, .depth = 2, .head_size = 8};
    const auto tokens = some_tokens(100'000, sizes.vocab);
    const auto net = live<LanguageModel<V, float, Cpu>>(sizes, Cpu());
    const auto exact_net = live<LanguageModel<V, double, Cpu>>(sizes, Cpu());
    auto context = net.context();
    auto exact = exact_net.context();
    for (std::size_t begin = 0; begin < tokens.size(); begin += 1000) {
      const auto part = std::span(tokens).subspan(begin, 1000);
      const auto logits = context.prefill(part);
      CAPTURE(begin);
      REQUIRE(std::ranges::all_of(logits, [](float x) { return is_finite(x); }));
      REQUIRE(golden::relative_error(logits, exact.prefill(part)) < 1e-4);
    }
  });
}
