#pragma once
/// A device, a stream on it, and kernel launches into that stream.
#include <cstddef>
#include <utility>

#include "rwkv/backend/cuda/runtime/error.cuh"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

namespace gpu {

/// Selects a device while it lives, then selects the device that was current before.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    RWKV_CUDA_TRY(cudaGetDevice(&before_));
    if (before_ == device) before_ = -1;
    else RWKV_CUDA_TRY(cudaSetDevice(device));
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (before_ >= 0) static_cast<void>(cudaSetDevice(before_));
  }

 private:
  int before_ = -1;
};

/// Does nothing. CudaStream asks the runtime about it: a device that has no code for this kernel has none for the
/// others.
template <int = 0>
RWKV_KERNEL void probe_kernel() {}

}  // namespace gpu

/// A stream on one device. It is non-blocking: work in the default stream does not wait for it.
class CudaStream {
 public:
  /// Errors    no device, a driver older than the runtime, no such device, or one that the program has no code for
  explicit CudaStream(int device) : device_(device) {
    int count = 0, driver = 0, runtime = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    static_cast<void>(cudaGetLastError());
    if (status == cudaErrorInsufficientDriver) {
      RWKV_CUDA_TRY(cudaDriverGetVersion(&driver));
      if (driver == 0) fail("rwkv: this machine has no CUDA driver");
      RWKV_CUDA_TRY(cudaRuntimeGetVersion(&runtime));
      fail("rwkv: the CUDA driver is too old: it speaks CUDA ", driver / 1000, ".", driver % 1000 / 10,
           ", the program was built with ", runtime / 1000, ".", runtime % 1000 / 10);
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) fail("rwkv: there is no CUDA device");
    gpu::check_cuda(status, "cudaGetDeviceCount");
    expects(device >= 0 && device < count, "rwkv: there is no CUDA device ", device, "; this machine has ", count);
    const gpu::CurrentDevice current(device);
    RWKV_CUDA_TRY(cudaGetDeviceProperties(&properties_, device));
    cudaFuncAttributes attributes;
    const cudaError_t probed = cudaFuncGetAttributes(&attributes, gpu::probe_kernel<>);
    if (probed == cudaErrorNoKernelImageForDevice || probed == cudaErrorInvalidDeviceFunction) {
      static_cast<void>(cudaGetLastError());
      fail("rwkv: the program has no code for CUDA device ", device, ", ", static_cast<const char*>(properties_.name),
           ", of compute capability ", properties_.major, ".", properties_.minor,
           "; compile it for that architecture (CMAKE_CUDA_ARCHITECTURES)");
    }
    gpu::check_cuda(probed, "cudaFuncGetAttributes");
    // PTX for an older architecture is compiled for the device, but uses only the features of the older one.
    const int own = 10 * properties_.major + properties_.minor;
    architecture_ = attributes.ptxVersion < own ? attributes.ptxVersion : own;
    RWKV_CUDA_TRY(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream() {
    static_cast<void>(cudaStreamSynchronize(stream_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }

  int device() const { return device_; }
  cudaStream_t handle() const { return stream_; }
  const cudaDeviceProp& properties() const { return properties_; }
  /// The architecture that the kernels were compiled for, such as 90 for compute capability 9.0.
  int architecture() const { return architecture_; }

  void sync() const { RWKV_CUDA_TRY(cudaStreamSynchronize(stream_)); }

  bool recording() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    RWKV_CUDA_TRY(cudaStreamIsCapturing(stream_, &status));
    return status != cudaStreamCaptureStatusNone;
  }

  /// The shape of a launch.
  struct Shape {
    dim3 grid, block;
    std::size_t shared_bytes = 0;
    bool early = false;  ///< programmatic dependent launch; the kernel must call wait_for_predecessor()
  };

  /// Launches a kernel into the stream, unless the grid is empty. Errors of the launch are thrown. With RWKV_CHECKED it
  /// waits for the kernel and throws its errors too.
  template <class... Parameters, class... Arguments>
  void launch(const Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) const {
    if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
    const gpu::CurrentDevice current(device_);
    // Above 48 KB of static and dynamic shared memory together a kernel needs this attribute. Kernels with dynamic
    // shared memory have less than 8 KB of static. All launches set the same value: threads may launch at the same
    // time.
    constexpr std::size_t most_static = 8 * 1024;
    if (shape.shared_bytes > 32 * 1024) {
      RWKV_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(properties_.sharedMemPerBlockOptin - most_static)));
    }
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = stream_;
    if (shape.early && architecture_ >= 90) {
      config.attrs = &early;
      config.numAttrs = 1;
    }
    RWKV_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
    settle();
  }

  /// With RWKV_CHECKED waits for the operation just queued, so that an error names the call that caused it.
  void settle() const {
#if RWKV_CHECKED
    if (!recording()) sync();
#endif
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
  cudaDeviceProp properties_{};
  int architecture_ = 0;
};

namespace gpu {
/// The number of blocks that cover `count` elements with `per_block` each.
constexpr unsigned blocks_for(Index count, Index per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}
}  // namespace gpu

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
