#pragma once
/// What the tests of kernels ask of the emulator: an order of threads and blocks, a device's properties, counts. A
/// device runs the same tests in an order of its own; there these are variables that nothing reads and counts that stay
/// zero, and what tests expect of counts is behind `simt::emulated`.
#include <cuda_runtime.h>

#include <cstdint>

#if RWKV_SIMT

namespace simt {
inline constexpr bool emulated = true;
}

#else

namespace simt {

inline constexpr bool emulated = false;
inline std::uint64_t seed = 0;
inline bool shuffle_blocks = false;
struct DeviceShape {
  int multiprocessors = 0;
};
inline DeviceShape device;
struct Counts {
  long launches = 0, waits = 0;
  int graphs = 0, graph_execs = 0;
};
inline Counts counts;

}  // namespace simt

#endif
