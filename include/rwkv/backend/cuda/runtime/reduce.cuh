#pragma once
/// Sums over the threads of a block, in an order that the size of the block alone decides.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xffffffffu;

/// The sum over a warp, in every lane of it.
template <class T>
__device__ T warp_sum(T x) {
  RWKV_UNROLL for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(whole_warp, x, lanes);
  return x;
}

/// The sums of `Terms` numbers over a block of whole warps, in every thread. `partial` is shared memory for Terms
/// numbers of each warp; a block that calls this again needs no barrier in between.
template <int Terms, class T, class S>
__device__ void block_sum(T (&x)[Terms], S* partial) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / warp_size;
  RWKV_UNROLL for (int k = 0; k < Terms; ++k) x[k] = warp_sum(x[k]);
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
