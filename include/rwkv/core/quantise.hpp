#pragma once
/// Numbers to blocks of quantised weights, with the rounding of ggml's reference; the bytes are those of `quantize` in the
/// Python package gguf.
///
/// With the largest number `most` and the smallest `least` of a block, and `extreme` its number of the largest magnitude, the
/// first of several:
///
///     Q8_0          unit = |extreme| / 127     level = round(x / unit), halves away from zero
///     Q4_0, Q5_0    unit = extreme / -L        level = min(floor(x / unit + L + 0.5), 2 L - 1) - L,  L = 8 or 16
///     Q4_1, Q5_1    unit = (most - least) / N  level = min(floor((x - least) / unit + 0.5), N),      N = 15 or 31
///
/// where x / unit is x times 1 / unit in floats, and times 0 where that is infinite. The unit is then rounded to half
/// precision.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "rwkv/core/block_formats.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The quantised types that numbers can be quantised to.
constexpr bool can_quantise_to(DType dtype) {
  return dtype == DType::q4_0 || dtype == DType::q4_1 || dtype == DType::q5_0 || dtype == DType::q5_1 ||
         dtype == DType::q8_0;
}

namespace detail {
/// 1 / unit; 0 where that is infinite, of units that half precision rounds to 0.
inline float inverse_of(float unit) { return std::isinf(1 / unit) ? 0 : 1 / unit; }

template <class Block>
concept WithoutOffset = Block::length == 32 && !Block::has_offset;
template <class Block>
concept WithOffset = Block::length == 32 && Block::has_offset;

/// Sets the 32 levels, from 0 on, of a block of nibbles.
template <class Block>
void set_levels(Block& block, const int (&levels)[32]) {
  for (int i = 0; i < 16; ++i)
    block.nibbles[i] = static_cast<std::uint8_t>((levels[i] & 15) | (levels[i + 16] & 15) << 4);
  if constexpr (requires { block.fifth_bits; }) {
    std::fill(block.fifth_bits, block.fifth_bits + 4, std::uint8_t{0});
    for (int i = 0; i < 32; ++i) block.fifth_bits[i / 8] |= static_cast<std::uint8_t>((levels[i] >> 4 & 1) << (i % 8));
  }
}
}  // namespace detail

/// A block of `numbers`, which are finite. A unit too large for half precision becomes infinite.
inline void quantise(std::span<const float, 32> numbers, Q8_0& block) {
  float most = 0;
  for (const float x : numbers) most = std::max(most, std::abs(x));
  const float unit = most / 127, inverse = detail::inverse_of(unit);
  for (int i = 0; i < 32; ++i)
    block.levels[i] = static_cast<std::int8_t>(std::round(numbers[std::size_t(i)] * inverse));
  block.unit = f16(unit);
}
/// For formats without an offset: the number of the largest magnitude gets the lowest level.
template <detail::WithoutOffset Block>
void quantise(std::span<const float, 32> numbers, Block& block) {
  constexpr int half = sizeof(Block) == sizeof(Q4_0) ? 8 : 16;
  float extreme = numbers[0];
  for (const float x : numbers) {
    if (std::abs(x) > std::abs(extreme)) extreme = x;
  }
  const float unit = extreme / static_cast<float>(-half), inverse = detail::inverse_of(unit);
  int levels[32];
  for (int i = 0; i < 32; ++i) {
    const double level = static_cast<double>(numbers[std::size_t(i)]) * static_cast<double>(inverse) + (half + 0.5);
    levels[i] = std::min(static_cast<int>(static_cast<float>(level)), 2 * half - 1);
  }
  detail::set_levels(block, levels);
  block.unit = f16(unit);
}
/// For formats with an offset: levels from the least number to the largest.
template <class Block>
requires(Block::has_offset&& Block::length == 32) void quantise(std::span<const float, 32> numbers, Block& block) {
  constexpr int highest = sizeof(Block) == sizeof(Q4_1) ? 15 : 31;
  const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
  const float unit = (*most - *least) / highest, inverse = detail::inverse_of(unit);
  int levels[32];
  for (int i = 0; i < 32; ++i) {
    // In double, a product of floats is exact: so it is rounded once, whether the compiler fuses operations or not.
    const auto level =
        static_cast<float>(static_cast<double>(numbers[std::size_t(i)] - *least) * static_cast<double>(inverse));
    levels[i] = std::min(static_cast<int>(std::floor(level + 0.5f)), highest);
  }
  detail::set_levels(block, levels);
  block.unit = f16(unit);
  block.least = f16(*least);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
