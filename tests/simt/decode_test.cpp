/// Oracle: the generic path in double. The kernels are those that nvcc compiles for the GPU, run on the emulator; the
/// CUDA suite runs the same cases on a device.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "decode.hpp"

using namespace decode;

namespace {

/// Two works: every thread of the first writes a number 1, 2, ...; the second sums them.
struct Numbered {
  [[maybe_unused]] static constexpr int resident = 1;
  static constexpr std::size_t shared_bytes = 0;
  int* numbers;
  unsigned blocks;

  __device__ void run_block(unsigned block) const {
    const int i = static_cast<int>(block) * rwkv::gpu::work_threads + static_cast<int>(threadIdx.x);
    numbers[i] = i + 1;
  }
};
struct Summed {
  const int* numbers;
  int count;
  int* sums;
  unsigned blocks;

  template <class Wait>
  __device__ void run_block(unsigned block, const Wait& wait) const {
    wait();
    int sum = 0;
    for (int i = 0; i < count; ++i) sum += numbers[i];
    if (threadIdx.x == 0) sums[block] = sum;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("simt: a layer at one token", S, float, rwkv::bf16) {
  const Index sizes[][2] = {{1, 1}, {3, 5}, {8, 24}, {33, 70}, {64, 256}, {136, 200}};
  Index batch = 1;
  for (const auto& [width, ffn] : sizes) {
    for (int i = 0; i < 4; ++i) {
      check_layer<Fused, S>(width, ffn, batch, batch % 2 == 0);
      batch = batch % 9 + 1;
    }
  }
}

TEST_CASE("simt: a layer at one token of every number of sequences") {
  for (Index batch = 1; batch <= 9; ++batch) check_layer<Fused, float>(40, 56, batch, batch % 2 == 1);
}

TEST_CASE("simt: the second work of a launch waits for all of the first") {
  constexpr int blocks = 5, count = blocks * rwkv::gpu::work_threads;
  rwkv::Cuda be;
  Memory<rwkv::Cuda> memory(be);
  const rwkv::CudaStream& stream = be.stream();
  simt::shuffle_blocks = true;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    simt::seed = seed;
    int* const numbers = memory.take(std::vector<int>(count));
    int* const sums = memory.take(std::vector<int>(7));
    auto* const turn = reinterpret_cast<rwkv::gpu::Turn*>(memory.take(std::vector<unsigned>{0, 0}));
    rwkv::gpu::launch_in_turn(stream, Numbered{numbers, blocks}, Summed{numbers, count, sums, 7}, turn);
    const rwkv::OnHost host(be, std::span<const int>(sums, 7));
    for (const int sum : host) CHECK(sum == count * (count + 1) / 2);
#if RWKV_SIMT
    // As if a block of the first work had its ticket but never ended.
    auto* const late = reinterpret_cast<rwkv::gpu::Turn*>(memory.take(std::vector<unsigned>{1, 0}));
    const auto run = [&] {
      rwkv::gpu::launch_in_turn(stream, Numbered{numbers, 1}, Summed{numbers, count, sums, 1}, late);
      stream.sync();
    };
    CHECK_THROWS_WITH_AS(run(), doctest::Contains("spin without end"), simt::Error);
#endif
  }
  simt::shuffle_blocks = false;
}

TEST_CASE("simt: a layer at one token of 16-bit weights in double") {
  for (const Index batch : {1, 9}) check_layer<Fused, rwkv::Numerics<rwkv::bf16, double>>(40, 72, batch, true);
}

TEST_CASE("simt: long rows go through shared memory in chunks") {
  const int multiprocessors = std::exchange(simt::device.multiprocessors, 132);
  check_layer<Fused, float>(12, 2 * 2048 + 40, 8, true);
  check_layer<Fused, rwkv::Numerics<rwkv::bf16, double>>(6, 8192 + 300, 1, true);
  simt::device.multiprocessors = multiprocessors;
}

TEST_CASE_TEMPLATE("simt: a sequence does not depend on those beside it", S, float, rwkv::bf16) {
  using T = rwkv::compute_t<S>;
  for (const Index width : {24, 17}) {
    const rwkv::ModelSizes sizes{.vocab = 1, .width = width, .depth = 1, .head_size = 0, .ffn = 2 * width};
    LayerRunner<LayerOf<Fused, S, Gpu>> all(sizes, 8);
    std::vector<std::vector<T>> want;
    for (std::uint64_t step = 0; step < 2; ++step) want.push_back(all.step(tokens(8, width, step), true));
    for (const Index batch : {1, 2, 3, 5}) {
      LayerRunner<LayerOf<Fused, S, Gpu>> few(sizes, batch);
      for (std::uint64_t step = 0; step < 2; ++step) {
        const auto got = few.step(tokens(batch, width, step), true);
        CHECK(std::memcmp(got.data(), want[step].data(), got.size() * sizeof(T)) == 0);
      }
    }
  }
}

TEST_CASE("simt: recorded work runs again") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 24, .depth = 1, .head_size = 0, .ffn = 40};
  LayerRunner<LayerOf<Fused, float, Gpu>> plain(sizes, 2), recorded(sizes, 2);
  const rwkv::CudaGraph empty;
  CHECK(empty.empty());
  recorded.be.replay(empty);
  recorded.be.sync();
  const auto before = simt::counts;
  {
    rwkv::CudaGraph first = recorded.be.record([&] { recorded.forward(false); });
    rwkv::CudaGraph graph;
    graph = std::move(first);
    CHECK(!graph.empty());
    for (std::uint64_t step = 0; step < 3; ++step) {
      const auto x = tokens(2, 24, step);
      const auto want = plain.step(x, false);
      recorded.set(x);
      recorded.be.replay(graph);
      CHECK(distance(recorded.output(false), want) == 0);
    }
    CHECK(distance(recorded.state(), plain.state()) == 0);
  }
  CHECK(simt::counts.graphs == before.graphs);
  CHECK(simt::counts.graph_execs == before.graph_execs);
}

TEST_CASE("simt: a recording that fails leaves the stream usable") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 8, .depth = 1, .head_size = 0, .ffn = 8};
  LayerRunner<LayerOf<Fused, float, Gpu>> runner(sizes, 1), plain(sizes, 1);
  const auto before = simt::counts;
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] {
                    runner.forward(false);
                    throw std::runtime_error("on the way");
                  })),
                  std::runtime_error);
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] { runner.be.sync(); })), rwkv::Error);
#if RWKV_SIMT
  simt::fail_function("cudaGraphInstantiate", cudaErrorMemoryAllocation);
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] { runner.forward(false); })), rwkv::Error);
  simt::fail_nothing();
#endif
  CHECK(simt::counts.graphs == before.graphs);
  CHECK(simt::counts.graph_execs == before.graph_execs);
  const auto x = tokens(1, 8, 0);
  CHECK(distance(runner.step(x, false), plain.step(x, false)) == 0);
}
