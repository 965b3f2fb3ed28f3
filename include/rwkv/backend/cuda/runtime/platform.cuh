#pragma once
/// What every header of the CUDA backend starts from: the runtime, and the names that kernels are declared with.
#include <cuda_runtime.h>

#include "rwkv/backend/cuda/runtime/intrinsics.cuh"
#include "rwkv/config.hpp"

/// The architectures that this translation unit is compiled for name an inline namespace around the whole backend: two
/// libraries of one program that were compiled for different GPUs must not have their kernels merged. Only .cu files
/// name anything in it.
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

// A kernel on a program or cell of an unnamed namespace is local to its file already; the attribute is no mistake.
#ifdef __NVCC__
#pragma nv_diag_suppress 1407
#endif

/// Declares a kernel. Hidden, so that no other shared library's kernel of the same name takes its place.
#define RWKV_KERNEL __attribute__((visibility("hidden"))) __global__

/// Unrolls the loop of a kernel that follows, so that the arrays it walks along are registers. On a host it stays a
/// loop.
#if defined(__CUDA_ARCH__)
#define RWKV_KERNEL_UNROLL _Pragma("unroll")
#else
#define RWKV_KERNEL_UNROLL
#endif
