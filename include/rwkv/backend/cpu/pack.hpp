#pragma once
/// A number made of one native vector register: the SIMD form of functors on the CPU.
#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <smmintrin.h>  // up to SSE4: a tenth as long
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "rwkv/core/math.hpp"

#if !EIGEN_VERSION_AT_LEAST(3, 4, 0)
#error "rwkv: Eigen 3.4 or newer is needed"
#endif

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

#if RWKV_SIMD_BYTES > 0

namespace pack {

/// The compiler's vector of N elements. One specialisation for each size, because not every compiler accepts a
/// dependent vector_size.
template <class T, int N>
struct native_vector;
template <>
struct native_vector<float, 4> {
  typedef float type __attribute__((vector_size(16)));
};
template <>
struct native_vector<float, 8> {
  typedef float type __attribute__((vector_size(32)));
};
template <>
struct native_vector<float, 16> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct native_vector<double, 2> {
  typedef double type __attribute__((vector_size(16)));
};
template <>
struct native_vector<double, 4> {
  typedef double type __attribute__((vector_size(32)));
};
template <>
struct native_vector<double, 8> {
  typedef double type __attribute__((vector_size(64)));
};
/// Vectors of N 32-bit and 16-bit words, for widening 16-bit storage to N floats.
template <int N>
struct native_words;
template <>
struct native_words<4> {
  typedef std::uint32_t wide __attribute__((vector_size(16)));
  typedef std::uint16_t half __attribute__((vector_size(8)));
};
template <>
struct native_words<8> {
  typedef std::uint32_t wide __attribute__((vector_size(32)));
  typedef std::uint16_t half __attribute__((vector_size(16)));
};
template <>
struct native_words<16> {
  typedef std::uint32_t wide __attribute__((vector_size(64)));
  typedef std::uint16_t half __attribute__((vector_size(32)));
};

}  // namespace pack

/// N lanes of T that behave as one number. N fills one register of the target: the compiler would split a wider vector,
/// which runs slower than scalars.
template <class T, int N>
struct Pack {
  using scalar = T;
  using native = typename pack::native_vector<T, N>::type;
  static constexpr int size = N;
  native v;

  Pack() = default;
  RWKV_INLINE explicit Pack(native lanes) : v(lanes) {}
  /// The same number in all lanes: x - 0 keeps -0.0; x + 0 would not.
  template <class U>
  requires std::is_arithmetic_v<U> RWKV_INLINE Pack(U all) : v(static_cast<T>(all) - native{}) {}

  /// Loads N consecutive numbers, widened; they need not be aligned.
  template <class U>
  RWKV_INLINE static Pack load(const U* from) {
    if constexpr (std::is_same_v<U, T>) {
      Pack x;
      std::memcpy(&x.v, from, sizeof x.v);
      return x;
    } else if constexpr (std::is_same_v<U, bf16> && std::is_same_v<T, float>) {
      return Pack(words_as_float(words(from) << 16));
    } else if constexpr (std::is_same_v<U, f16> && std::is_same_v<T, float>) {
#if RWKV_SIMD_BYTES >= 64 && defined(__AVX512F__)
      if constexpr (N == 16) {
        __m256i halves;
        std::memcpy(&halves, from, sizeof halves);
        return Pack(native(_mm512_maskz_cvtph_ps(0xffff, halves)));
      }
#endif
#if defined(__F16C__)
      if constexpr (N == 8) {
        __m128i halves;
        std::memcpy(&halves, from, sizeof halves);
        return Pack(native(_mm256_cvtph_ps(halves)));
      }
#endif
      return Pack(widen_halves(words(from)));
    } else {
      alignas(native) T lanes[N];
      for (int i = 0; i < N; ++i) lanes[i] = widen<T>(from[i]);
      return load(lanes);
    }
  }
  /// Loads the first `lanes` numbers and sets the other lanes to zero, without touching their memory. Partial loads and
  /// stores are not inlined: only the end of a row needs them, and inlined they would be half of the code.
  template <class U>
  [[gnu::noinline]] static Pack load(const U* from, int lanes) {
    return load_inline(from, lanes);
  }
  /// The same inlined, for loops that keep their registers.
  template <class U>
  RWKV_INLINE static Pack load_inline(const U* from, int lanes) {
#if RWKV_SIMD_BYTES >= 64 && defined(__AVX512F__)
    if constexpr (std::is_same_v<U, T> && sizeof(native) == 64) {
      const unsigned which = (1u << lanes) - 1;
      if constexpr (sizeof(T) == 4) return Pack(native(_mm512_maskz_loadu_ps(static_cast<__mmask16>(which), from)));
      else return Pack(native(_mm512_maskz_loadu_pd(static_cast<__mmask8>(which), from)));
    }
#elif RWKV_SIMD_BYTES == 32 && defined(__AVX2__)
    if constexpr (sizeof(native) != 32) {
    } else if constexpr (std::is_same_v<U, T> && sizeof(T) == 4) {
      const __m256i which = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      return Pack(native(_mm256_maskload_ps(from, which)));
    } else if constexpr (std::is_same_v<U, T>) {
      const __m256i which = _mm256_cmpgt_epi64(_mm256_set1_epi64x(lanes), _mm256_setr_epi64x(0, 1, 2, 3));
      return Pack(native(_mm256_maskload_pd(from, which)));
    }
#endif
#if defined(__AVX__)
    if constexpr (std::is_same_v<U, float> && std::is_same_v<T, float> && N == 4) {
      const __m128i which = _mm_cmpgt_epi32(_mm_set1_epi32(lanes), _mm_setr_epi32(0, 1, 2, 3));
      return Pack(native(_mm_maskload_ps(from, which)));
    }
#endif
    U copy[N] = {};
    for (int i = 0; i < N && i < lanes; ++i) copy[i] = from[i];
    return load(static_cast<const U*>(copy));
  }
  template <class U>
  RWKV_INLINE void store(U* to) const {
    if constexpr (std::is_same_v<U, T>) {
      std::memcpy(to, &v, sizeof v);
    } else {
      for (int i = 0; i < N; ++i) to[i] = narrow<U>(static_cast<T>(v[i]));
    }
  }
  template <class U>
  void store(U* to, int lanes) const {
    store_some(to, v, lanes);
  }
  template <class U>
  [[gnu::noinline]] static void store_some(U* to, native v, int lanes) {
    for (int i = 0; i < N && i < lanes; ++i) to[i] = narrow<U>(static_cast<T>(v[i]));
  }

