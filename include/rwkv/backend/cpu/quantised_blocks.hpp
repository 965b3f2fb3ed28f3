#pragma once
/// From the blocks of every quantised format to the lanes of quantised_lanes.hpp.
#include <cstdint>
#include <cstring>

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

/// Of 32 numbers, in nibbles and, of some formats, fifth bits.
template <class Block>
concept Nibbles32 = Block::length == run&& requires(Block b) {
  b.nibbles;
};
/// Of 256 numbers, in nibbles and, of some formats, fifth bits.
template <class Block>
concept Nibbles256 = Block::length == 256 && requires(Block b) {
  b.nibbles;
};
template <class Block>
inline constexpr bool has_fifth_bits = requires(Block b) {
  b.fifth_bits;
};

/// Pairs of runs that are read at a time, and their weights in registers.
template <class Block>
inline constexpr Index pairs_read = Block::length > pair ? Block::length / pair : 1;
template <class Block>
struct Loaded {
  Levels levels[pairs_read<Block>];
  Lanes scales[pairs_read<Block>];
};

/// How blocks are read: load<Both>(blocks) loads the next pairs of a row, or one run followed by zeros; levels are in that
/// excess. In a product with a single row of activations, `together` rows of weights are read at a time, as measured to be
/// fastest: one is a single stream of memory, several have less arithmetic.
template <class Block>
struct Read;

#if RWKV_BYTE_SUMS > 0
RWKV_INLINE float float_of(f16 number) { return _cvtsh_ss(number.bits); }

