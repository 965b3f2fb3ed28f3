/// Oracle: scans and sums computed one number after the other. What stands in for CUB has CUB's interface.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cub/cub.cuh>
#include <numeric>
#include <string>
#include <vector>

namespace {

constexpr int threads = 37;
constexpr std::uint64_t seeds[] = {1, 2, 3};

/// An operation that depends on the order of its operands.
struct Line {
  unsigned slope, offset;
  bool operator==(const Line&) const = default;
};
struct Compose {
  __device__ Line operator()(const Line& earlier, const Line& later) const {
    return {later.slope * earlier.slope, later.slope * earlier.offset + later.offset};
  }
};

std::vector<Line> lines(std::size_t size) {
  std::vector<Line> out(size);
  for (unsigned i = 0; i < size; ++i) out[i] = {2 * i + 3, i * i + 1};
  return out;
}
/// What comes before each element, and at last what comes before the end; from `initial` on.
std::vector<Line> sums(const std::vector<Line>& in, Line initial) {
  std::vector<Line> out{initial};
  for (const Line& line : in) out.push_back(Compose()(out.back(), line));
  return out;
}

constexpr Line identity = {1, 0}, start = {5, 7};

/// The second use of the same memory needs a barrier before it.
template <int Items, bool Barrier>
__global__ void scan(const Line* in, Line* inclusive, Line* exclusive, Line* all) {
  using Scan = cub::BlockScan<Line, threads>;
  __shared__ typename Scan::TempStorage memory;
  Line mine[Items], out[Items], total;
  const int first = static_cast<int>(threadIdx.x) * Items;
  for (int i = 0; i < Items; ++i) mine[i] = in[first + i];
  if constexpr (Items == 1) Scan(memory).InclusiveScan(mine[0], out[0], Compose(), total);
  else Scan(memory).InclusiveScan(mine, out, Compose(), total);
  for (int i = 0; i < Items; ++i) inclusive[first + i] = out[i];
  if (Barrier) __syncthreads();
  if constexpr (Items == 1) Scan(memory).ExclusiveScan(mine[0], out[0], start, Compose());
  else Scan(memory).ExclusiveScan(mine, out, start, Compose());
  for (int i = 0; i < Items; ++i) exclusive[first + i] = out[i];
  if (threadIdx.x == threads / 2) *all = total;
}

template <int Items>
void check_block_scan() {
  const std::vector<Line> in = lines(threads * Items);
  std::vector<Line> inclusive(in.size()), exclusive(in.size());
  const std::vector<Line> plain = sums(in, identity), started = sums(in, start);
  for (const std::uint64_t seed : seeds) {
    Line all = {};
    simt::launch({.block = {threads}, .seed = seed}, scan<Items, true>, in.data(), inclusive.data(), exclusive.data(),
                 &all);
    CHECK(inclusive == std::vector<Line>(plain.begin() + 1, plain.end()));
    CHECK(exclusive == std::vector<Line>(started.begin(), started.end() - 1));
    CHECK(all == plain.back());
    CHECK_THROWS_AS(simt::launch({.block = {threads}, .seed = seed}, scan<Items, false>, in.data(), inclusive.data(),
                                 exclusive.data(), &all),
                    simt::Error);
  }
}

TEST_CASE("simt: CUB's block scan scans in order and needs a barrier before its memory is used again") {
  check_block_scan<1>();
  check_block_scan<3>();
}

__global__ void reduce(const float* in, float* sum, float* others, int valid) {
  using Reduce = cub::BlockReduce<float, threads>;
  __shared__ typename Reduce::TempStorage memory;
  const float total = Reduce(memory).Sum(in[threadIdx.x], valid);
  if (threadIdx.x == 0) *sum = total;
  else others[threadIdx.x] = total;
}

TEST_CASE("simt: CUB's block reduction gives its result to the first thread alone") {
  std::vector<float> in(threads), others(threads);
  std::iota(in.begin(), in.end(), 1.f);
  for (const std::uint64_t seed : seeds) {
    float sum = 0;
    simt::launch({.block = {threads}, .seed = seed}, reduce, in.data(), &sum, others.data(), threads);
    CHECK(sum == threads * (threads + 1) / 2);
    CHECK(others[1] != others[1]);
    simt::launch({.block = {threads}, .seed = seed}, reduce, in.data(), &sum, others.data(), 4);
    CHECK(sum == 10);
  }
}

TEST_CASE("simt: CUB's device scan is queued, and captured") {
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  const std::vector<Line> in = lines(100), expected = sums(in, start);
  std::vector<Line> out(in.size());
  std::size_t bytes = 0;
  CHECK(cub::DeviceScan::ExclusiveScan(nullptr, bytes, in.data(), out.data(), Compose(), start, 100, stream) ==
        cudaSuccess);
  CHECK(bytes > 0);
  void* temporary = nullptr;
  REQUIRE(cudaMalloc(&temporary, bytes) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cub::DeviceScan::ExclusiveScan(temporary, bytes, in.data(), out.data(), Compose(), start, 100, stream) ==
        cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphInstantiate(&exec, graph) == cudaSuccess);
  for (int repeat = 0; repeat < 2; ++repeat) {
    out.assign(out.size(), Line{});
    CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
    CHECK(out.front() == Line{});
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(out == std::vector<Line>(expected.begin(), expected.end() - 1));
  }
  CHECK(cub::DeviceScan::InclusiveScan(temporary, bytes, in.data(), out.data(), Compose(), 100, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(out.back() == sums(in, identity).back());
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaFree(temporary) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

}  // namespace
