/// Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../gates.hpp"
#include "../versions.hpp"

using namespace rwkv;

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

template <template <class> class BlockOf>
void check_adjoint() {
  std::uint64_t seed = 1;
  for (const int threads : {1, 3}) {
    for (const Index width : {7, 35}) {
      for (const Index time : {1, 65, 130}) {
        CAPTURE(threads);
        CAPTURE(width);
        CAPTURE(time);
        CHECK(adjoint_defect<BlockOf>(
                  {.width = width, .head_size = 7, .ffn = 2 * width + 1, .ranks = config::small_ranks},
                  {.batch = 2, .time = time, .seed = seed++}, Cpu(threads)) < 1e-12);
      }
    }
  }
}

}  // namespace

TEST_CASE("on one thread of the CPU and on three, backward is the adjoint of forward") {
  config::each_version([]<class V>() {
    check_adjoint<config::BlocksOf<V, Cpu>::template Time>();
    check_adjoint<config::BlocksOf<V, Cpu>::template Channel>();
  });
  check_adjoint<ScanMixingOnCpu>();
  check_adjoint<GatedOnCpu>();
  check_adjoint<AttendingOnCpu>();
  check_adjoint<AttendingByHandOnCpu>();
}
