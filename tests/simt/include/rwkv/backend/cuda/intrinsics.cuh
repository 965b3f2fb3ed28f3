#pragma once
/// The emulator's twin of the header of the same name: what that one does in PTX, in C++.
#include <cuda_runtime.h>

#include "rwkv/config.hpp"

namespace rwkv::inline RWKV_ABI::detail {

template <class T>
using Shared = simt::Shared<T>;

template <class T>
Shared<T>* dynamic_shared() {
  return simt::dynamic_shared<Shared<T>>();
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
