#pragma once
/// Quantised weights: the block formats of ggml (llama.cpp), as they lie in GGUF files.
///
/// A block holds `length` consecutive numbers of a row. A number is a small integer, its level, times the scale of its
/// group, plus the offset of its group where the format has offsets:
///
///     number i = scale(g) * level(i) + offset(g),   g = i / group
///
/// Scale and offset are a half-precision number times an integer of 8 bits or less. So they and their products with
/// levels are exact in a float, a number is rounded once at most, and its bits do not depend on whether the compiler
/// fuses the product and the sum. They are those of `dequantize` in the Python package gguf.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "rwkv/core/dtype.hpp"
#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Level i of a block of 32 nibbles: the low halves of 16 bytes, then the high halves.
RWKV_HD constexpr int nibble_of_32(const std::uint8_t (&bytes)[16], int i) {
  return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
}

/// Level i of a block of 256 nibbles: of every 32 bytes the low halves, then the high halves.
RWKV_HD constexpr int nibble_of_256(const std::uint8_t (&bytes)[128], int i) {
  return bytes[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
}

/// Bit i of four bytes, the lowest first.
RWKV_HD constexpr int bit_of_32(const std::uint8_t (&bytes)[4], int i) { return bytes[i / 8] >> (i % 8) & 1; }

/// Eight scales and eight offsets of 6 bits each. The first four of either have a byte of their own, with two bits to
/// spare, which hold the upper bits of the last four.
struct PackedScales {
  std::uint8_t bytes[12];

  RWKV_HD constexpr int scale(int group) const {
    return group < 4 ? bytes[group] & 63 : (bytes[group + 4] & 15) | (bytes[group - 4] >> 6 << 4);
  }
  RWKV_HD constexpr int offset(int group) const {
    return group < 4 ? bytes[group + 4] & 63 : bytes[group + 4] >> 4 | (bytes[group] >> 6 << 4);
  }
};

}  // namespace detail

/// Levels -8 to 7, one scale.
struct Q4_0 {
  static constexpr DType dtype = DType::q4_0;
  static constexpr int length = 32;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;

  f16 unit;
  std::uint8_t nibbles[16];  ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const { return detail::nibble_of_32(nibbles, i) - 8; }
  RWKV_HD constexpr float scale(int) const { return static_cast<float>(unit); }
};

/// Levels 0 to 15, one scale and one offset.
struct Q4_1 {
  static constexpr DType dtype = DType::q4_1;
  static constexpr int length = 32;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;

  f16 unit;
  f16 least;
  std::uint8_t nibbles[16];  ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const { return detail::nibble_of_32(nibbles, i); }
  RWKV_HD constexpr float scale(int) const { return static_cast<float>(unit); }
  RWKV_HD constexpr float offset(int) const { return static_cast<float>(least); }
};

/// Levels -16 to 15, one scale.
struct Q5_0 {
  static constexpr DType dtype = DType::q5_0;
  static constexpr int length = 32;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;

  f16 unit;
  std::uint8_t fifth_bits[4];  ///< bit i is the fifth of level i
  std::uint8_t nibbles[16];    ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const {
    return (detail::nibble_of_32(nibbles, i) | detail::bit_of_32(fifth_bits, i) << 4) - 16;
  }
  RWKV_HD constexpr float scale(int) const { return static_cast<float>(unit); }
};

/// Levels 0 to 31, one scale and one offset.
struct Q5_1 {
  static constexpr DType dtype = DType::q5_1;
  static constexpr int length = 32;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;

  f16 unit;
  f16 least;
  std::uint8_t fifth_bits[4];  ///< bit i is the fifth of level i
  std::uint8_t nibbles[16];    ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const {
    return detail::nibble_of_32(nibbles, i) | detail::bit_of_32(fifth_bits, i) << 4;
  }
  RWKV_HD constexpr float scale(int) const { return static_cast<float>(unit); }
  RWKV_HD constexpr float offset(int) const { return static_cast<float>(least); }
};

/// Levels -128 to 127, one scale.
struct Q8_0 {
  static constexpr DType dtype = DType::q8_0;
  static constexpr int length = 32;
  static constexpr int group = 32;
  static constexpr bool has_offset = false;

  f16 unit;
  std::int8_t levels[32];  ///< the integers

  RWKV_HD constexpr int level(int i) const { return levels[i]; }
  RWKV_HD constexpr float scale(int) const { return static_cast<float>(unit); }
};

/// Levels 0 to 15, eight groups with a scale and an offset of 6 bits each.
struct Q4_K {
  static constexpr DType dtype = DType::q4_k;
  static constexpr int length = 256;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;

