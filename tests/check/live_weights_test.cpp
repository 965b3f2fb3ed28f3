/// With live weights every part of a model influences its output; the numbers are the same in every scalar type.
#include <doctest/doctest.h>

#include <cmath>

#include "../instances.hpp"

using namespace rwkv;

TEST_CASE("live weights are finite, differ, and do not depend on the scalar type") {
  const ModelSizes sizes{.vocab = 30, .width = 20, .depth = 2};
  LanguageModel<V4, double, Cpu> exact(sizes);
  LanguageModel<V4, float, Cpu> rounded(sizes);
  LanguageModel<V4, float, Cpu> other(sizes);
  live_weights(exact, 5);
  live_weights(rounded, 5);
  live_weights(other, 6);
  const auto from = exact.parameters();
  const auto to = rounded.parameters();
  const auto apart = other.parameters();
  REQUIRE(from.size() == to.size());
  for (std::size_t p = 0; p < from.size(); ++p) {
    CAPTURE(from[p].name);
    std::size_t different = 0;
    for (std::size_t i = 0; i < from[p].numbers().size(); ++i) {
      const double value = from[p].numbers()[i];
      CHECK(std::isfinite(value));
      CHECK(to[p].numbers()[i] == static_cast<float>(value));
      different += value != from[p].numbers()[0] || i == 0;
    }
    CHECK(different == from[p].numbers().size());
    CHECK(apart[p].numbers()[0] != to[p].numbers()[0]);
  }
}
