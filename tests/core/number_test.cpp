/// Oracle: Eigen's half and bfloat16, over every 16-bit pattern and a sweep of floats.
#include <doctest/doctest.h>

#include <rwkv/core/number.hpp>

#include <Eigen/Core>
#include <bit>
#include <cmath>

using namespace rwkv;

namespace {

template <class Own, class Other>
void check_widening() {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    Own own;
    own.bits = static_cast<std::uint16_t>(bits);
    const float got = static_cast<float>(own);
    const float want = static_cast<float>(Eigen::numext::bit_cast<Other>(static_cast<std::uint16_t>(bits)));
    if (std::isnan(want)) {
      REQUIRE(std::isnan(got));
    } else {
      REQUIRE(std::bit_cast<std::uint32_t>(got) == std::bit_cast<std::uint32_t>(want));
    }
    if (!std::isnan(want)) REQUIRE(Own(got).bits == own.bits);
  }
}

template <class Own, class Other>
void check_rounding(std::uint32_t word) {
  const float value = std::bit_cast<float>(word);
  const std::uint16_t got = Own(value).bits;
  if (std::isnan(value)) {
    REQUIRE(std::isnan(static_cast<float>(Own(value))));
  } else {
    REQUIRE(got == Eigen::numext::bit_cast<std::uint16_t>(Other(value)));
  }
}

}  // namespace

TEST_CASE("bf16 and f16 widen exactly") {
  check_widening<bf16, Eigen::bfloat16>();
  check_widening<f16, Eigen::half>();
}

TEST_CASE("bf16 and f16 round to nearest even, over all exponents, ties and subnormals") {
  // Every sign and exponent with the mantissas around each rounding boundary, and a stride over all floats.
  for (std::uint32_t high = 0; high < 65536; ++high) {
    for (const std::uint32_t low :
         {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x2000u, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      check_rounding<bf16, Eigen::bfloat16>(high << 16 | low);
      check_rounding<f16, Eigen::half>(high << 16 | low);
    }
  }
  for (std::uint64_t word = 0; word < (std::uint64_t{1} << 32); word += 4099) {
    check_rounding<bf16, Eigen::bfloat16>(static_cast<std::uint32_t>(word));
    check_rounding<f16, Eigen::half>(static_cast<std::uint32_t>(word));
  }
}

TEST_CASE_TEMPLATE("a double is rounded to 16 bits once", Half, bf16, f16) {
  // Between every two neighbours: the tie goes to the even one, and what is just beside it to the nearer one, although
  // as a float it would be the tie.
  constexpr double beside = 0x1p-40;
  const std::uint16_t infinity = Half(std::numeric_limits<float>::infinity()).bits;
  for (std::uint16_t bits = 0; bits < infinity; ++bits) {
    Half lower, upper;
    lower.bits = bits;
    upper.bits = static_cast<std::uint16_t>(bits + 1);
    const auto a = static_cast<double>(static_cast<float>(lower));
    // Past the largest finite number the next one would be a step further.
    Half before;
    before.bits = static_cast<std::uint16_t>(bits - 1);
    const auto b = upper.bits == infinity ? 2 * a - static_cast<double>(static_cast<float>(before))
                                          : static_cast<double>(static_cast<float>(upper));
    const double tie = a + (b - a) / 2;
    const std::uint16_t even = bits % 2 == 0 ? lower.bits : upper.bits;
    REQUIRE(narrow<Half>(tie).bits == even);
    REQUIRE(narrow<Half>(tie * (1 - beside)).bits == lower.bits);
    REQUIRE(narrow<Half>(tie * (1 + beside)).bits == upper.bits);
    REQUIRE(narrow<Half>(-tie * (1 + beside)).bits == (upper.bits | 0x8000u));
    REQUIRE(narrow<Half>(a).bits == lower.bits);
  }
  REQUIRE(std::isnan(static_cast<float>(narrow<Half>(std::numeric_limits<double>::quiet_NaN()))));
  REQUIRE(narrow<Half>(1e300).bits == infinity);
  REQUIRE(narrow<Half>(-1e-300).bits == 0x8000u);
}
