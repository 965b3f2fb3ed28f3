#pragma once
/// How tensor cores, which multiply numbers of 16 bits, multiply wider ones: as sums of two 16-bit numbers.
#include "rwkv/backend/cuda/product/gemm_operand.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The 16-bit type that a product of x in T and w in W is computed in and the terms that each factor has in it. A float
/// has two terms of bf16 and is off by 2^-17 of itself; f16 as well, since its own range would not hold a float's, and
/// it is exact.
template <class T, class W>
struct MmaTerms {
  using number = void;
};
template <>
struct MmaTerms<bf16, bf16> {
  using number = bf16;
  static constexpr int x = 1, w = 1;
};
template <>
struct MmaTerms<f16, f16> {
  using number = f16;
  static constexpr int x = 1, w = 1;
};
template <>
struct MmaTerms<float, bf16> {
  using number = bf16;
  static constexpr int x = 2, w = 1;
};
template <>
struct MmaTerms<float, f16> {
  using number = bf16;
  static constexpr int x = 2, w = 2;
};

template <class T, class W>
inline constexpr bool on_tensor_cores = !std::is_void_v<typename MmaTerms<T, W>::number>;

/// What the first term leaves of a number; nothing of one without end, which the term is already.
__device__ __forceinline__ float rest_after(float number, float term) {
  return term - term == 0.0f ? number - term : 0.0f;
}

/// The terms of two neighbours in T, as words of both.
template <class T, int terms, class E>
__device__ __forceinline__ void split_pair(E first, E second, unsigned (&words)[terms]) {
  if constexpr (std::same_as<E, T>) {
    static_assert(terms == 1);
    words[0] = first.bits | unsigned{second.bits} << 16;
  } else {
    const float a = detail::widen_fast<float>(first), b = detail::widen_fast<float>(second);
    words[0] = detail::narrow_pair<T>(a, b);
    if constexpr (terms == 2) {
      T low, high;
      low.bits = static_cast<std::uint16_t>(words[0]);
      high.bits = static_cast<std::uint16_t>(words[0] >> 16);
      words[1] = detail::narrow_pair<T>(rest_after(a, widen<float>(low)), rest_after(b, widen<float>(high)));
    }
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
