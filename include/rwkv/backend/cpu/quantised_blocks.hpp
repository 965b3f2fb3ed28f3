#pragma once
/// From the blocks of every quantised format to the lanes of quantised_lanes.hpp.
#include <cstdint>
#include <type_traits>

#include "rwkv/backend/cpu/quantised_lanes.hpp"
#include "rwkv/core/block_formats.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace quantised {

// False warning of g++ 12: the AVX-512 header leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

/// The levels of the 32 numbers of a block from `first` on.
#if RWKV_SIMD_BYTES > 0
RWKV_INLINE RunLevels levels_of(const Q8_0& block, Index) {
  return {{RunLevels::load(block.levels) ^ 128, RunLevels::load(block.levels + run / 2) ^ 128}};
}
/// Of 32 nibbles: the low halves of 16 bytes, then the high halves.
template <class Block>
concept Nibbles32 = Block::length == run;
template <Nibbles32 Block>
RWKV_INLINE RunLevels levels_of(const Block& block, Index) {
  using Bytes = RunLevels::Bytes;
  constexpr bool has_fifth = requires { block.fifth_bits; };
  constexpr int least = Block::has_offset ? 0 : has_fifth ? -16 : -8;
  const Bytes nibbles = RunLevels::load(block.nibbles), zero = RunLevels::all(128 + least);
  RunLevels levels{{(nibbles & 15) + zero, (nibbles >> 4) + zero}};
  if constexpr (has_fifth) {
    constexpr Bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t first = block.fifth_bits[2 * half], last = block.fifth_bits[2 * half + 1];
      const Bytes bits = {first, first, first, first, first, first, first, first,
                          last,  last,  last,  last,  last,  last,  last,  last};
      levels.half[half] += __builtin_bit_cast(Bytes, (bits & bit) != 0) & 16;
    }
  }
  return levels;
}
/// Of 256 nibbles: of every 32 bytes the low halves, then the high halves.
template <class Block>
concept Nibbles256 = Block::length == 256 && Block::has_offset;
template <Nibbles256 Block>
RWKV_INLINE RunLevels levels_of(const Block& block, Index first) {
  const int shift = static_cast<int>(first / run % 2 * 4), group = static_cast<int>(first / run);
  RunLevels levels;
  for (Index half = 0; half < 2; ++half) {
    auto level = (RunLevels::load(block.nibbles + first / 64 * run + half * 16) >> RunLevels::all(shift)) & 15;
    if constexpr (requires { block.fifth_bits; }) {
      level |= ((RunLevels::load(block.fifth_bits + half * 16) >> RunLevels::all(group)) & 1) << 4;
    }
    levels.half[half] = level | 128;
  }
  return levels;
}
RWKV_INLINE RunLevels levels_of(const Q6_K& block, Index first) {
  const Index part = first / 128, at = first % 128;
  const auto low_shift = RunLevels::all(static_cast<int>(at / 64 * 4));
  const auto high_shift = RunLevels::all(static_cast<int>(at / run * 2));
  RunLevels levels;
  for (Index half = 0; half < 2; ++half) {
    const auto low = (RunLevels::load(block.low_bits + part * 64 + at % 64 + half * 16) >> low_shift) & 15;
    const auto high = (RunLevels::load(block.high_bits + part * run + half * 16) >> high_shift) & 3;
    levels.half[half] = (low | high << 4) + (128 - 32);
  }
  return levels;
}
#else
template <class Block>
RunLevels levels_of(const Block& block, Index first) {
  RunLevels levels;
  for (Index i = 0; i < run; ++i) {
    const int level = block.level(static_cast<int>(first + i));
    levels.half[i / (run / 2)][i % (run / 2)] = static_cast<std::uint8_t>(level + 128);
  }
  return levels;
}
#endif

/// A pair of runs of weights in registers.
struct Loaded {
  Levels levels;
  Lanes scales;
  Lanes offsets;  // only of formats with offsets
};

/// How blocks are read: load<Both>(row, k) loads the runs number k and k + 1 of a row, k even, or one run followed by zeros.
/// In a product with a single row of activations, `together` rows of weights are read at a time, as measured to be fastest:
/// one is a single stream of memory, several have less arithmetic.
template <class Block>
struct Read {
  static constexpr int together = 1;
  static constexpr int bias = 7;

