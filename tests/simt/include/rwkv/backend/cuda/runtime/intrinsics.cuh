#pragma once
/// The emulator's twin of the header of the same name, in C++ instead of PTX.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rwkv/backend/cuda/product/fragment.cuh"
#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

template <class T>
using SharedElement = simt::Shared<T>;

/// A GPU faults at an address that is not aligned to the access.
inline void check_aligned(const void* address, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) throw simt::Error("simt: a misaligned address");
}

template <class T>
SharedElement<T>* dynamic_shared() {
  return simt::dynamic_shared<SharedElement<T>>();
}

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Piece {
  T v[N];
};

template <int N, class T>
Piece<T, N> load_piece(const T* from) {
  Piece<T, N> piece;
  check_aligned(from, alignof(Piece<T, N>));
  std::copy_n(from, N, piece.v);
  return piece;
}
template <int N, class T>
void store_piece(T* to, const Piece<T, N>& piece) {
  check_aligned(to, alignof(Piece<T, N>));
  std::copy_n(piece.v, N, to);
}

// Element by element, so that each access is checked. Alignment is not: elements of the emulator are larger than their
// values.
template <class T, int N>
Piece<T, N> load_shared(const SharedElement<T>* from) {
  Piece<T, N> piece;
  for (int i = 0; i < N; ++i) piece.v[i] = from[i];
  return piece;
}
template <class T, int N>
void store_shared(SharedElement<T>* to, const Piece<T, N>& piece) {
  for (int i = 0; i < N; ++i) to[i] = piece.v[i];
}

struct alignas(16) Word128 {
  unsigned x, y, z, w;
};

// All fibres share one host thread: a loop that waits must yield to let the others go on.
inline void store_relaxed(Word128* to, Word128 word) { *to = word; }
inline Word128 load_relaxed(const Word128* from) {
  simt::detail::Machine::running->yield();
  return *from;
}

inline void wait_for_count(const unsigned* counter, unsigned count) {
  ++simt::counts.waits;
  do simt::detail::Machine::running->yield();
  while (*counter < count);
}

template <class T>
unsigned narrow_pair(float first, float second) {
  return narrow<T>(first).bits | unsigned{narrow<T>(second).bits} << 16;
}
template <class T, class U>
T widen_fast(U value) {
  return widen<T>(value);
}

/// Which lane holds which element of the factors of a matrix instruction.
struct FragmentOwners {
  struct Owner {
    int lane, element;
  };
  Owner a[16][16], b[16][8];

  constexpr FragmentOwners() : a(), b() {
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 8; ++e) a[place_in_a(lane, e).row][place_in_a(lane, e).col] = {lane, e};
      for (int e = 0; e < 4; ++e) b[place_in_b(lane, e).row][place_in_b(lane, e).col] = {lane, e};
    }
  }
};
inline constexpr FragmentOwners fragment_owners;

/// The factors that the threads of a block bring to a matrix instruction.
struct Fragments {
  std::uint16_t a[8], b[4];
};
inline Fragments fragments[1024];

/// As on a GPU, a sum is exact until it is truncated to a float.
template <class T>
void mma_m16n8k16_warp(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                       const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z), lane = thread % 32;
  const Fragments* const lanes = fragments + (thread - lane);
  std::memcpy(fragments[thread].a, a, sizeof a);
  std::memcpy(fragments[thread].b, b, sizeof b);
  __syncwarp(~0u, file, line);
  const auto number = [](std::uint16_t bits) {
    T value;
    value.bits = bits;
    return static_cast<double>(static_cast<float>(value));
  };
  for (int i = 0; i < 4; ++i) {
    const FragmentPlace place = place_in_d(static_cast<int>(lane), i);
    double sum = static_cast<double>(d[i]);
    for (int k = 0; k < 16; ++k) {
      const auto left = fragment_owners.a[place.row][k], right = fragment_owners.b[k][place.col];
      sum += number(lanes[left.lane].a[left.element]) * number(lanes[right.lane].b[right.element]);
    }
    d[i] = static_cast<float>(sum);
    if (std::abs(static_cast<double>(d[i])) > std::abs(sum)) d[i] = std::nextafter(d[i], 0.0f);
  }
  __syncwarp(~0u, file, line);
}

inline void wait_for_predecessor() {}
inline void let_successor_begin() {}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
