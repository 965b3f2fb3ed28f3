#pragma once
/// Inline PTX, vector accesses and shared memory: all that kernels need beyond plain C++ and CUDA's built-in functions.
/// tests/simt has a twin of this header in C++, with which the same kernels run on machines without a GPU.
#include <concepts>

#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// An element of an array in shared memory. The twin checks its accesses.
template <class T>
using SharedElement = T;

/// Dynamic shared memory: the launch sets its size.
template <class T>
__device__ __forceinline__ SharedElement<T>* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char rwkv_dynamic_shared[];
  return reinterpret_cast<SharedElement<T>*>(rwkv_dynamic_shared);
}

/// N neighbouring numbers, read and written by vector accesses of up to 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Piece {
  T v[N];
};

/// Vector accesses to global memory; the address is a multiple of alignof(Piece<T, N>).
template <int N, class T>
__device__ __forceinline__ Piece<T, N> load_piece(const T* from) {
  return *reinterpret_cast<const Piece<T, N>*>(from);
}
template <int N, class T>
__device__ __forceinline__ void store_piece(T* to, const Piece<T, N>& piece) {
  *reinterpret_cast<Piece<T, N>*>(to) = piece;
}

/// The same in shared memory.
template <class T, int N>
__device__ __forceinline__ Piece<T, N> load_shared(const SharedElement<T>* from) {
  return *reinterpret_cast<const Piece<T, N>*>(from);
}
template <class T, int N>
__device__ __forceinline__ void store_shared(SharedElement<T>* to, const Piece<T, N>& piece) {
  *reinterpret_cast<Piece<T, N>*>(to) = piece;
}

/// 16 bytes, read and written by one instruction.
struct alignas(16) Word128 {
  unsigned x, y, z, w;
};

/// Relaxed accesses: other blocks see all 16 bytes or none. They order no other access.
__device__ __forceinline__ void store_relaxed(Word128* to, Word128 word) {
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z),
               "r"(word.w)
               : "memory");
}
__device__ __forceinline__ Word128 load_relaxed(const Word128* from) {
  Word128 word;
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
               : "l"(from)
               : "memory");
  return word;
}

/// Spins until a counter that other blocks raise is at least `count`. What they wrote before they raised it is visible
/// afterwards. One thread of a block calls it.
__device__ __forceinline__ void wait_for_count(const unsigned* counter, unsigned count) {
  unsigned now;
  while (true) {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
    if (now >= count) break;
    __nanosleep(32);  // leaves the cache to the blocks that still work
  }
  __threadfence();
}

/// Two numbers rounded to 16 bits, the first in the lower half.
template <class T>
__device__ __forceinline__ unsigned narrow_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned pair;
  if constexpr (std::same_as<T, bf16>) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return narrow<T>(first).bits | unsigned{narrow<T>(second).bits} << 16;
#endif
}

/// widen() as an instruction where there is one.
template <class T, class U>
__device__ __forceinline__ T widen_fast(U value) {
  if constexpr (std::same_as<U, f16>) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return static_cast<T>(wide);
  } else {
    return widen<T>(value);
  }
}

/// d [16, 8] += a [16, 16] b [16, 8] of a warp, a and b in 16 bits, with the layout of fragment.cuh.
template <class T>
__device__ __forceinline__ void mma_m16n8k16_warp(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::same_as<T, bf16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  __trap();
#endif
}

/// Programmatic dependent launch. wait_for_predecessor() waits until the previous kernel of the stream has ended and
/// its writes are visible; let_successor_begin() lets the blocks of the next kernel start. Both do nothing in code
/// below compute capability 9.0 and in plain launches.
__device__ __forceinline__ void wait_for_predecessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_successor_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
