#pragma once
/// Errors of the CUDA runtime as sentences.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Throws an Error when a call of the CUDA runtime did not succeed, with the call and the runtime's own words.
inline void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // or the next check would report it again
  fail("rwkv: CUDA: ", call, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv

/// Makes a call of the CUDA runtime and throws its error, if it has one.
#define RWKV_CUDA_TRY(call) ::rwkv::gpu::check_cuda((call), #call)