  RWKV_INLINE friend Pack operator+(Pack a, Pack b) {
    RWKV_CONTRACT
    return Pack(a.v + b.v);
  }
  RWKV_INLINE friend Pack operator-(Pack a, Pack b) {
    RWKV_CONTRACT
    return Pack(a.v - b.v);
  }
  RWKV_INLINE friend Pack operator*(Pack a, Pack b) {
    RWKV_CONTRACT
    return Pack(a.v * b.v);
  }
  RWKV_INLINE friend Pack operator/(Pack a, Pack b) { return Pack(a.v / b.v); }
  RWKV_INLINE friend Pack operator-(Pack a) { return Pack(-a.v); }
  RWKV_INLINE friend Pack& operator+=(Pack& a, Pack b) { return a = a + b; }
  RWKV_INLINE friend Pack& operator-=(Pack& a, Pack b) { return a = a - b; }
  RWKV_INLINE friend Pack& operator*=(Pack& a, Pack b) { return a = a * b; }
  RWKV_INLINE friend Pack& operator/=(Pack& a, Pack b) { return a = a / b; }
  RWKV_INLINE friend auto operator<(Pack a, Pack b) { return a.v < b.v; }
  RWKV_INLINE friend auto operator>(Pack a, Pack b) { return a.v > b.v; }

 private:
  using wide = typename pack::native_words<sizeof(T) == 4 ? N : 4>::wide;
  using half = typename pack::native_words<sizeof(T) == 4 ? N : 4>::half;

  template <class U>
  RWKV_INLINE static wide words(const U* from) {
    half bits;
    std::memcpy(&bits, from, sizeof bits);
    // As an intrinsic, because g++ 12 makes two of the conversion. (Without a mask it warns of a register in its header.)
#if RWKV_SIMD_BYTES >= 64 && defined(__AVX512F__)
    if constexpr (sizeof(wide) == 64) return wide(_mm512_maskz_cvtepu16_epi32(0xffff, __m256i(bits)));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(wide) == 32) return wide(_mm256_cvtepu16_epi32(__m128i(bits)));
#endif
    return __builtin_convertvector(bits, wide);
  }
  RWKV_INLINE static native words_as_float(wide bits) { return __builtin_bit_cast(native, bits); }
  /// Half bits as floats: the exponent is rebiased by an exact multiplication, which also normalises subnormals.
  RWKV_INLINE static native widen_halves(wide bits) {
    const wide sign = (bits & 0x8000u) << 16;
    const wide magnitude = bits & 0x7fffu;
    const native scaled = words_as_float(magnitude << 13) * 0x1p112f;
    const wide quiet = magnitude > 0x7c00u ? wide{} + 0x400000u : wide{};  // as widen() makes every NaN
    const wide special = (magnitude << 13) | 0x7f800000u | quiet;
    return words_as_float(sign | (magnitude >= 0x7c00u ? special : __builtin_bit_cast(wide, scaled)));
  }
};

