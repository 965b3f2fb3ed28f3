/// Blocks around a user's cells, and a scan. Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include "../gates.hpp"
#include "adjoint_cpu.hpp"

using namespace rwkv;
using config::check_adjoint_on_cpu;

namespace {

struct Scanning : config::AnyVersion {
  using Schedule = Scan;
};

template <class S>
using ScanMixingOnCpu = TimeMix<Scanning, S, Cpu>;
template <class S>
using GatedOnCpu = CellMix<config::LeakyGate, S, Cpu>;
template <class S>
using AttendingOnCpu = CellMix<config::Attention, S, Cpu>;
template <class S>
using AttendingByHandOnCpu = CellMix<config::AttentionByHand, S, Cpu>;

}  // namespace

TEST_CASE("on one thread of the CPU and on three, backward is the adjoint of forward around any cell") {
  check_adjoint_on_cpu<ScanMixingOnCpu>();
  check_adjoint_on_cpu<GatedOnCpu>();
  check_adjoint_on_cpu<AttendingOnCpu>();
  check_adjoint_on_cpu<AttendingByHandOnCpu>();
}