  f16 unit;
  f16 offset_unit;
  detail::PackedScales scales;  ///< and offsets of the groups, six bits each
  std::uint8_t nibbles[128];    ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const { return detail::nibble_of_256(nibbles, i); }
  RWKV_HD constexpr float scale(int g) const { return static_cast<float>(unit) * static_cast<float>(scales.scale(g)); }
  RWKV_HD constexpr float offset(int g) const {
    return -(static_cast<float>(offset_unit) * static_cast<float>(scales.offset(g)));
  }
};

/// Levels 0 to 31, eight groups with a scale and an offset of 6 bits each.
struct Q5_K {
  static constexpr DType dtype = DType::q5_k;
  static constexpr int length = 256;
  static constexpr int group = 32;
  static constexpr bool has_offset = true;

  f16 unit;
  f16 offset_unit;
  detail::PackedScales scales;  ///< and offsets of the groups, six bits each
  std::uint8_t fifth_bits[32];  ///< bit g of byte j belongs to number j of group g
  std::uint8_t nibbles[128];    ///< the lower four bits of two levels a byte

  RWKV_HD constexpr int level(int i) const {
    return detail::nibble_of_256(nibbles, i) | (fifth_bits[i % 32] >> (i / 32) & 1) << 4;
  }
  RWKV_HD constexpr float scale(int g) const { return static_cast<float>(unit) * static_cast<float>(scales.scale(g)); }
  RWKV_HD constexpr float offset(int g) const {
    return -(static_cast<float>(offset_unit) * static_cast<float>(scales.offset(g)));
  }
};

/// Levels -32 to 31, sixteen groups with a scale of 8 bits each.
struct Q6_K {
  static constexpr DType dtype = DType::q6_k;
  static constexpr int length = 256;
  static constexpr int group = 16;
  static constexpr bool has_offset = false;

  std::uint8_t low_bits[128];  ///< of either half of the block 64 bytes: the low nibbles, then the high ones
  std::uint8_t high_bits[64];  ///< of either half of the block 32 bytes: the lowest two bits first
  std::int8_t scales[16];      ///< of each group of 16
  f16 unit;

  RWKV_HD constexpr int level(int i) const {
    const int half = i / 128, j = i % 128;
    const int low = low_bits[half * 64 + j % 64] >> (j / 64 * 4) & 15;
    const int high = high_bits[half * 32 + j % 32] >> (j / 32 * 2) & 3;
    return (low | high << 4) - 32;
  }
  RWKV_HD constexpr float scale(int g) const { return static_cast<float>(unit) * static_cast<float>(scales[g]); }
};

/// A block of quantised numbers. Its bytes in a file are its bytes in memory on a little-endian machine, its alignment
/// there is 2 at most.
template <class Block>
concept QuantisedBlock = std::is_trivially_copyable_v<Block> && sizeof(Block) == size_of(Block::dtype) &&
                         Block::length == length_of(Block::dtype) && alignof(Block) <= 2;

static_assert(QuantisedBlock<Q4_0> && sizeof(Q4_0) == 18);
static_assert(QuantisedBlock<Q4_1> && sizeof(Q4_1) == 20);
static_assert(QuantisedBlock<Q5_0> && sizeof(Q5_0) == 22);
static_assert(QuantisedBlock<Q5_1> && sizeof(Q5_1) == 24);
static_assert(QuantisedBlock<Q8_0> && sizeof(Q8_0) == 34);
static_assert(QuantisedBlock<Q4_K> && sizeof(Q4_K) == 144);
static_assert(QuantisedBlock<Q5_K> && sizeof(Q5_K) == 176);
static_assert(QuantisedBlock<Q6_K> && sizeof(Q6_K) == 210);

/// The numbers of a block.
template <QuantisedBlock Block>
RWKV_HD constexpr void dequantise(const Block& block, float (&numbers)[Block::length]) {
  for (int g = 0; g < Block::length / Block::group; ++g) {
    const float scale = block.scale(g);
    for (int i = g * Block::group; i < (g + 1) * Block::group; ++i) {
      numbers[i] = scale * static_cast<float>(block.level(i));
      if constexpr (Block::has_offset) numbers[i] += block.offset(g);
    }
  }
}

/// Calls f(Block{}) with the block of a quantised number type, and returns false for any other type.
template <class F>
bool with_block(DType dtype, F&& f) {
  switch (dtype) {
    case DType::q4_0: f(Q4_0{}); return true;
    case DType::q4_1: f(Q4_1{}); return true;
    case DType::q5_0: f(Q5_0{}); return true;
    case DType::q5_1: f(Q5_1{}); return true;
    case DType::q8_0: f(Q8_0{}); return true;
    case DType::q4_k: f(Q4_K{}); return true;
    case DType::q5_k: f(Q5_K{}); return true;
    case DType::q6_k: f(Q6_K{}); return true;
    default: return false;
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
