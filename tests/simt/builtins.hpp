#pragma once
/// The functions and types that CUDA has built in, for kernels on the emulator.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "emulator.hpp"

namespace simt {
namespace detail {

/// Atomics yield first, so that their order among threads is random too.
template <class T, class F>
T update(T* at, F change) {
  Machine::running->yield();
  return std::exchange(*at, change(*at));
}
template <class T, class F>
T update(Shared<T>* at, F change) {
  Machine::running->yield();
  return at->update(change);
}

template <class T>
struct element {
  using type = T;
};
template <class T>
struct element<Shared<T>> {
  using type = T;
};
template <class T>
using element_t = typename element<T>::type;

}  // namespace detail
}  // namespace simt

// The built-ins. The default arguments name the line of the kernel that waits.
inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  simt::detail::Machine::running->barrier({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const simt::detail::Combine nothing = [](const std::uint64_t*, int) { return std::uint64_t{0}; };
  simt::detail::Machine::running->exchange(mask, 0, nothing, 0, {file, line});
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  return simt::detail::shuffle(mask, value, width, {file, line},
                               [&](int, int begin, int) { return begin + source % width; });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, int width = warpSize, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
  return simt::detail::shuffle(mask, value, width, {file, line},
                               [&](int lane, int begin, int) { return lane - delta < begin ? lane : lane - delta; });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta, int width = warpSize, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
  return simt::detail::shuffle(mask, value, width, {file, line},
                               [&](int lane, int, int end) { return lane + delta < end ? lane + delta : lane; });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  return simt::detail::shuffle(mask, value, width, {file, line},
                               [&](int lane, int, int end) { return (lane ^ bits) < end ? lane ^ bits : lane; });
}
inline unsigned __ballot_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  const simt::detail::Combine votes = [](const std::uint64_t* offered, int) {
    std::uint64_t bits = 0;
    for (int lane = 0; lane < warpSize; ++lane) bits |= offered[lane] << lane;
    return bits;
  };
  return static_cast<unsigned>(simt::detail::Machine::running->exchange(mask, predicate != 0, votes, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate == 0, file, line) == 0;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  const simt::detail::Combine sum = [](const std::uint64_t* offered, int) {
    return std::accumulate(offered, offered + warpSize, std::uint64_t{0});
  };
  const std::uint64_t bits = simt::detail::to_bits(value);
  return static_cast<T>(
      static_cast<unsigned>(simt::detail::Machine::running->exchange(mask, bits, sum, 0, {file, line})));
}
/// The lanes that have not ended; which of them run side by side is not defined, here as on a GPU.
inline unsigned __activemask() { return simt::detail::Machine::running->active_lanes(); }
template <class T>
auto atomicAdd(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return static_cast<decltype(old)>(old + value); });
}
template <class T>
auto atomicSub(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return static_cast<decltype(old)>(old - value); });
}
template <class T>
auto atomicMax(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return std::max(old, value); });
}
template <class T>
auto atomicMin(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return std::min(old, value); });
}
template <class T>
auto atomicOr(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return old | value; });
}
template <class T>
auto atomicAnd(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return old & value; });
}
template <class T>
auto atomicExch(T* at, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto) { return value; });
}
template <class T>
auto atomicCAS(T* at, simt::detail::element_t<T> expected, simt::detail::element_t<T> value) {
  return simt::detail::update(at, [=](auto old) { return old == expected ? value : old; });
}

// The emulator does not reorder memory accesses, so fences do nothing.
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T>
T __ldg(const T* at) {
  return *at;
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __popcll(unsigned long long bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1; }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

// The vectors that one instruction loads and stores, aligned as CUDA has them.
struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct int3 {
  int x, y, z;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z, unsigned short w) {
  return {x, y, z, w};
}