/// The eight scales, or offsets, of a block, a byte each: `part` are the bytes of the first four and of the upper bits of
/// the last four, whose lower four bits are those of `other`.
RWKV_INLINE std::uint64_t six_bits(std::uint32_t part, std::uint32_t other) {
  const std::uint32_t first = part & 0x3f3f3f3fu, last = (other & 0x0f0f0f0fu) | (part >> 2 & 0x30303030u);
  return first | std::uint64_t{last} << 32;
}
RWKV_INLINE std::uint32_t four_bytes(const std::uint8_t* from) {
  std::uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
RWKV_INLINE std::uint64_t scale_bytes(const detail::PackedScales& packed) {
  return six_bits(four_bytes(packed.bytes), four_bytes(packed.bytes + 8));
}
RWKV_INLINE std::uint64_t offset_bytes(const detail::PackedScales& packed) {
  return six_bits(four_bytes(packed.bytes + 4), four_bytes(packed.bytes + 8) >> 4);
}
/// Eight bytes times a number.
RWKV_INLINE __m256 multiples(std::uint64_t bytes, float unit) {
  const __m256i integers = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(integers), _mm256_set1_ps(unit));
}
template <Nibbles256 Block>
RWKV_INLINE __m256 group_scales(const Block& block) {
  return multiples(scale_bytes(block.scales), float_of(block.unit));
}
template <Nibbles256 Block>
RWKV_INLINE __m256 group_offsets(const Block& block) {
  return multiples(offset_bytes(block.scales), -float_of(block.offset_unit));
}
RWKV_INLINE __m256i load_256(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
#endif

#if RWKV_BYTE_SUMS == 2
/// The numbers of two blocks for eight lanes each, from the words of a register that their scales are in.
template <int First, int Second>
RWKV_INLINE Lanes scales_at(__m512i words) {
  constexpr std::int64_t one = 0x0001'0001'0001'0001, first = First * one, second = Second * one;
  const __m512i place = _mm512_set_epi64(0, 0, 0, 0, second, second, first, first);
  const __m256i halves = _mm512_castsi512_si256(_mm512_permutexvar_epi16(place, words));
  return {{Pack<float, 16>(_mm512_cvtph_ps(halves))}};
}

/// A number for the words of each half of a register.
RWKV_INLINE __m512i for_halves(std::int64_t first, std::int64_t second) {
  return _mm512_set_epi64(second, second, second, second, first, first, first, first);
}
/// Levels, and those bits that the mask names.
template <int Mask>
RWKV_INLINE __m512i either(__m512i levels, __m512i bits) {
  return _mm512_ternarylogic_epi64(levels, bits, _mm512_set1_epi8(Mask), 0xf8);
}

template <>
struct Read<Q8_0> {
  static constexpr int together = 1;
  static constexpr int excess = unpacked_excess;

  /// Two loads of 32 bytes, because each of 64 would touch two cache lines.
  template <bool Both>
  RWKV_INLINE static Loaded<Q8_0> load(const Q8_0* blocks) {
    __m512i levels = _mm512_castsi256_si512(load_256(blocks[0].levels));
    std::uint32_t units = blocks[0].unit.bits;
    if constexpr (Both) {
      levels = _mm512_inserti64x4(levels, load_256(blocks[1].levels), 1);
      units |= std::uint32_t{blocks[1].unit.bits} << 16;
    }
    if constexpr (excess != with_sign) levels = _mm512_xor_si512(levels, _mm512_set1_epi8(-128));
    const __m512i words = _mm512_castsi128_si512(_mm_cvtsi32_si128(static_cast<int>(units)));
    return {{{levels}}, {scales_at<0, 1>(words)}};
  }
};

/// Two blocks, or one and zeros.
template <bool Both, Nibbles32 Block>
RWKV_INLINE __m512i words_of(const Block* blocks) {
  constexpr int words_each = sizeof(Block) / 2;
  return _mm512_maskz_loadu_epi16((1u << (Both ? 2 * words_each : words_each)) - 1, blocks);
}

template <Nibbles32 Block>
struct Read<Block> {
  static constexpr int together = 2;
  static constexpr int excess = Block::has_offset ? 0 : has_fifth_bits<Block> ? 16 : 8;

  template <bool Both>
  RWKV_INLINE static Loaded<Block> load(const Block* blocks) {
    constexpr int words_each = sizeof(Block) / 2, nibbles = words_each - 8;
    const __m512i words = words_of<Both>(blocks);
    // The nibbles of either block twice, then shifted where the high ones are wanted.
    constexpr auto four = [](std::int64_t first) { return 0x0003'0002'0001'0000 + first * 0x0001'0001'0001'0001; };
    constexpr std::int64_t a = four(nibbles), b = four(nibbles + 4), c = four(nibbles + words_each),
                           d = four(nibbles + words_each + 4);
    const __m512i place = _mm512_set_epi64(d, c, d, c, b, a, b, a), high = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    const __m512i shifted = _mm512_srlv_epi64(_mm512_permutexvar_epi16(place, words), high);
    __m512i levels = _mm512_and_si512(shifted, _mm512_set1_epi8(15));
    if constexpr (has_fifth_bits<Block>) {
      std::uint64_t fifth = four_bytes(blocks[0].fifth_bits);
      if constexpr (Both) fifth |= std::uint64_t{four_bytes(blocks[1].fifth_bits)} << 32;
      levels = _mm512_mask_add_epi8(levels, fifth, levels, _mm512_set1_epi8(16));
    }
    return {{{levels}}, {scales_at<0, words_each>(words)}};
  }
};

template <Nibbles256 Block>
struct Read<Block> {
  static constexpr int together = has_fifth_bits<Block> ? 1 : 2;
  static constexpr int excess = 0;

  template <bool>
  RWKV_INLINE static Loaded<Block> load(const Block* block) {
    const __m512 scales = _mm512_castps256_ps512(group_scales(*block));
    Loaded<Block> weights;
    RWKV_UNROLL for (int p = 0; p < 4; ++p) {
      const __m512i twice = _mm512_broadcast_i64x4(load_256(block->nibbles + run * p));
      const __m512i shifted = _mm512_srlv_epi64(twice, for_halves(0, 4));
      __m512i levels = _mm512_and_si512(shifted, _mm512_set1_epi8(15));
      if constexpr (has_fifth_bits<Block>) {  // bit g of the bytes of group g, rotated to the fifth
        const __m512i bits = _mm512_broadcast_i64x4(load_256(block->fifth_bits));
        levels = either<0x10>(levels, _mm512_rolv_epi64(bits, for_halves((4 - 2 * p) & 63, (3 - 2 * p) & 63)));
      }
      weights.levels[p] = {levels};
      constexpr std::int64_t both = 0x1'0000'0001;
      const __m512i group = for_halves(2 * p * both, (2 * p + 1) * both);
      weights.scales[p] = {{Pack<float, 16>(_mm512_permutexvar_ps(group, scales))}};
    }
    return weights;
  }
};

template <>
struct Read<Q6_K> {
  static constexpr int together = 1;
  static constexpr int excess = 32;

  template <bool>
  RWKV_INLINE static Loaded<Q6_K> load(const Q6_K* block) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block->scales));
    const __m512 scales =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), _mm512_set1_ps(float_of(block->unit)));
    Loaded<Q6_K> weights;
    RWKV_UNROLL for (int p = 0; p < 4; ++p) {
      const __m512i low = _mm512_loadu_si512(block->low_bits + p / 2 * pair);
      const __m512i nibbles = p % 2 == 0 ? low : _mm512_srli_epi64(low, 4);
      // Two bits for each run, rotated above the nibbles.
      const __m512i bits = _mm512_broadcast_i64x4(load_256(block->high_bits + p / 2 * run));
      const __m512i left = p % 2 == 0 ? for_halves(4, 2) : for_halves(0, 62);
      const __m512i levels = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
      weights.levels[p] = {either<0x30>(levels, _mm512_rolv_epi64(bits, left))};
      const __m512i group =
          _mm512_add_epi32(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), _mm512_set1_epi32(4 * p));
      weights.scales[p] = {{Pack<float, 16>(_mm512_permutexvar_ps(group, scales))}};
    }
    return weights;
  }
};
#elif RWKV_BYTE_SUMS == 1
RWKV_INLINE Pack<float, 8> eight_lanes(float number) { return Pack<float, 8>(_mm256_set1_ps(number)); }

