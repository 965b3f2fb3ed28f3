#pragma once
/// The emulator's twin of the header of the same name: what that one does in PTX, in C++.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "rwkv/config.hpp"

namespace rwkv::inline RWKV_ABI::detail {

template <class T>
using Shared = simt::Shared<T>;

/// A GPU faults at an address that is not aligned to the access.
inline void check_aligned(const void* address, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) throw simt::Error("simt: a misaligned address");
}

template <class T>
Shared<T>* dynamic_shared() {
  return simt::dynamic_shared<Shared<T>>();
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

// Element by element, so that each access is checked; elements of the emulator are larger than what they hold, so that
// their addresses say nothing of alignment.
template <class T, int N>
Piece<T, N> load_shared(const Shared<T>* from) {
  Piece<T, N> piece;
  for (int i = 0; i < N; ++i) piece.v[i] = from[i];
  return piece;
}
template <class T, int N>
void store_shared(Shared<T>* to, const Piece<T, N>& piece) {
  for (int i = 0; i < N; ++i) to[i] = piece.v[i];
}

struct alignas(16) Word128 {
  unsigned x, y, z, w;
};

// The fibres of a block share one thread; giving way lets a block that waits for another go on.
inline void store_relaxed(Word128* to, Word128 word) { *to = word; }
inline Word128 load_relaxed(const Word128* from) {
  simt::detail::Machine::running->yield();
  return *from;
}

inline void wait_for_predecessor() {}
inline void let_successor_begin() {}

}  // namespace rwkv::inline RWKV_ABI::detail
