#pragma once
/// Wider numbers on tensor cores, which multiply 16-bit ones: a number is the sum of one or two 16-bit terms.
#include "rwkv/backend/cuda/product/gemm_operand.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// For a product of x in T and w in W: the 16-bit type of the terms, and how many terms each factor has. Two bf16 terms
/// hold a float up to 2^-17 of itself, and an f16 exactly. f16 terms would not have the range of a float.
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

/// What the first term leaves over of a number: 0 when the term is infinite or NaN, as the number then is.
__device__ __forceinline__ float rest_after(float number, float term) {
  return term - term == 0.0f ? number - term : 0.0f;
}

/// The terms of two neighbours: words[term] holds that term of both.
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
