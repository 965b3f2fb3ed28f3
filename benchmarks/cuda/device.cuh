#pragma once
/// Memory of random numbers, graphs and clocks: what measuring on a device takes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "rwkv/backend/cuda.cuh"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/check/live_weights.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/random.hpp"

namespace bench {

using rwkv::Cuda;
using rwkv::Index;

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Numbers uniform in [low, high): a function of the seed and the place only.
template <class T>
RWKV_KERNEL void fill_uniform_kernel(T* to, Index count, float low, float high, std::uint64_t seed) {
  const rwkv::Philox random{.key = seed};
  const Index all = Index{gridDim.x} * blockDim.x;
  for (Index n = Index{blockIdx.x} * blockDim.x + threadIdx.x; 4 * n < count; n += all) {
    const auto block = random.block(static_cast<std::uint64_t>(n));
    for (int i = 0; i < 4 && 4 * n + i < count; ++i) {
      to[4 * n + i] = rwkv::narrow<T>(low + (high - low) * block.uniform_float(i));
    }
  }
}

template <class T>
void fill_uniform(const Cuda& be, T* to, Index count, float low, float high, std::uint64_t seed) {
  const auto blocks = static_cast<unsigned>(std::min<Index>((count + 1023) / 1024, 4096));
  be.stream().launch({dim3(blocks), dim3(256)}, fill_uniform_kernel<T>, to, count, low, high, seed);
}

/// A block of random numbers on the device, in `sets` parts of equal size that are used in turn.
template <class T>
class Numbers {
 public:
  Numbers(Cuda be, Index count, float low, float high, std::uint64_t seed, Index sets = 1)
      : memory_(be, sets * count * Index{sizeof(T)}), count_(count) {
    fill_uniform(be, data(), sets * count, low, high, seed);
  }

  T* data(Index set = 0) const { return reinterpret_cast<T*>(memory_.data()) + set * count_; }
  rwkv::Vec<T> vector() const { return {data(), count_}; }
  rwkv::Vec<const T> channels() const { return {data(), count_}; }

 private:
  rwkv::Memory<Cuda> memory_;
  Index count_;
};

/// Gives every parameter of a model live values: activations stay near one in size through any number of layers, decays
/// and mixes lie in the range of trained models.
template <class Net>
void fill_parameters(Net& net) {
  std::uint64_t seed = 1;
  for (auto& parameter : net.parameters()) {
    const auto [least, most] = rwkv::live_range(parameter);
    const auto numbers = parameter.numbers();
    fill_uniform(net.device(), numbers.data(), std::ssize(numbers), static_cast<float>(least), static_cast<float>(most),
                 ++seed);
  }
  net.device().sync();
}

/// A recorded piece of work.
class Graph {
 public:
  template <class Work>
  Graph(const rwkv::CudaStream& stream, const Work& work) : stream_(stream.handle()) {
    cudaGraph_t graph = nullptr;
    RWKV_CUDA_TRY(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream_, &graph));
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      throw;
    }
    RWKV_CUDA_TRY(cudaStreamEndCapture(stream_, &graph));
    std::size_t count = 0;
    cudaError_t status = cudaGraphGetNodes(graph, nullptr, &count);
    std::vector<cudaGraphNode_t> nodes(count);
    if (status == cudaSuccess) status = cudaGraphGetNodes(graph, nodes.data(), &count);
    for (const cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type{};
      if (status == cudaSuccess) status = cudaGraphNodeGetType(node, &type);
      kernels_ += type == cudaGraphNodeTypeKernel;
    }
    if (status == cudaSuccess) status = cudaGraphInstantiate(&executable_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    rwkv::gpu::check_cuda(status, "cudaGraphInstantiate");
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { static_cast<void>(cudaGraphExecDestroy(executable_)); }

  void replay() const { RWKV_CUDA_TRY(cudaGraphLaunch(executable_, stream_)); }
  Index kernels() const { return kernels_; }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
  Index kernels_ = 0;
};

/// Measures the time between two points of a stream.
class StreamClock {
 public:
  explicit StreamClock(const rwkv::CudaStream& stream) : stream_(stream.handle()) {
    for (cudaEvent_t& event : events_) RWKV_CUDA_TRY(cudaEventCreate(&event));
  }
  StreamClock(const StreamClock&) = delete;
  StreamClock& operator=(const StreamClock&) = delete;
  ~StreamClock() {
    for (const cudaEvent_t event : events_) static_cast<void>(cudaEventDestroy(event));
  }

  /// Seconds that the work which work() queues takes on the device.
  template <class Work>
  double operator()(const Work& work) const {
    RWKV_CUDA_TRY(cudaEventRecord(events_[0], stream_));
    work();
    RWKV_CUDA_TRY(cudaEventRecord(events_[1], stream_));
    RWKV_CUDA_TRY(cudaEventSynchronize(events_[1]));
    float milliseconds = 0;
    RWKV_CUDA_TRY(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]));
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t events_[2] = {};
};

}  // namespace bench
