// The random generator: known answers and the range of the uniform numbers.
#include "rwkv/core/random.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>

namespace {

using rwkv::Philox;

std::array<std::uint32_t, 4> words(const Philox& philox, std::uint64_t n) {
  const Philox::Block block = philox.block(n);
  return {block.words[0], block.words[1], block.words[2], block.words[3]};
}

// The three vectors that Random123 publishes for philox4x32 with ten rounds.
TEST_CASE("Philox gives the known answers") {
  CHECK(words({}, 0) == std::array{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(words({.key = ~std::uint64_t{0}, .stream = ~std::uint64_t{0}}, ~std::uint64_t{0}) ==
        std::array{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(words({.key = 0x299f31d0a4093822u, .stream = 0x0370734413198a2eu}, 0x85a308d3243f6a88u) ==
        std::array{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
  static_assert(Philox{}.block(0).words[0] == 0x6627e8d5u);
}

// Three of the published test vectors of FNV-1a.
TEST_CASE("a name gives the stream of its FNV-1a hash") {
  static_assert(rwkv::stream_of("") == 0xcbf29ce484222325u);
  static_assert(rwkv::stream_of("a") == 0xaf63dc4c8601ec8cu);
  static_assert(rwkv::stream_of("foobar") == 0x85944171f73967e8u);
}

TEST_CASE("uniform numbers use the upper bits and stay below one") {
  constexpr Philox::Block block{{0xffffffffu, 0xffffffffu, 0x80000000u, 0x00000800u}};
  CHECK(block.uniform_float(0) == 1.0f - 0x1p-24f);
  CHECK(block.uniform_float(2) == 0.5f);
  CHECK(block.uniform_float(3) == 0x8p-24f);
  CHECK(block.uniform_double(0) == 1.0 - 0x1p-53);
  CHECK(block.uniform_double(1) == 0x800p-32 + 0x1p-33);
  CHECK(Philox::Block{}.uniform_float(0) == 0.0f);
  CHECK(Philox::Block{}.uniform_double(0) == 0.0);
}

TEST_CASE("uniform numbers have the moments of the uniform distribution") {
  const Philox philox{.key = 7};
  constexpr int count = 100000;
  double mean = 0, square = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    const double u = philox.block(n).uniform_double(1);
    mean += u / count;
    square += u * u / count;
  }
  CHECK(mean == doctest::Approx(0.5).epsilon(0.005));
  CHECK(square == doctest::Approx(1.0 / 3).epsilon(0.01));
}

}  // namespace