template <class Mask, class T, int N>
RWKV_INLINE Pack<T, N> select(Mask which, Pack<T, N> yes, Pack<T, N> no) {
  return Pack<T, N>(which ? yes.v : no.v);
}

namespace pack {
// False warning of g++ 12: the AVX-512 header, which Eigen uses, leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
/// a b + c, rounded once where the target has FMA.
template <class T, int N>
RWKV_INLINE Pack<T, N> fused(Pack<T, N> a, Pack<T, N> b, Pack<T, N> c) {
  return a * b + c;
}
#if defined(__FMA__)
RWKV_INLINE Pack<float, 4> fused(Pack<float, 4> a, Pack<float, 4> b, Pack<float, 4> c) {
  return Pack<float, 4>(_mm_fmadd_ps(a.v, b.v, c.v));
}
RWKV_INLINE Pack<double, 2> fused(Pack<double, 2> a, Pack<double, 2> b, Pack<double, 2> c) {
  return Pack<double, 2>(_mm_fmadd_pd(a.v, b.v, c.v));
}
RWKV_INLINE Pack<float, 8> fused(Pack<float, 8> a, Pack<float, 8> b, Pack<float, 8> c) {
  return Pack<float, 8>(_mm256_fmadd_ps(a.v, b.v, c.v));
}
RWKV_INLINE Pack<double, 4> fused(Pack<double, 4> a, Pack<double, 4> b, Pack<double, 4> c) {
  return Pack<double, 4>(_mm256_fmadd_pd(a.v, b.v, c.v));
}
#endif
#if defined(__AVX512F__)
RWKV_INLINE Pack<float, 16> fused(Pack<float, 16> a, Pack<float, 16> b, Pack<float, 16> c) {
  return Pack<float, 16>(_mm512_fmadd_ps(a.v, b.v, c.v));
}
RWKV_INLINE Pack<double, 8> fused(Pack<double, 8> a, Pack<double, 8> b, Pack<double, 8> c) {
  return Pack<double, 8>(_mm512_fmadd_pd(a.v, b.v, c.v));
}
#endif
#if defined(__aarch64__)
RWKV_INLINE Pack<float, 4> fused(Pack<float, 4> a, Pack<float, 4> b, Pack<float, 4> c) {
  using Native = Pack<float, 4>::native;
  return Pack<float, 4>(Native(vfmaq_f32(float32x4_t(c.v), float32x4_t(a.v), float32x4_t(b.v))));
}
RWKV_INLINE Pack<double, 2> fused(Pack<double, 2> a, Pack<double, 2> b, Pack<double, 2> c) {
  using Native = Pack<double, 2>::native;
  return Pack<double, 2>(Native(vfmaq_f64(float64x2_t(c.v), float64x2_t(a.v), float64x2_t(b.v))));
}
#endif
/// 16 bytes of numbers, repeated to the width of a pack R.
template <class R>
RWKV_INLINE R repeated(const typename R::scalar* from) {
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 64) {
    return __builtin_bit_cast(R, _mm512_broadcast_f32x4(_mm_loadu_ps(reinterpret_cast<const float*>(from))));
  }
#endif
#if defined(__AVX__)
  if constexpr (sizeof(R) == 32)
    return __builtin_bit_cast(R, _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from)));
