#pragma once
/// The CUDA runtime, and the macros that kernels are declared with.
#include <cuda_runtime.h>

#include "rwkv/backend/cuda/runtime/intrinsics.cuh"
#include "rwkv/config.hpp"

/// An inline namespace around the whole backend, named after the architectures that this translation unit is compiled
/// for. Without it the linker would merge kernels of two libraries that were compiled for different GPUs. Only .cu
/// files name anything in it.
#define RWKV_CUDA_ABI_1_(a) sm_##a
#define RWKV_CUDA_ABI_2_(a, b) sm_##a##_##b
#define RWKV_CUDA_ABI_3_(a, b, c) sm_##a##_##b##_##c
#define RWKV_CUDA_ABI_4_(a, b, c, d) sm_##a##_##b##_##c##_##d
#define RWKV_CUDA_ABI_5_(a, b, c, d, ...) sm_##a##_##b##_##c##_##d##_and_more
#define RWKV_CUDA_ABI_OF_(a, b, c, d, e, f, g, h, name, ...) name
#define RWKV_CUDA_ABI_NAME_(...)                                                                         \
  RWKV_CUDA_ABI_OF_(__VA_ARGS__, RWKV_CUDA_ABI_5_, RWKV_CUDA_ABI_5_, RWKV_CUDA_ABI_5_, RWKV_CUDA_ABI_5_, \
                    RWKV_CUDA_ABI_4_, RWKV_CUDA_ABI_3_, RWKV_CUDA_ABI_2_, RWKV_CUDA_ABI_1_, )            \
  (__VA_ARGS__)
#define RWKV_CUDA_ABI_NAME(...) RWKV_CUDA_ABI_NAME_(__VA_ARGS__)
#ifdef __CUDA_ARCH_LIST__
#define RWKV_CUDA_ABI RWKV_CUDA_ABI_NAME(__CUDA_ARCH_LIST__)
#else
#define RWKV_CUDA_ABI sm_host
#endif

// nvcc warns that visibility is ignored for a kernel over a type of an unnamed namespace: it is local to its file
// anyway.
#ifdef __NVCC__
#pragma nv_diag_suppress 1407
#endif

/// Declares a kernel. Hidden, so that a kernel of the same name in another shared library does not replace it.
#define RWKV_KERNEL __attribute__((visibility("hidden"))) __global__

/// Unrolls the next loop in device code, so that the arrays it indexes stay in registers. In host code it stays a loop.
#if defined(__CUDA_ARCH__)
#define RWKV_KERNEL_UNROLL _Pragma("unroll")
#else
#define RWKV_KERNEL_UNROLL
#endif
