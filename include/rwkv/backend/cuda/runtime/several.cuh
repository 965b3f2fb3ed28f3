#pragma once
/// Neighbouring numbers of one thread: what functors see when a thread loads 16 bytes at a time.
#include <cstdint>

#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// N numbers of T in registers. A load or store of N elements is one memory access: the address must be a multiple of
/// their size, see alignment.cuh.
template <class T, int N>
struct Several {
  using scalar = T;
  static constexpr int size = N;
  T v[N];

  /// N numbers as they lie in memory.
  template <class U>
  struct alignas(sizeof(U) * N) Stored {
    U v[N];
  };

  template <class W>
  struct [[gnu::may_alias]] Word {
    W bits;
  };

  Several() = default;
  template <class U>
  requires std::convertible_to<U, T> RWKV_HD constexpr explicit Several(U value) {
    RWKV_UNROLL for (int i = 0; i < N; ++i) v[i] = static_cast<T>(value);
  }

  template <class U>
  RWKV_HD static Several load(const U* from) {
    const Stored<U> stored = *reinterpret_cast<const Stored<U>*>(from);
    Several x;
    RWKV_UNROLL for (int i = 0; i < N; ++i) x.v[i] = widen<T>(stored.v[i]);
    return x;
  }
  template <class U>
  RWKV_HD void store(U* to) const {
    Stored<U> stored;
    RWKV_UNROLL for (int i = 0; i < N; ++i) stored.v[i] = narrow<U>(v[i]);
    // 8 and 4 bytes as one word, because nvcc may split a structure of two numbers into two stores.
    if constexpr (sizeof stored == 8)
      *reinterpret_cast<Word<std::uint64_t>*>(to) = {detail::bits_as<std::uint64_t>(stored)};
    else if constexpr (sizeof stored == 4) {
      *reinterpret_cast<Word<std::uint32_t>*>(to) = {detail::bits_as<std::uint32_t>(stored)};
    } else {
      *reinterpret_cast<Stored<U>*>(to) = stored;
    }
  }

  template <class F>
  RWKV_HD static Several each(const F& f) {
    Several x;
    RWKV_UNROLL for (int i = 0; i < N; ++i) x.v[i] = f(i);
    return x;
  }

  RWKV_HD friend Several operator+(const Several& a, const Several& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  RWKV_HD friend Several operator-(const Several& a, const Several& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  RWKV_HD friend Several operator*(const Several& a, const Several& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  RWKV_HD friend Several operator/(const Several& a, const Several& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  RWKV_HD friend Several operator-(const Several& a) {
    return each([&](int i) { return -a.v[i]; });
  }
  RWKV_HD friend Several& operator+=(Several& a, const Several& b) { return a = a + b; }
  RWKV_HD friend Several& operator-=(Several& a, const Several& b) { return a = a - b; }
  RWKV_HD friend Several& operator*=(Several& a, const Several& b) { return a = a * b; }

  struct Flags {
    bool set[N];
  };
  RWKV_HD friend Flags operator<(const Several& a, const Several& b) {
    Flags flags;
    RWKV_UNROLL for (int i = 0; i < N; ++i) flags.set[i] = a.v[i] < b.v[i];
    return flags;
  }
  RWKV_HD friend Flags operator>(const Several& a, const Several& b) { return b < a; }
  RWKV_HD friend Several select(const Flags& which, const Several& yes, const Several& no) {
    return each([&](int i) { return which.set[i] ? yes.v[i] : no.v[i]; });
  }
};

template <class T, int N>
RWKV_HD Several<T, N> detach(const Several<T, N>& x) {
  return x;
}
template <class T, int N>
RWKV_HD Several<T, N> exp(const Several<T, N>& x) {
  using std::exp;
  return Several<T, N>::each([&](int i) { return exp(x.v[i]); });
}
template <class T, int N>
RWKV_HD Several<T, N> sqrt(const Several<T, N>& x) {
  using std::sqrt;
  return Several<T, N>::each([&](int i) { return sqrt(x.v[i]); });
}
template <class T, int N>
RWKV_HD T sum_lanes(const Several<T, N>& x) {
  T sum = x.v[0];
  RWKV_UNROLL for (int i = 1; i < N; ++i) sum += x.v[i];
  return sum;
}

namespace gpu {

/// A few numbers as one value.
template <class R, int Count>
struct Numbers {
  R v[Count];
};

}  // namespace gpu

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