#endif
  if constexpr (sizeof(R) == 16) return R::load(from);
}
template <class T, int N>
RWKV_INLINE Pack<T, N> sqrt_lanes(Pack<T, N> x) {
  for (int i = 0; i < N; ++i) x.v[i] = std::sqrt(x.v[i]);
  return x;
}
#if defined(__SSE2__)
/// Correctly rounded like std::sqrt; Eigen's square root of floats may be an approximation.
RWKV_INLINE Pack<float, 4> sqrt_lanes(Pack<float, 4> x) { return Pack<float, 4>(_mm_sqrt_ps(x.v)); }
RWKV_INLINE Pack<double, 2> sqrt_lanes(Pack<double, 2> x) { return Pack<double, 2>(_mm_sqrt_pd(x.v)); }
#endif
#if defined(__AVX__)
RWKV_INLINE Pack<float, 8> sqrt_lanes(Pack<float, 8> x) { return Pack<float, 8>(_mm256_sqrt_ps(x.v)); }
RWKV_INLINE Pack<double, 4> sqrt_lanes(Pack<double, 4> x) { return Pack<double, 4>(_mm256_sqrt_pd(x.v)); }
#endif
#if defined(__AVX512F__)
RWKV_INLINE Pack<float, 16> sqrt_lanes(Pack<float, 16> x) { return Pack<float, 16>(_mm512_sqrt_ps(x.v)); }
RWKV_INLINE Pack<double, 8> sqrt_lanes(Pack<double, 8> x) { return Pack<double, 8>(_mm512_sqrt_pd(x.v)); }
#endif
/// Between `least` and `most` Eigen's exponential is accurate. Below, where results leave the normal numbers, it flushes
/// to 0 or, even for -inf, returns a small positive number. Above, it overflows too early.
template <class T>
struct exp_range;
template <>
struct exp_range<float> {
  static constexpr float least = -87, most = 88, lift = 32, lifted = 1.26641655490941757231e-14f;  // e^-32
};
template <>
struct exp_range<double> {
  static constexpr double least = -700, most = 709, lift = 64, lifted = 1.60381089054863783e-28;  // e^-64
};
/// Eigen's vectorised exponential inside its range; outside of it by e^x = e^(x - 1) e and e^x = e^(x + lift) e^-lift,
/// whose sums are exact.
template <class T, int N>
RWKV_INLINE Pack<T, N> exp_lanes(Pack<T, N> x) {
  using Range = exp_range<T>;
  const auto above = x.v > Range::most - typename Pack<T, N>::native{};
  const auto below = x.v < Range::least - typename Pack<T, N>::native{};
  const Pack<T, N> one(T(1));
  const Pack<T, N> shift = select(below, Pack<T, N>(Range::lift), select(above, -one, Pack<T, N>(T(0))));
  const Pack<T, N> factor =
      select(below, Pack<T, N>(Range::lifted), select(above, Pack<T, N>(T(2.71828182845904523536)), one));
  const Pack<T, N> inside = x + shift;
  Eigen::Array<T, N, 1> lanes;
  std::memcpy(lanes.data(), &inside.v, sizeof inside.v);
  lanes = lanes.exp();
  Pack<T, N> power;
  std::memcpy(&power.v, lanes.data(), sizeof power.v);
  using Bits = decltype(x.v == x.v);
  using Integer = std::conditional_t<sizeof(T) == sizeof(float), std::int32_t, std::int64_t>;
  constexpr Integer most = std::numeric_limits<Integer>::max();
  // The bits of an exponent that is all ones.
  constexpr Integer infinity = most & ~(most >> (std::numeric_limits<T>::max_exponent == 128 ? 8 : 11));
  Bits bits;
  std::memcpy(&bits, &x.v, sizeof bits);
  return select((bits & most) <= infinity, power * factor, x);  // a NaN stays one
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}  // namespace pack

template <class T, int N>
RWKV_INLINE Pack<T, N> exp(Pack<T, N> x) {
  return pack::exp_lanes(x);
}
template <class T, int N>
RWKV_INLINE Pack<T, N> sqrt(Pack<T, N> x) {
  return pack::sqrt_lanes(x);
}
/// a b + c, rounded once where the target has FMA. An explicit FMA, because tuning for some processors makes g++ split
/// long chains of contracted ones.
template <class T, int N>
RWKV_INLINE Pack<T, N> multiply_add(Pack<T, N> a, Pack<T, N> b, Pack<T, N> c) {
  return pack::fused(a, b, c);
}

template <class T, int N>
RWKV_INLINE Pack<T, N> detach(Pack<T, N> x) {
  return x;
}

/// The sum over the lanes, in a fixed order.
template <class T, int N>
RWKV_INLINE T sum_lanes(Pack<T, N> x) {
  T lanes[N];
  x.store(lanes);
  for (int half = N / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
template <class T, int N>
RWKV_INLINE Pack<T, N> first_lanes(Pack<T, N> x, int lanes) {
  T kept[N] = {};
  x.store(kept, lanes);
  return Pack<T, N>::load(static_cast<const T*>(kept));
}

namespace pack {
template <class T>
struct widest {
  using type = One<T>;
};
template <>
struct widest<float> {
  using type = Pack<float, RWKV_SIMD_BYTES / 4>;
};
template <>
struct widest<double> {
  using type = Pack<double, RWKV_SIMD_BYTES / 8>;
};
}  // namespace pack

/// The widest functor number for scalar T on this CPU.
template <class T>
using Widest = typename pack::widest<T>::type;

#else

template <class T>
using Widest = One<T>;

#endif

template <class T>
RWKV_INLINE One<T> multiply_add(One<T> a, One<T> b, One<T> c) {
  return a * b + c;
}

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
