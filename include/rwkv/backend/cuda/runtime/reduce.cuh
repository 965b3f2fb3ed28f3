#pragma once
/// Sums over the threads of a warp or of a block, in an order that the size of the block alone decides.
///
/// A function whose name ends in _warp is called by all 32 threads of a warp together, one that ends in _block by all
/// threads of a block, as everywhere in this backend.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xffffffffu;

/// The sum over a warp, in every lane of it.
template <class T>
__device__ T sum_warp(T x) {
  RWKV_UNROLL for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(whole_warp, x, lanes);
  return x;
}

/// M sums over a warp at once, with fewer shuffles than M calls of sum_warp and the same order of additions. M is a
/// power of two. Lane l receives sum l / (32 / M). Overwrites x.
template <int M, int Lanes = warp_size / 2, class T>
__device__ T sums_warp(T* x, int lane) {
  static_assert(M >= 1 && M <= warp_size && (M & (M - 1)) == 0);
  if constexpr (Lanes == 0) {
    return x[0];
  } else if constexpr (M == 1) {
    x[0] += __shfl_xor_sync(whole_warp, x[0], Lanes);
    return sums_warp<1, Lanes / 2>(x, lane);
  } else {
    const bool upper = (lane & Lanes) != 0;
    RWKV_KERNEL_UNROLL for (int i = 0; i < M / 2; ++i) {
      const T kept = upper ? x[i + M / 2] : x[i], given = upper ? x[i] : x[i + M / 2];
      x[i] = kept + __shfl_xor_sync(whole_warp, given, Lanes);
    }
    return sums_warp<M / 2, Lanes / 2>(x, lane);
  }
}

/// The sums of `Terms` numbers over a block of whole warps, in every thread. `partial` is shared memory for Terms
/// numbers of each warp. Begins with a barrier, so the same `partial` may serve several calls.
template <int Terms, class T, class S>
__device__ void sum_block(T (&x)[Terms], S* partial) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / warp_size;
  RWKV_UNROLL for (int k = 0; k < Terms; ++k) x[k] = sum_warp(x[k]);
  if (warps == 1) return;
  __syncthreads();  // the threads may still read the sums of an earlier call
  if (thread % warp_size == 0) {
    RWKV_UNROLL for (int k = 0; k < Terms; ++k) partial[k * warps + thread / warp_size] = x[k];
  }
  __syncthreads();
  RWKV_UNROLL for (int k = 0; k < Terms; ++k) {
    T sum(0);
    for (int w = 0; w < warps; ++w) sum += static_cast<T>(partial[k * warps + w]);
    x[k] = sum;
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