  template <bool Both>
  RWKV_INLINE static Loaded load(const Block* row, Index k) {
    constexpr int quarter = run / 2, step = Block::group == run ? 0 : 1;
    const Block& one = row[k * run / Block::length];
    const Block& two = Block::length > run || !Both ? one : (&one)[1];
    const Index first = k * run % Block::length, second = Block::length > run ? first + run : 0;
    const int group = static_cast<int>(first) / Block::group, next = static_cast<int>(second) / Block::group;
    static_assert(Block::group == run || Block::group == quarter);
    Loaded weights;
    weights.levels = joined(levels_of(one, first), levels_of(two, Both ? second : first));
    const auto if_both = [](float number) { return Both ? number : 0.0f; };
    weights.scales = Lanes::quarters(one.scale(group), one.scale(group + step), if_both(two.scale(next)),
                                     if_both(two.scale(next + step)));
    if constexpr (Block::has_offset) {
      static_assert(step == 0);
      weights.offsets = Lanes::halves(one.offset(group), if_both(two.offset(next)));
    }
    return weights;
  }
};

#if RWKV_BYTE_SUMS == 2
/// The numbers of two blocks for eight lanes each, from the words of a register that their scales are in.
template <int First, int Second>
RWKV_INLINE Lanes scales_at(__m512i words) {
  constexpr std::int64_t one = 0x0001'0001'0001'0001, first = First * one, second = Second * one;
  const __m512i place = _mm512_set_epi64(0, 0, 0, 0, second, second, first, first);
  const __m256i halves = _mm512_castsi512_si256(_mm512_permutexvar_epi16(place, words));
  return {{Pack<float, 16>(_mm512_cvtph_ps(halves))}};
}

template <>
struct Read<Q8_0> {
  static constexpr int together = 1;
  static constexpr int bias = 7;

  /// Two loads of 32 bytes, because each of 64 would touch two cache lines.
  template <bool Both>
  RWKV_INLINE static Loaded load(const Q8_0* row, Index k) {
    const Q8_0* blocks = row + k;
    __m512i levels = _mm512_castsi256_si512(bytes(blocks[0]));
    std::uint32_t units = blocks[0].unit.bits;
    if constexpr (Both) {
      levels = _mm512_inserti64x4(levels, bytes(blocks[1]), 1);
      units |= std::uint32_t{blocks[1].unit.bits} << 16;
    }
    const __m512i words = _mm512_castsi128_si512(_mm_cvtsi32_si128(static_cast<int>(units)));
    return {{_mm512_xor_si512(levels, _mm512_set1_epi8(-128))}, scales_at<0, 1>(words), {}};
  }

 private:
  RWKV_INLINE static __m256i bytes(const Q8_0& block) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.levels));
  }
};

template <>
struct Read<Q4_0> {
  static constexpr int together = 2;
  static constexpr int bias = 3;

  template <bool Both>
  RWKV_INLINE static Loaded load(const Q4_0* row, Index k) {
    const Q4_0* blocks = row + k;
    const __m512i words = _mm512_maskz_loadu_epi16(Both ? 0x3ffff : 0x1ff, blocks);
    // The nibbles of either block twice, then shifted where the high ones are wanted.
    constexpr std::int64_t four = 0x0004'0003'0002'0001, next = 0x0004'0004'0004'0004, second = 0x0009'0009'0009'0009;
    const __m512i place = _mm512_set_epi64(four + next + second, four + second, four + next + second, four + second,
                                           four + next, four, four + next, four);
    const __m512i high = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    const __m512i nibbles = _mm512_srlv_epi64(_mm512_permutexvar_epi16(place, words), high);
    return {{_mm512_and_si512(nibbles, _mm512_set1_epi8(15))}, scales_at<0, 9>(words), {}};
  }
};
#elif RWKV_BYTE_SUMS == 1
/// The number of a block for eight lanes.
RWKV_INLINE Pack<float, 8> eight_lanes(f16 scale) { return Pack<float, 8>(static_cast<float>(scale)); }

RWKV_INLINE __m256i signed_levels(const Q8_0& block) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.levels));
}
RWKV_INLINE __m256i signed_levels(const Q4_0& block) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.nibbles));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
  return _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
}

template <class Block>
requires std::is_same_v<Block, Q8_0> || std::is_same_v<Block, Q4_0>
struct Read<Block> {
  static constexpr int together = std::is_same_v<Block, Q8_0> ? 1 : 2;
  static constexpr int bias = 0;

  template <bool Both>
  RWKV_INLINE static Loaded load(const Block* row, Index k) {
    const Block* blocks = row + k;
    Loaded loaded{
        {{signed_levels(blocks[0]), _mm256_setzero_si256()}}, {{eight_lanes(blocks[0].unit), Pack<float, 8>(0)}}, {}};
    if constexpr (Both) {
      loaded.levels.v[1] = signed_levels(blocks[1]);
      loaded.scales.pack[1] = eight_lanes(blocks[1].unit);
    }
    return loaded;
  }
};
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace quantised
}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
