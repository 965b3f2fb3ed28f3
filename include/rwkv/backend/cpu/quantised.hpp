#pragma once
/// The product of a linear layer with quantised weights, y = x w^T, from dot products of integers.
///
/// The activations are quantised too, for any number of rows, so that a step and a sequence have the same bits. Of every 32
/// consecutive activations the largest magnitude, over 127, is the scale; their levels are x / scale, rounded to nearest
/// even. Magnitudes below 2^-100 count as zero. NaN and infinity make all outputs of their row NaN.
///
/// An output is the sum over stretches of 1024 numbers, in order. A stretch has 16 partial sums: number 64 p + 4 l + j
/// belongs to partial sum l. With the level q and the scale s of an activation, and scale(g) and offset(g) of a weight (see
/// block_formats.hpp), each p adds
///
///     (scale(g) s) (sum over j of level q) + (offset(g) s) (sum over j of q)
///
/// The sums over j are exact integers, in any instruction set. So an output depends on the length alone, and not on the
/// number of rows, the tile or the threads; its bits are those of every other target with fused multiply-adds.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/core/block_formats.hpp"
#include "rwkv/core/weights.hpp"

/// How products of bytes are summed: 2 with 512-bit VNNI, 1 with AVX2, 0 with SSE2 or in plain C++.
#if RWKV_SIMD_BYTES >= 64 && defined(__AVX512BW__) && defined(__AVX512VNNI__) && defined(__F16C__)
#define RWKV_BYTE_SUMS 2
#elif RWKV_SIMD_BYTES == 32 && defined(__AVX2__)
#define RWKV_BYTE_SUMS 1
#else
#define RWKV_BYTE_SUMS 0
#endif

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace quantised {

/// Numbers that share a scale of activations; a pair of runs fills the 16 lanes of partial sums.
inline constexpr Index run = 32, pair = 2 * run, lanes = 16;
/// Numbers in one stretch, whose partial sums are added up.
inline constexpr Index stretch = 1024;
inline constexpr Index stretch_pairs = stretch / pair;

/// A pair of runs of activations.
struct alignas(64) Activations {
  std::int8_t levels[pair];
  float scales[lanes];             // s, once for every lane
  std::int32_t minus_sums[lanes];  // the sum over j of -q
};

/// A pair of runs of weights of any format.
struct alignas(64) Weights {
  std::uint8_t levels[pair];  // plus 128
  float scales[lanes];
  float offsets[lanes];
};

/// 16 lanes of floats.
struct Lanes {
  using R = Widest<float>;
  static constexpr int packs = static_cast<int>(lanes) / R::size;
  R pack[packs];

  RWKV_INLINE static Lanes zero() {
    Lanes x;
    RWKV_UNROLL for (int i = 0; i < packs; ++i) x.pack[i] = R(0);
    return x;
  }
  RWKV_INLINE static Lanes load(const float* from) {
    Lanes x;
    RWKV_UNROLL for (int i = 0; i < packs; ++i) x.pack[i] = R::load(from + i * R::size);
    return x;
  }
  /// `first` in the lanes of the first run, `second` in the others.
  RWKV_INLINE static Lanes halves(float first, float second) { return quarters(first, first, second, second); }
  /// A number for every four lanes.
  RWKV_INLINE static Lanes quarters(float a, float b, float c, float d) {
#if RWKV_SIMD_BYTES >= 64
    const auto quarter = [](float x) { return _mm512_set1_ps(x); };
    const __m512 first = _mm512_mask_blend_ps(0x00f0, quarter(a), quarter(b));
    const __m512 second = _mm512_mask_blend_ps(0xf000, quarter(c), quarter(d));
    return {{R(_mm512_mask_blend_ps(0xff00, first, second))}};
#else
    const float numbers[lanes] = {a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d};
    return load(numbers);
#endif
  }
  RWKV_INLINE void store(float* to) const {
    RWKV_UNROLL for (int i = 0; i < packs; ++i) pack[i].store(to + i * R::size);
  }
  RWKV_INLINE friend Lanes operator*(Lanes a, const Lanes& b) {
    RWKV_UNROLL for (int i = 0; i < packs; ++i) a.pack[i] = a.pack[i] * b.pack[i];
    return a;
  }
  /// Adds a b to this.
  RWKV_INLINE void add_product(const Lanes& a, const Lanes& b) {
    RWKV_UNROLL for (int i = 0; i < packs; ++i) pack[i] = multiply_add(a.pack[i], b.pack[i], pack[i]);
  }
  /// A pack with the same sum over its lanes; the first addition of each lane is that of lane l and lane l + 8.
  RWKV_INLINE R folded() const {
    R x[packs];
    RWKV_UNROLL for (int i = 0; i < packs; ++i) x[i] = pack[i];
    for (int half = packs / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) x[i] += x[i + half];
    }
    return x[0];
  }
};