/// The levels of 32 numbers in a register.
RWKV_INLINE __m256i levels_of(const Q8_0& block) { return load_256(block.levels); }
template <Nibbles32 Block>
RWKV_INLINE __m256i levels_of(const Block& block) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.nibbles));
  const __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
  const __m256i levels = _mm256_and_si256(both, _mm256_set1_epi8(15));
  if constexpr (!has_fifth_bits<Block>) return levels;
  else {
    const __m256i bits = _mm256_set1_epi32(static_cast<int>(four_bytes(block.fifth_bits)));
    constexpr std::int64_t byte = 0x0101'0101'0101'0101;
    const __m256i spread = _mm256_shuffle_epi8(bits, _mm256_set_epi64x(3 * byte, 2 * byte, byte, 0));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040'2010'0804'0201));
    const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return _mm256_or_si256(levels, _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
  }
}

template <class Block>
requires(Block::length == run) struct Read<Block> {
  static constexpr int together = 1;
  static constexpr int excess = !Nibbles32<Block> ? with_sign : Block::has_offset ? 0 : has_fifth_bits<Block> ? 16 : 8;

  template <bool Both>
  RWKV_INLINE static Loaded<Block> load(const Block* blocks) {
    Loaded<Block> weights{{{{levels_of(blocks[0]), _mm256_setzero_si256()}}},
                          {{{eight_lanes(float_of(blocks[0].unit)), eight_lanes(0)}}}};
    if constexpr (Both) {
      weights.levels[0].v[1] = levels_of(blocks[1]);
      weights.scales[0].pack[1] = eight_lanes(float_of(blocks[1].unit));
    }
    return weights;
  }
};

/// Shifts words to the left, or to the right by less than nothing. The caller masks out what crosses from byte to byte.
RWKV_INLINE __m256i shifted(__m256i words, int left) {
  return left >= 0 ? _mm256_slli_epi16(words, left) : _mm256_srli_epi16(words, -left);
}

