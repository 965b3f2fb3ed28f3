/// Oracle: the gradient of the whole sequence. Stacks are split in adjoint_hybrids_test.cpp and its twin.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../versions.hpp"

using namespace rwkv;

namespace {

template <class K>
void check_halves() {
  for (const Index width : {1, 7, 19}) {
    // The reference derives the adjoint of a row cell number by number, so its heads are small.
    const Index head = std::is_same_v<typename K::backend, Reference> && width > 7 ? 1 : width;
    for (const Index time : {2, 5, 130, 200}) {
      for (const Index split : {Index{1}, time / 2, time - 1}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(split);
        CHECK(split_defect<K>({.width = width, .head_size = head, .ffn = 2 * width + 1, .ranks = config::small_ranks},
                              {.batch = 3, .time = time}, split) < 1e-10);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a sequence is passed back in halves as it is as a whole", B, Reference, Cpu) {
  config::each_version([&]<class V>() {
    check_halves<TimeMix<V, double, B>>();
    check_halves<ChannelMix<V, double, B>>();
  });
}