/// The levels of a run, plus 128.
struct RunLevels {
#if RWKV_SIMD_BYTES > 0
  typedef std::uint8_t Bytes __attribute__((vector_size(16)));
  Bytes half[2];

  RWKV_INLINE static Bytes load(const void* from) {
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return bytes;
  }
  RWKV_INLINE static Bytes all(int number) { return static_cast<std::uint8_t>(number) - Bytes{}; }
#else
  std::uint8_t half[2][run / 2];
#endif
};

// False warning of g++ 12: the AVX-512 header leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if RWKV_BYTE_SUMS == 2
/// The levels of a pair of runs of weights in a register: plus 2^Bias, so that none is negative.
struct Levels {
  __m512i v;
};
RWKV_INLINE Levels load_levels(const Weights& w) { return {_mm512_load_si512(w.levels)}; }
RWKV_INLINE Levels joined(const RunLevels& first, const RunLevels& second) {
  const auto both = [](const RunLevels& x) { return _mm256_set_m128i(__m128i(x.half[1]), __m128i(x.half[0])); };
  return {_mm512_inserti64x4(_mm512_castsi256_si512(both(first)), both(second), 1)};
}

template <int Bias>
RWKV_INLINE void store_levels(Levels levels, Weights& to) {
  _mm512_store_si512(to.levels, _mm512_add_epi8(levels.v, _mm512_set1_epi8(static_cast<char>(128 - (1 << Bias)))));
}

/// The sums over j of level q.
template <int Bias>
RWKV_INLINE Lanes dot_lanes(Levels w, const Activations& x) {
  const __m512i without_bias = _mm512_slli_epi32(_mm512_load_si512(x.minus_sums), Bias);
  const __m512i sums = _mm512_dpbusd_epi32(without_bias, w.v, _mm512_load_si512(x.levels));
  return {{Pack<float, 16>(_mm512_cvtepi32_ps(sums))}};
}
#elif RWKV_BYTE_SUMS == 1
/// The levels of a pair of runs of weights in two registers.
struct Levels {
  __m256i v[2];
};
RWKV_INLINE Levels load_levels(const Weights& w) {
  const __m256i bias = _mm256_set1_epi8(-128);
  const auto* from = reinterpret_cast<const __m256i*>(w.levels);
  return {{_mm256_xor_si256(_mm256_load_si256(from), bias), _mm256_xor_si256(_mm256_load_si256(from + 1), bias)}};
}

RWKV_INLINE Levels joined(const RunLevels& first, const RunLevels& second) {
  const auto both = [](const RunLevels& x) {
    return _mm256_xor_si256(_mm256_set_m128i(__m128i(x.half[1]), __m128i(x.half[0])), _mm256_set1_epi8(-128));
  };
  return {{both(first), both(second)}};
}

template <int>
RWKV_INLINE void store_levels(const Levels& levels, Weights& to) {
  auto* place = reinterpret_cast<__m256i*>(to.levels);
  RWKV_UNROLL for (int i = 0; i < 2; ++i) {
    _mm256_store_si256(place + i, _mm256_xor_si256(levels.v[i], _mm256_set1_epi8(-128)));
  }
}

