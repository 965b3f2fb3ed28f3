/// Oracle: the gradient of the whole sequence.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

using namespace rwkv;

namespace {

template <class K, class P = Keep>
void check_halves() {
  for (const Index width : {1, 7, 19}) {
    for (const Index time : {2, 5, 130, 200}) {
      for (const Index split : {Index{1}, time / 2, time - 1}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(split);
        CHECK(split_defect<K, P>({.width = width, .depth = 2, .head_size = width, .ffn = 2 * width + 1},
                                 {.batch = 3, .time = time}, split) < 1e-10);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a sequence is passed back in halves as it is as a whole", B, Reference, Cpu) {
  check_halves<TimeMix<V4, double, B>>();
  check_halves<TimeMix<V5, double, B>>();
  check_halves<ChannelMix<V4, double, B>>();
  check_halves<Stack<Layer<TimeMix<V4, double, B>, ChannelMix<V4, double, B>>>, Recompute>();
}
