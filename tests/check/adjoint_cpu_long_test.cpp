/// Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include "adjoint_cpu.hpp"

using namespace rwkv;
using config::check_adjoint_on_cpu;

TEST_CASE("on one thread of the CPU and on three, backward is the adjoint of forward") {
  config::each_version([&]<class V>() {
    check_adjoint_on_cpu<config::BlocksOf<V, Cpu>::template Time>();
    check_adjoint_on_cpu<config::BlocksOf<V, Cpu>::template Channel>();
  });
}