/// A sum of two products of bytes never leaves the 16 bits: 2 x 128 x 127 at most.
template <int>
RWKV_INLINE Lanes dot_lanes(const Levels& w, const Activations& x) {
  const auto* levels = reinterpret_cast<const __m256i*>(x.levels);
  Lanes sums;
  RWKV_UNROLL for (int i = 0; i < 2; ++i) {
    const __m256i signed_x = _mm256_sign_epi8(_mm256_load_si256(levels + i), w.v[i]);
    const __m256i twos = _mm256_maddubs_epi16(_mm256_abs_epi8(w.v[i]), signed_x);
    const __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi16(1));
    sums.pack[i] = Pack<float, 8>(_mm256_cvtepi32_ps(fours));
  }
  return sums;
}
#else
/// The levels of a pair of runs of weights, plus 128.
struct Levels {
  RunLevels runs[2];
};
RWKV_INLINE Levels load_levels(const Weights& w) {
  Levels levels;
  std::memcpy(&levels, w.levels, sizeof levels);
  return levels;
}
RWKV_INLINE Levels joined(const RunLevels& first, const RunLevels& second) { return {{first, second}}; }
template <int>
RWKV_INLINE void store_levels(const Levels& levels, Weights& to) {
  std::memcpy(to.levels, &levels, sizeof levels);
}

template <int>
RWKV_INLINE Lanes dot_lanes(const Levels& w, const Activations& x) {
  alignas(16) std::int32_t sums[lanes];
#if RWKV_SIMD_BYTES > 0 && defined(__SSE2__)
  for (Index i = 0; i < 4; ++i) {
    const __m128i zero = _mm_setzero_si128();
    const auto levels = __m128i(w.runs[i / 2].half[i % 2]);
    const __m128i xs = _mm_load_si128(reinterpret_cast<const __m128i*>(x.levels + 16 * i));
    const __m128i sign = _mm_cmpgt_epi8(zero, xs);
    const auto twos = [&](__m128i wide_levels, __m128i wide_xs) {
      return _mm_castsi128_ps(_mm_madd_epi16(_mm_sub_epi16(wide_levels, _mm_set1_epi16(128)), wide_xs));
    };
    const __m128 low = twos(_mm_unpacklo_epi8(levels, zero), _mm_unpacklo_epi8(xs, sign));
    const __m128 high = twos(_mm_unpackhi_epi8(levels, zero), _mm_unpackhi_epi8(xs, sign));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
    _mm_store_si128(reinterpret_cast<__m128i*>(sums + 4 * i), _mm_add_epi32(even, odd));
  }
#else
  for (Index l = 0; l < lanes; ++l) {
    sums[l] = 0;
    for (Index j = 4 * l; j < 4 * l + 4; ++j) {
      sums[l] += (w.runs[j / run].half[j % run / (run / 2)][j % (run / 2)] - 128) * x.levels[j];
    }
  }
#endif
  float floats[lanes];
  for (Index l = 0; l < lanes; ++l) floats[l] = static_cast<float>(sums[l]);
  return Lanes::load(floats);
}
#endif

/// The sums over j of q.
RWKV_INLINE Lanes sums_of(const Activations& x) {
  float sums[lanes];
  for (Index l = 0; l < lanes; ++l) sums[l] = static_cast<float>(-x.minus_sums[l]);
  return Lanes::load(sums);
}

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

template <>
struct Read<Q8_0> {
  static constexpr int together = 1;
  static constexpr int bias = 0;

  template <bool Both>
  RWKV_INLINE static Loaded load(const Q8_0* row, Index k) {
    const Q8_0* blocks = row + k;
    Loaded loaded{
        {{levels(blocks[0]), _mm256_setzero_si256()}}, {{eight_lanes(blocks[0].unit), Pack<float, 8>(0)}}, {}};
    if constexpr (Both) {
      loaded.levels.v[1] = levels(blocks[1]);
      loaded.scales.pack[1] = eight_lanes(blocks[1].unit);
    }
    return loaded;
  }

