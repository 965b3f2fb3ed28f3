#pragma once
/// The adjoint of a block on the CPU.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../versions.hpp"

namespace config {

template <template <class> class BlockOf>
void check_adjoint_on_cpu() {
  std::uint64_t seed = 1;
  for (const int threads : {1, 3}) {
    for (const rwkv::Index width : {7, 35}) {
      for (const rwkv::Index time : {1, 65, 130}) {
        CAPTURE(threads);
        CAPTURE(width);
        CAPTURE(time);
        CHECK(
            rwkv::adjoint_defect<BlockOf>({.width = width, .head_size = 7, .ffn = 2 * width + 1, .ranks = small_ranks},
                                          {.batch = 2, .time = time, .seed = seed++}, rwkv::Cpu(threads)) < 1e-12);
      }
    }
  }
}

}  // namespace config
