/// Layers of several versions in one body, on the CPU. Oracles: dual numbers, exact to rounding; the gradient of the whole
/// sequence.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../versions.hpp"

using namespace rwkv;

TEST_CASE("on one thread of the CPU and on three, the backward pass of a hybrid is the adjoint of its forward pass") {
  using Hybrids = config::HybridsOf<Cpu>;
  std::uint64_t seed = 1;
  for (const int threads : {1, 3}) {
    for (const Index width : {7, 36}) {
      CAPTURE(threads);
      CAPTURE(width);
      const ModelSizes sizes{
          .width = width, .depth = 6, .head_size = width == 36 ? 9 : 7, .ffn = 50, .ranks = config::small_ranks};
      const LawTrial trial{.batch = 3, .time = 67, .seed = seed++};
      CHECK(adjoint_defect<Hybrids::Stack, Keep>(sizes, trial, Cpu(threads)) < 1e-12);
      CHECK(adjoint_defect<Hybrids::Stack, Recompute>(sizes, trial, Cpu(threads)) < 1e-12);
      CHECK(split_defect<Hybrids::Stack<double>, Recompute>(sizes, trial, 30, Cpu(threads)) < 1e-10);
    }
  }
}

TEST_CASE_TEMPLATE("a stack is passed back in halves as it is as a whole", B, Reference, Cpu) {
  using Layers = Stack<typename config::BlocksOf<config::AnyVersion, B>::template Layer<double>>;
  for (const Index width : {1, 7, 19}) {
    for (const Index time : {2, 5, 130, 200}) {
      for (const Index split : {Index{1}, time / 2, time - 1}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(split);
        CHECK(split_defect<Layers, Recompute>({.width = width, .depth = 2, .ffn = 2 * width + 1},
                                              {.batch = 3, .time = time}, split) < 1e-10);
      }
    }
  }
}
