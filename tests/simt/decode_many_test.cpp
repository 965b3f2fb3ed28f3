/// Layers of many sequences, whose products and work share launches. Oracle: the generic path in double. The kernels are those that nvcc compiles for the GPU, run on the emulator; the
/// CUDA suite runs the same cases on a device.
#include <doctest/doctest.h>

#include <utility>

#include "decode.hpp"

using namespace decode;

TEST_CASE_TEMPLATE("simt: a layer at one token of many sequences is five kernels", S, float, rwkv::bf16) {
  const Index sizes[][3] = {{9, 1, 3}, {17, 40, 56}, {33, 33, 70}, {129, 72, 130}};
  for (const auto& [batch, width, ffn] : sizes) check_layer<Fused, S, rwkv::Cuda>(width, ffn, batch, batch == 17);
}

#if RWKV_SIMT
TEST_CASE_TEMPLATE("simt: and on a device without tensor cores", S, float, rwkv::bf16) {
  const int major = std::exchange(simt::device.major, 7);
  for (const Index batch : {33, 70}) check_layer<Fused, S, rwkv::Cuda>(40, 56, batch, batch == 33);
  // Few rows of 16-bit weights are launches of their own.
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 40, .depth = 1, .head_size = 0, .ffn = 56};
  LayerRunner<LayerOf<Fused, S, rwkv::Cuda>> gpu(sizes, 9);
  LayerRunner<LayerOf<Fused, double, rwkv::Reference>> reference(sizes, 9);
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto x = tokens(9, 40, step);
    CHECK(distance(gpu.step(x, false), reference.step(x, false)) < 1e-5);
  }
  simt::device.major = major;
}
#endif

TEST_CASE("simt: a layer at one token in any order of threads and blocks") {
  simt::shuffle_blocks = true;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    simt::seed = seed;
    check_layer<Fused, rwkv::bf16>(72, 136, static_cast<Index>(seed), true);
    check_layer<Fused, rwkv::bf16, rwkv::Cuda>(72, 136, 9, true);
    check_layer<Fused, float, rwkv::Cuda>(40, 70, 34, false);
  }
  simt::shuffle_blocks = false;
}
