#pragma once
/// What a device can do at best, measured in the running program: the floors of every row follow from it.
#include <string>
#include <vector>

#include "device.cuh"

namespace bench {

struct Ceilings {
  double copy = 0, read = 0;        ///< bytes per second of global memory
  double fma = 0, mma = 0;          ///< operations per second, a multiply-add counted as two
  double shared = 0;                ///< bytes per second that broadcast loads of 16 bytes return to registers
  double edge = 0, early_edge = 0;  ///< seconds from kernel to kernel in a graph, without and with early launch
  double clock = 0, launch = 0;     ///< Hz under FMA load; seconds of the host for one launch
};

Ceilings measure_ceilings(const Cuda& be);

}  // namespace bench
