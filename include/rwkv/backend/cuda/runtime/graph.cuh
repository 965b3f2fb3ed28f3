#pragma once
/// CUDA graphs: work that is recorded from a stream and launched again as a whole.
#include <utility>

#include "rwkv/backend/cuda/runtime/device.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// Work recorded from a stream. It holds addresses and no memory: the memory must outlive every launch, and is in use
/// while a launch runs, in whatever stream. Can be moved, not copied.
class CudaGraph {
 public:
  /// An empty recording.
  CudaGraph() = default;

  /// Records what f() queues in the stream. f() must not wait for the stream.
  /// Errors    those of f() and of the capture; the stream can be used afterwards
  template <class F>
  CudaGraph(const CudaStream& stream, F&& f) : device_(stream.device()) {
    const gpu::CurrentDevice current(device_);
    Capture capture(stream);
    std::forward<F>(f)();
    capture.end();
    RWKV_CUDA_TRY(cudaGraphInstantiate(&graph_, capture.graph, 0));
  }
  CudaGraph(CudaGraph&& other) noexcept : device_(other.device_), graph_(std::exchange(other.graph_, nullptr)) {}
  CudaGraph& operator=(CudaGraph&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(graph_, other.graph_);
    return *this;
  }
  ~CudaGraph() {
    if (graph_ != nullptr) static_cast<void>(cudaGraphExecDestroy(graph_));
  }

  bool empty() const { return graph_ == nullptr; }

  /// Queues the work in a stream of the device it was recorded on.
  void launch(const CudaStream& stream) const {
    if (empty()) return;
    const gpu::CurrentDevice current(device_);
    RWKV_CUDA_TRY(cudaGraphLaunch(graph_, stream.handle()));
  }

 private:
  /// Begins a stream capture; ends it also when an exception passes.
  struct Capture {
    const CudaStream& stream;
    cudaGraph_t graph = nullptr;
    bool ended = false;

    explicit Capture(const CudaStream& recorded) : stream(recorded) {
      RWKV_CUDA_TRY(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal));
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    ~Capture() {
      if (!ended) static_cast<void>(cudaStreamEndCapture(stream.handle(), &graph));
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      static_cast<void>(cudaGetLastError());
    }
    void end() {
      ended = true;
      RWKV_CUDA_TRY(cudaStreamEndCapture(stream.handle(), &graph));
    }
  };

  int device_ = 0;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
