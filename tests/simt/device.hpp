#pragma once
/// What kernel sources include, so that one text compiles with nvcc and runs on the emulator.
#ifdef __CUDACC__

namespace simt {

/// An element of shared memory; the emulator records who touches it.
template <class T>
using Shared = T;

/// Dynamic shared memory: the launch sets its size.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char simt_dynamic_shared[];
  return reinterpret_cast<T*>(simt_dynamic_shared);
}

}  // namespace simt

#else
#include "builtins.hpp"
#endif