 private:
  RWKV_INLINE static __m256i levels(const Q8_0& block) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.levels));
  }
};

template <>
struct Read<Q4_0> {
  static constexpr int together = 2;
  static constexpr int bias = 0;

  template <bool Both>
  RWKV_INLINE static Loaded load(const Q4_0* row, Index k) {
    const Q4_0* blocks = row + k;
    Loaded loaded{
        {{levels(blocks[0]), _mm256_setzero_si256()}}, {{eight_lanes(blocks[0].unit), Pack<float, 8>(0)}}, {}};
    if constexpr (Both) {
      loaded.levels.v[1] = levels(blocks[1]);
      loaded.scales.pack[1] = eight_lanes(blocks[1].unit);
    }
    return loaded;
  }

 private:
  RWKV_INLINE static __m256i levels(const Q4_0& block) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.nibbles));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
  }
};
#endif

/// The scale of a run of activations, and what levels are multiplied by; from the largest magnitude as an integer, where
/// infinity and NaN are largest.
struct Scale {
  float scale, inverse;

  explicit Scale(std::uint32_t most_bits) {
    constexpr float least = 0x1p-100f;
    const auto most = std::bit_cast<float>(most_bits);
    const bool finite = most_bits < 0x7f800000u, counts = most >= least;
    scale = !finite ? std::bit_cast<float>(0x7fc00000u) : counts ? most / 127 : 0;
    inverse = finite && counts ? 127 / most : 0;
  }
};

/// Quantises a run of activations as the first or the second half of a pair.
inline void quantise_run(const float* x, Activations& to, bool second) {
  std::int8_t* levels = to.levels + second * run;
  float* scales = to.scales + second * (lanes / 2);
  std::int32_t* minus_sums = to.minus_sums + second * (lanes / 2);
#if RWKV_BYTE_SUMS == 2
  const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
  const __m512i magnitudes = _mm512_set1_epi32(0x7fffffff);
  const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitudes),
                                        _mm512_and_si512(_mm512_castps_si512(high), magnitudes));
  const Scale scale(_mm512_reduce_max_epu32(most));
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  // A product that is not finite converts to a level that its scale, NaN, makes NaN whatever it is.
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)));
  const __m128i last = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)));
  const __m256i all = _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
  _mm256_store_si256(reinterpret_cast<__m256i*>(levels), all);
  const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_castsi256_si512(all));
  const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
  _mm256_store_si256(reinterpret_cast<__m256i*>(minus_sums), _mm512_castsi512_si256(minus));
  std::fill_n(scales, lanes / 2, scale.scale);
#else
  std::uint32_t most = 0;
  for (Index i = 0; i < run; ++i) most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  const Scale scale(most);
  if (scale.scale == scale.scale) {
    for (Index i = 0; i < run; ++i) levels[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * scale.inverse));
  } else {
    std::fill_n(levels, run, std::int8_t{0});  // NaN by the scale
  }
  for (Index l = 0; l < lanes / 2; ++l) {
    minus_sums[l] = -(levels[4 * l] + levels[4 * l + 1] + levels[4 * l + 2] + levels[4 * l + 3]);
  }
  std::fill_n(scales, lanes / 2, scale.scale);
#endif
}