template <Nibbles256 Block>
struct Read<Block> {
  static constexpr int together = 1;
  static constexpr int excess = 0;

  template <bool>
  RWKV_INLINE static Loaded<Block> load(const Block* block) {
    alignas(32) float scales[8];
    _mm256_store_ps(scales, group_scales(*block));
    Loaded<Block> weights;
    RWKV_UNROLL for (int g = 0; g < 8; ++g) {
      const __m256i nibbles = shifted(load_256(block->nibbles + g / 2 * run), g % 2 * -4);
      __m256i levels = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
      if constexpr (has_fifth_bits<Block>) {
        const __m256i fifth = shifted(load_256(block->fifth_bits), 4 - g);
        levels = _mm256_or_si256(levels, _mm256_and_si256(fifth, _mm256_set1_epi8(16)));
      }
      weights.levels[g / 2].v[g % 2] = levels;
      weights.scales[g / 2].pack[g % 2] = eight_lanes(scales[g]);
    }
    return weights;
  }
};

template <>
struct Read<Q6_K> {
  static constexpr int together = 1;
  static constexpr int excess = 32;

  template <bool>
  RWKV_INLINE static Loaded<Q6_K> load(const Q6_K* block) {
    const float unit = float_of(block->unit);
    Loaded<Q6_K> weights;
    RWKV_UNROLL for (int r = 0; r < 8; ++r) {  // of four runs two have the low nibbles, two the high ones
      const __m256i low = load_256(block->low_bits + r / 4 * pair + r % 2 * run);
      const __m256i nibbles = _mm256_and_si256(shifted(low, r / 2 % 2 * -4), _mm256_set1_epi8(15));
      const __m256i high = shifted(load_256(block->high_bits + r / 4 * run), 4 - r % 4 * 2);
      weights.levels[r / 2].v[r % 2] = _mm256_or_si256(nibbles, _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
      const __m256 first = _mm256_set1_ps(unit * static_cast<float>(block->scales[2 * r]));
      const __m256 second = _mm256_set1_ps(unit * static_cast<float>(block->scales[2 * r + 1]));
      weights.scales[r / 2].pack[r % 2] = Pack<float, 8>(_mm256_blend_ps(first, second, 0xf0));
    }
    return weights;
  }
};
#else
/// The levels of the 32 numbers of a block from `first` on.
#if RWKV_SIMD_BYTES > 0
RWKV_INLINE RunLevels levels_of(const Q8_0& block, Index) {
  return {{RunLevels::load(block.levels) ^ 128, RunLevels::load(block.levels + run / 2) ^ 128}};
}
/// Of 32 nibbles: the low halves of 16 bytes, then the high halves.
template <Nibbles32 Block>
RWKV_INLINE RunLevels levels_of(const Block& block, Index) {
  using Bytes = RunLevels::Bytes;
  constexpr int least = Block::has_offset ? 0 : has_fifth_bits<Block> ? -16 : -8;
  const Bytes nibbles = RunLevels::load(block.nibbles), zero = RunLevels::all(128 + least);
  RunLevels levels{{(nibbles & 15) + zero, (nibbles >> 4) + zero}};
  if constexpr (has_fifth_bits<Block>) {
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

template <class Block>
struct Read {
  static constexpr int together = 1;
  static constexpr int excess = unpacked_excess;

  template <bool Both>
  RWKV_INLINE static Loaded<Block> load(const Block* blocks) {
    constexpr int step = Block::group == run ? 0 : 1;  // groups of a run, or of half a run
    Loaded<Block> weights;
    RWKV_UNROLL for (Index p = 0; p < pairs_read<Block>; ++p) {
      const Block& second = blocks[Block::length == run && Both ? 1 : 0];
      const Index first = p * pair, next = Block::length == run ? 0 : first + run;
      weights.levels[p] = {{levels_of(*blocks, first), levels_of(second, next)}};
      const int group = static_cast<int>(first) / Block::group, next_group = static_cast<int>(next) / Block::group;
      const auto if_both = [](float number) { return Both ? number : 0.0f; };
      weights.scales[p] = Lanes::quarters(blocks->scale(group), blocks->scale(group + step),
                                          if_both(second.scale(next_group)), if_both(second.scale(next_group + step)));
    }
    return weights;
  }
};
#endif

/// The offsets of a stretch of a row. take<Both>(blocks, r) is called with what is read from run r on, get(blocks, runs, r)
/// with all blocks of the stretch; it returns the offsets of the runs from r on, and zeros.
template <class Block>
struct Offsets {
  template <bool>
  RWKV_INLINE void take(const Block*, Index) {}
  RWKV_INLINE Lanes get(const Block* blocks, Index runs, Index r) const {
    constexpr Index each = Block::length / run;
    float offsets[lanes];
    for (Index l = 0; l < lanes; ++l) {
      offsets[l] = r + l < runs ? blocks[(r + l) / each].offset(static_cast<int>((r + l) % each)) : 0.0f;
    }
    return Lanes::load(offsets);
  }
};
#if RWKV_BYTE_SUMS == 2
template <Nibbles32 Block>
struct Offsets<Block> {
  __m512i halves = _mm512_setzero_si512();

  template <bool Both>
  RWKV_INLINE void take(const Block* blocks, Index r) {
    constexpr int words_each = sizeof(Block) / 2;
    const __m512i two = _mm512_set1_epi32((words_each + 1) << 16 | 1);
    halves = _mm512_mask_permutexvar_epi16(halves, std::uint32_t{3} << r, two, words_of<Both>(blocks));
  }
  RWKV_INLINE Lanes get(const Block*, Index, Index r) const {
    const __m256i half = r == 0 ? _mm512_castsi512_si256(halves) : _mm512_extracti64x4_epi64(halves, 1);
    return {{Pack<float, 16>(_mm512_cvtph_ps(half))}};
  }
};
template <Nibbles256 Block>
struct Offsets<Block> {
  template <bool>
  RWKV_INLINE void take(const Block*, Index) {}
  RWKV_INLINE Lanes get(const Block* blocks, Index runs, Index r) const {
    const Block *first = blocks + r / 8, *second = first + 1;
    if (r >= runs) return Lanes::zero();
    const __m256 low = group_offsets(*first), high = r + 8 < runs ? group_offsets(*second) : _mm256_setzero_ps();
    const __m512i both =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_castps_si256(low)), _mm256_castps_si256(high), 1);
    return {{Pack<float, 16>(_mm512_castsi512_ps(both))}};
  }
};
#elif RWKV_BYTE_SUMS == 1
template <Nibbles32 Block>
struct Offsets<Block> {
  alignas(16) std::uint16_t halves[stretch_runs] = {};

  template <bool Both>
  RWKV_INLINE void take(const Block* blocks, Index r) {
    halves[r] = blocks[0].least.bits;
    if constexpr (Both) halves[r + 1] = blocks[1].least.bits;
  }
  RWKV_INLINE Lanes get(const Block*, Index, Index r) const {
    Lanes offsets;
    RWKV_UNROLL for (Index i = 0; i < 2; ++i) {
      const __m128i eight = _mm_load_si128(reinterpret_cast<const __m128i*>(halves + r + 8 * i));
      offsets.pack[i] = Pack<float, 8>(_mm256_cvtph_ps(eight));
    }
    return offsets;
  }
};
template <Nibbles256 Block>
struct Offsets<Block> {
  template <bool>
  RWKV_INLINE void take(const Block*, Index) {}
  RWKV_INLINE Lanes get(const Block* blocks, Index runs, Index r) const {
    const auto of = [&](Index first) {
      return Pack<float, 8>(first < runs ? group_offsets(blocks[first / 8]) : _mm256_setzero_ps());
    };
    return {{of(r), of(r + 8)}};
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
