/// Quantising: the bytes of `quantize` in the Python package gguf.
#include <doctest/doctest.h>

#include <rwkv/core/quantise.hpp>
#include <rwkv/core/random.hpp>
#include <rwkv/system/crc32.hpp>

#include <cmath>
#include <vector>

using namespace rwkv;

namespace {

/// 4000 blocks of many magnitudes; among the first also zeros, ties, equal and opposite numbers.
std::vector<float> numbers_of_blocks() {
  std::vector<float> x(32 * 4000);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double magnitude = std::floor(20 * Philox{.key = 10}.block(i / 32).uniform_double(1)) - 10;
    x[i] = static_cast<float>((Philox{.key = 9}.block(i).uniform_double(0) - 0.5) * std::exp2(magnitude));
  }
  for (int i = 0; i < 192; ++i) {
    const float odd[] = {0.0f,
                         -0.0f,
                         3e-38f * static_cast<float>(i - 70),
                         static_cast<float>(i - 112) / 2,
                         0.7f,
                         i % 2 != 0 ? 1.5f : -1.5f};
    x[static_cast<std::size_t>(i)] = odd[i / 32];
  }
  return x;
}

template <class Block>
std::uint32_t sum_of_blocks(const std::vector<float>& x) {
  std::vector<Block> blocks(x.size() / 32);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    quantise(std::span<const float, 32>(x.data() + 32 * b, 32), blocks[b]);
  }
  return detail::crc32(std::as_bytes(std::span(blocks)));
}

}  // namespace

TEST_CASE("blocks have the bytes of the Python package gguf 0.17.1") {
  const auto x = numbers_of_blocks();
  REQUIRE(detail::crc32(std::as_bytes(std::span(x))) == 0xa4f02dce);
  CHECK(sum_of_blocks<Q4_0>(x) == 0xefe75e98);
  CHECK(sum_of_blocks<Q4_1>(x) == 0x3b826ece);
  CHECK(sum_of_blocks<Q5_0>(x) == 0xfa85aa83);
  CHECK(sum_of_blocks<Q5_1>(x) == 0x07f23bff);
  CHECK(sum_of_blocks<Q8_0>(x) == 0x53a39458);
}

TEST_CASE("what is quantised and dequantised is off by half a level and the rounding of the unit") {
  const auto x = numbers_of_blocks();
  for (std::size_t b = 6; b < 500; ++b) {
    Q8_0 block;
    float numbers[32], most = 0;
    quantise(std::span<const float, 32>(x.data() + 32 * b, 32), block);
    dequantise(block, numbers);
    for (std::size_t i = 0; i < 32; ++i) most = std::max(most, std::abs(x[32 * b + i]));
    for (std::size_t i = 0; i < 32; ++i)
      CHECK(std::abs(numbers[i] - x[32 * b + i]) <= most * (0.5f / 127 + 0x1p-10f) + 127 * 0x1p-25f);
  }
}