/// Quantises `count` activations, a multiple of `run`; the last run of an odd number of runs is followed by zeros.
inline void quantise(const float* x, Index count, Activations* to) {
  for (Index begin = 0; begin < count; begin += run) quantise_run(x + begin, to[begin / pair], begin % pair != 0);
  if (count % pair != 0) {
    Activations& last = to[count / pair];
    std::fill_n(last.levels + run, run, std::int8_t{0});
    std::fill_n(last.scales + lanes / 2, lanes / 2, 0.0f);
    std::fill_n(last.minus_sums + lanes / 2, lanes / 2, 0);
  }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// `runs` runs of a row from number k on, an even one, as Weights; the last run of an odd number is followed by zeros.
template <class Block>
void unpack(const Block* row, Index k, Index runs, Weights* to) {
  for (const Index end = k + runs; k < end; k += 2, ++to) {
    const Loaded weights =
        k + 1 < end ? Read<Block>::template load<true>(row, k) : Read<Block>::template load<false>(row, k);
    store_levels<Read<Block>::bias>(weights.levels, *to);
    weights.scales.store(to->scales);
    if constexpr (Block::has_offset) weights.offsets.store(to->offsets);
  }
}

/// Adds the products of a pair of runs, or of one run, from number k of a row on.
template <bool Both, class Block>
RWKV_INLINE void add_pair(const Block* row, Index k, const Activations& x, Lanes& sum) {
  const Lanes scales = Lanes::load(x.scales);
  const Loaded weights = Read<Block>::template load<Both>(row, k);
  sum.add_product(dot_lanes<Read<Block>::bias>(weights.levels, x), weights.scales * scales);
  if constexpr (Block::has_offset) sum.add_product(sums_of(x), weights.offsets * scales);
}

/// Writes the sum of a stretch, or adds it to those of the stretches before.
RWKV_INLINE void add_stretch(float& y, float sum, bool is_first) { y = is_first ? sum : y + sum; }

/// Rows of x and of w in one block of outputs.
#if RWKV_BYTE_SUMS == 2
inline constexpr int x_rows = 4, w_rows = 4;
#else
inline constexpr int x_rows = 4, w_rows = 1;
#endif
/// Rows of x that are quantised at a time: 98 KB, for the L2 cache, where all weights of a tile meet them.
inline constexpr Index rows_at_a_time = 32;
/// Activations of a single row that are quantised at a time.
inline constexpr Index numbers_at_a_time = 8 * stretch;
/// Rows of x and of w in a tile: enough of w that quantising x costs little.
inline constexpr Index rows_per_tile = rows_at_a_time;
constexpr Index outputs_per_tile(Index x_rows_of_product) { return x_rows_of_product == 1 ? 128 : 192; }
/// Prefetch distance in the weights for a single row of x.
inline constexpr Index prefetch_bytes = 8192;

/// One row of x, `runs` runs of it from number k on, against W rows of w that are read in place.
template <int W, class Block>
RWKV_INLINE void dot_direct(const Activations* x, Index k, Index runs, const Block* w, Index stride, float* y) {
  for (const Index end = k + runs; k < end;) {
    const bool is_first = k == 0;
    const Index last = std::min(k + stretch / run, end);
    Lanes sums[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = Lanes::zero();
    for (; k + 2 <= last; k += 2, ++x) {
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        const Block* row = w + j * stride;
        dot::prefetch(reinterpret_cast<const char*>(row + k * run / Block::length), prefetch_bytes);
        add_pair<true>(row, k, *x, sums[j]);
      }
    }
    if (k < last) {
      RWKV_UNROLL for (int j = 0; j < W; ++j) add_pair<false>(w + j * stride, k, *x, sums[j]);
      ++k;
    }
    Lanes::R folded[W];
    float finished[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) folded[j] = sums[j].folded();
    dot::store_sums<W>(folded, finished);
    RWKV_UNROLL for (int j = 0; j < W; ++j) add_stretch(y[j], finished[j], is_first);
  }
}

/// X rows of x against W rows of w, over one stretch.
template <int X, int W>
[[gnu::noinline]] void dot_unpacked(const Activations* x, const Weights* w, Index pairs, bool has_offset, bool is_first,
                                    Mat<float> y) {
  Lanes sums[X][W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) { RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = Lanes::zero(); }
  for (Index p = 0; p < pairs; ++p) {
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const Activations& activations = x[i * stretch_pairs + p];
      const Lanes scales = Lanes::load(activations.scales);
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        const Weights& weights = w[j * stretch_pairs + p];
        sums[i][j].add_product(dot_lanes<7>(load_levels(weights), activations), Lanes::load(weights.scales) * scales);
        if (has_offset) {
          sums[i][j].add_product(sums_of(activations), Lanes::load(weights.offsets) * scales);
        }
      }
    }
  }
  Lanes::R folded[X * W];
  float finished[X * W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) folded[i * W + j] = sums[i][j].folded();
  }
  dot::store_sums<X * W>(folded, finished);
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) add_stretch(y(i, j), finished[i * W + j], is_first);
  }
}

