/// With live weights every part of a model influences its output; the numbers are the same in every scalar type.
#include <doctest/doctest.h>

#include <cmath>

#include "../instances.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

template <class V>
void check_live_weights() {
  const ModelSizes sizes{.vocab = 30, .width = 20, .depth = 2, .head_size = 5};
  LanguageModel<V, double, Cpu> exact(sizes);
  LanguageModel<V, float, Cpu> rounded(sizes);
  LanguageModel<V, float, Cpu> other(sizes);
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

}  // namespace

TEST_CASE("live weights are finite, differ, and do not depend on the scalar type") {
  config::each_version([&]<class V>() { check_live_weights<V>(); });
}
