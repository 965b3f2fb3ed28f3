#pragma once
/// Integer dot products of a pair of runs of quantised weights and activations, in 16 lanes (see quantised.hpp).
#include <cstdint>
#include <cstring>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/core/extent.hpp"

/// How products of bytes are summed: 2 in 512 bits, with VNNI where it is, 1 with AVX2, 0 with SSE2 or in plain C++.
#if RWKV_SIMD_BYTES >= 64 && defined(__AVX512BW__) && defined(__F16C__)
#define RWKV_BYTE_SUMS 2
#elif RWKV_SIMD_BYTES == 32 && defined(__AVX2__) && defined(__F16C__)
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
inline constexpr Index stretch_pairs = stretch / pair, stretch_runs = stretch / run;

/// A pair of runs of activations.
struct alignas(64) Activations {
  std::int8_t levels[pair];
  float scales[lanes];               // s, once for every lane
  std::int32_t minus_excess[lanes];  // what the excess of the levels of weights adds to the sum over j, negated
};
/// A stretch of activations.
struct ActivationStretch {
  Activations pairs[stretch_pairs];
  float sums[stretch_runs];  // s times the sum of q over each run, and zeros
};

/// A pair of runs of weights of any format.
struct alignas(64) Weights {
  std::uint8_t levels[pair];  // with unpacked_excess
  float scales[lanes];
};
/// A stretch of weights.
struct WeightStretch {
  Weights pairs[stretch_pairs];
  float offsets[stretch_runs];  // of each run, and zeros; only of formats with offsets
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
  /// A number for every four lanes.
  RWKV_INLINE static Lanes quarters(float a, float b, float c, float d) {
    const float numbers[lanes] = {a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d};
    return load(numbers);
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

// False warning of g++ 12: the AVX-512 header leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if RWKV_BYTE_SUMS > 0
/// The products of bytes of x86 take one factor without a sign. So levels of weights are kept in excess of a number that
/// makes them so, which is taken out of the sum again; or they keep their sign and lend it to the other factor.
inline constexpr int with_sign = -1;
#endif

#if RWKV_BYTE_SUMS < 2
/// A pair of runs of activations, for rows of weights with levels in excess of `Excess`. They do not fit the registers.
template <int Excess>
struct Factors {
  const Activations& x;
  Lanes scales;
  RWKV_INLINE explicit Factors(const Activations& pair_of_runs) : x(pair_of_runs), scales(Lanes::load(x.scales)) {}
};
#endif

#if RWKV_BYTE_SUMS == 2
#if defined(__AVX512VNNI__)
inline constexpr int unpacked_excess = 128;
#else  // a sum of two products would leave its 16 bits
inline constexpr int unpacked_excess = with_sign;
#endif

/// The levels of a pair of runs of weights in a register.
struct Levels {
  __m512i v;
};
RWKV_INLINE Levels load_levels(const Weights& w) { return {_mm512_load_si512(w.levels)}; }
template <int Excess>
RWKV_INLINE void store_levels(Levels levels, Weights& to) {
  constexpr int more = (unpacked_excess == with_sign ? 0 : unpacked_excess) - (Excess == with_sign ? 0 : Excess);
  _mm512_store_si512(to.levels, _mm512_add_epi8(levels.v, _mm512_set1_epi8(static_cast<char>(more))));
}

/// A pair of runs of activations in registers, for several rows of weights with levels in excess of `Excess`.
template <int Excess>
struct Factors {
  __m512i levels, minus_excess;
  Lanes scales;

  RWKV_INLINE explicit Factors(const Activations& x) {
    __m512i all_levels = _mm512_load_si512(x.levels);
    dot::keep_in_register(all_levels);
    levels = all_levels;
    Lanes::R all_scales = Lanes::R::load(x.scales);
    dot::keep_in_register(all_scales);
    scales = {{all_scales}};
    minus_excess = Excess > 0 ? _mm512_load_si512(x.minus_excess) : _mm512_setzero_si512();
  }
};

/// The sums over j of level q.
template <int Excess>
RWKV_INLINE Lanes dot_lanes(Levels w, const Factors<Excess>& x) {
#if defined(__AVX512VNNI__)
  const __m512i sums = _mm512_dpbusd_epi32(x.minus_excess, w.v, x.levels);
#else
  __m512i factor = w.v, other = x.levels;
  if constexpr (Excess == with_sign) {
    factor = _mm512_abs_epi8(w.v);
    other = _mm512_mask_sub_epi8(x.levels, _mm512_movepi8_mask(w.v), _mm512_setzero_si512(), x.levels);
  }
  const __m512i twos = _mm512_maddubs_epi16(factor, other);
  const __m512i sums = _mm512_add_epi32(x.minus_excess, _mm512_madd_epi16(twos, _mm512_set1_epi16(1)));
#endif
  return {{Pack<float, 16>(_mm512_cvtepi32_ps(sums))}};
}
#elif RWKV_BYTE_SUMS == 1
inline constexpr int unpacked_excess = with_sign;

/// The levels of a pair of runs of weights in two registers.
struct Levels {
  __m256i v[2];
};
RWKV_INLINE Levels load_levels(const Weights& w) {
  const auto* from = reinterpret_cast<const __m256i*>(w.levels);
  return {{_mm256_load_si256(from), _mm256_load_si256(from + 1)}};
}

template <int Excess>
RWKV_INLINE void store_levels(const Levels& levels, Weights& to) {
  auto* place = reinterpret_cast<__m256i*>(to.levels);
  const __m256i excess = _mm256_set1_epi8(Excess == with_sign ? 0 : Excess);
  RWKV_UNROLL for (int i = 0; i < 2; ++i) _mm256_store_si256(place + i, _mm256_sub_epi8(levels.v[i], excess));
}

/// The sums over j of level q. A sum of two products of bytes never leaves the 16 bits: 2 x 128 x 127 at most.
template <int Excess>
RWKV_INLINE Lanes dot_lanes(const Levels& w, const Factors<Excess>& factors) {
  const Activations& x = factors.x;
  const auto* levels = reinterpret_cast<const __m256i*>(x.levels);
  Lanes sums;
  RWKV_UNROLL for (int i = 0; i < 2; ++i) {
    const __m256i xs = _mm256_load_si256(levels + i);
    __m256i twos;
    if constexpr (Excess == with_sign) {
      twos = _mm256_maddubs_epi16(_mm256_abs_epi8(w.v[i]), _mm256_sign_epi8(xs, w.v[i]));
    } else {
      twos = _mm256_maddubs_epi16(w.v[i], xs);
    }
    __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi16(1));
    if constexpr (Excess > 0) {
      fours = _mm256_add_epi32(fours, _mm256_load_si256(reinterpret_cast<const __m256i*>(x.minus_excess) + i));
    }
    sums.pack[i] = Pack<float, 8>(_mm256_cvtepi32_ps(fours));
  }
  return sums;
}
#else
inline constexpr int unpacked_excess = 128;

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

/// The levels of a pair of runs of weights, plus 128.
struct Levels {
  RunLevels runs[2];
};
RWKV_INLINE Levels load_levels(const Weights& w) {
  Levels levels;
  std::memcpy(&levels, w.levels, sizeof levels);
  return levels;
}
template <int>
RWKV_INLINE void store_levels(const Levels& levels, Weights& to) {
  std::memcpy(to.levels, &levels, sizeof levels);
}

/// The sums over j of level q.
template <int Excess>
RWKV_INLINE Lanes dot_lanes(const Levels& w, const Factors<Excess>& factors) {
  const Activations& x = factors.x;
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

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace quantised
}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