/// All `rows` of x against W rows of w, over one stretch.
template <int W>
void dot_rows(const Activations* x, Index rows, const Weights* w, Index pairs, bool has_offset, bool is_first,
              Mat<float> y) {
  Index row = 0;
  const auto outputs = [&] { return Mat<float>{y.row(row), y.rows, y.cols, y.stride}; };
  for (; row + x_rows <= rows; row += x_rows) {
    dot_unpacked<x_rows, W>(x + row * stretch_pairs, w, pairs, has_offset, is_first, outputs());
  }
  for (; row < rows; ++row) {
    dot_unpacked<1, W>(x + row * stretch_pairs, w, pairs, has_offset, is_first, outputs());
  }
}

/// Several rows of x against the rows [begin, end) of w, which are unpacked once for all of them.
template <class Block>
[[gnu::noinline]] void dot_many(Mat<float> y, Mat<const float> x, const Block* w, Index stride, Index begin,
                                Index end) {
  Activations xs[rows_at_a_time * stretch_pairs];
  Weights ws[w_rows * stretch_pairs];
  for (Index row = 0; row < x.rows; row += rows_at_a_time) {
    const Index rows = std::min(rows_at_a_time, x.rows - row);
    for (Index at = 0; at < x.cols; at += stretch) {
      const Index count = std::min(stretch, x.cols - at), pairs = (count + pair - 1) / pair;
      for (Index r = 0; r < rows; ++r) quantise(x.row(row + r) + at, count, xs + r * stretch_pairs);
      for (Index out = begin; out < end;) {
        const Mat<float> outputs{y.row(row) + out, rows, y.cols, y.stride};
        const Index fitting = end - out >= w_rows ? w_rows : 1;
        for (Index j = 0; j < fitting; ++j)
          unpack(w + (out + j) * stride, at / run, count / run, ws + j * stretch_pairs);
        if (fitting == w_rows) dot_rows<w_rows>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        else dot_rows<1>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        out += fitting;
      }
    }
  }
}

/// One row of x against the rows [begin, end) of w.
template <class Block>
[[gnu::noinline]] void dot_one(float* y, const float* x, Index count, const Block* w, Index stride, Index begin,
                               Index end) {
  constexpr int together = Read<Block>::together;
  Activations xs[numbers_at_a_time / pair];
  for (Index at = 0; at < count; at += numbers_at_a_time) {
    const Index here = std::min(numbers_at_a_time, count - at);
    quantise(x + at, here, xs);
    const Index k = at / run, runs = here / run;
    Index out = begin;
    for (; out + together <= end; out += together) {
      dot_direct<together>(xs, k, runs, w + out * stride, stride, y + out);
    }
    for (; out < end; ++out) dot_direct<1>(xs, k, runs, w + out * stride, stride, y + out);
  }
}

/// The outputs [begin, end) of y = x w^T, with w of any quantised type.
inline void dot_tile(Mat<float> y, Mat<const float> x, const StoredMat& w, Index begin, Index end) {
  if (x.cols == 0) {
    for (Index r = 0; r < y.rows; ++r) std::fill(y.row(r) + begin, y.row(r) + end, 0.0f);
    return;
  }
  with_block(w.dtype, [&]<class Block>(Block) {
    const auto* blocks = static_cast<const Block*>(w.data);
    const Index stride = w.stride / Block::length;
    if (x.rows == 1) dot_one(y.row(0), x.row(0), x.cols, blocks, stride, begin, end);
    else dot_many(y, x, blocks, stride, begin, end);
  });
}

}  // namespace quantised
}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
