#pragma once
/// Stands in for the header of the CUDA toolkit, in tests only: the same functions, which work on the emulator. See
/// ../runtime.hpp for what they do and how tests steer it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "../builtins.hpp"
#include "../runtime.hpp"

#ifndef RWKV_SIMT
#define RWKV_SIMT 1
#endif
#define CUDART_VERSION 13000

namespace simt::detail {

inline Runtime& cuda() { return Runtime::instance(); }

template <class F>
cudaError_t call(const char* function, F body) {
  return cuda().call(function, body);
}
/// Checks a call that captures forbid.
template <class F>
cudaError_t call_outside_capture(const char* function, F body) {
  return cuda().call(function, [&] { return cuda().outside_capture() ? body() : cudaErrorStreamCaptureUnsupported; });
}
/// Wraps a call that releases something: it does so even when a fault is injected.
template <class F>
cudaError_t release(const char* function, F body) {
  return cuda().call(function, body, Runtime::Kind::release);
}
/// For a call about a stream.
template <class F>
cudaError_t on_stream(const char* function, cudaStream_t handle, F body) {
  return call(function, [&] {
    CUstream_st* const stream = cuda().stream(handle);
    return stream == nullptr ? cudaErrorInvalidResourceHandle : body(*stream);
  });
}

template <class R, class... P>
const void* address(R (*kernel)(P...)) {
  return reinterpret_cast<const void*>(kernel);
}

/// One side of a copy.
struct Place {
  cudaMemoryType type;
  bool valid;
};
inline Place place_of(const void* pointer, std::size_t bytes) {
  const auto inside = [&](const auto& allocation) {
    return static_cast<const std::byte*>(pointer) + bytes <= allocation.first + allocation.second.bytes;
  };
  if (DeviceMemory::instance().in_range(pointer)) {
    const auto* const allocation = DeviceMemory::instance().find(pointer);
    return {cudaMemoryTypeDevice, allocation != nullptr && inside(*allocation)};
  }
  if (const auto* const allocation = cuda().find_host(pointer)) return {cudaMemoryTypeHost, inside(*allocation)};
  return {cudaMemoryTypeUnregistered, pointer != nullptr};
}

inline void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                      std::size_t height) {
  ++counts.copies;
  for (std::size_t row = 0; row < height; ++row) {
    std::memmove(static_cast<std::byte*>(to) + row * to_pitch, static_cast<const std::byte*>(from) + row * from_pitch,
                 width);
  }
}

inline cudaError_t copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                        std::size_t height, cudaMemcpyKind kind, CUstream_st& stream) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidPitchValue;
  if (width == 0 || height == 0) return cudaSuccess;
  const Place target = place_of(to, (height - 1) * to_pitch + width);
  const Place source = place_of(from, (height - 1) * from_pitch + width);
  if (!target.valid || !source.valid || kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
    return cudaErrorInvalidValue;
  }
  if (kind != cudaMemcpyDefault) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != (target.type == cudaMemoryTypeDevice) || from_device != (source.type == cudaMemoryTypeDevice)) {
      return cudaErrorInvalidValue;
    }
  }
  const bool staged = source.type == cudaMemoryTypeUnregistered && target.type != cudaMemoryTypeUnregistered;
  const bool waits = target.type == cudaMemoryTypeUnregistered;
  if (stream.capture != nullptr && (staged || waits)) return cuda().spoil(stream);
  if (staged) {
    std::vector<std::byte> rows(width * height);
    for (std::size_t row = 0; row < height; ++row) {
      std::memcpy(rows.data() + row * width, static_cast<const std::byte*>(from) + row * from_pitch, width);
    }
    cuda().push(stream, [=, rows = std::move(rows)] { copy_rows(to, to_pitch, rows.data(), width, width, height); });
  } else {
    cuda().push(stream, [=] { copy_rows(to, to_pitch, from, from_pitch, width, height); });
  }
  if (waits) cuda().finish(stream);
  return cudaSuccess;
}

}  // namespace simt::detail

// --- Errors. ---------------------------------------------------------------------------------------------------------

inline const char* cudaGetErrorName(cudaError_t error) {
#define SIMT_NAME(name) \
  case name: return #name
  switch (error) {
    SIMT_NAME(cudaSuccess);
    SIMT_NAME(cudaErrorInvalidValue);
    SIMT_NAME(cudaErrorMemoryAllocation);
    SIMT_NAME(cudaErrorInitializationError);
    SIMT_NAME(cudaErrorInvalidConfiguration);
    SIMT_NAME(cudaErrorInvalidPitchValue);
    SIMT_NAME(cudaErrorInvalidDevicePointer);
    SIMT_NAME(cudaErrorInvalidMemcpyDirection);
    SIMT_NAME(cudaErrorInsufficientDriver);
    SIMT_NAME(cudaErrorDevicesUnavailable);
    SIMT_NAME(cudaErrorInvalidDeviceFunction);
    SIMT_NAME(cudaErrorNoDevice);
    SIMT_NAME(cudaErrorInvalidDevice);
    SIMT_NAME(cudaErrorNoKernelImageForDevice);
    SIMT_NAME(cudaErrorECCUncorrectable);
    SIMT_NAME(cudaErrorUnsupportedPtxVersion);
    SIMT_NAME(cudaErrorInvalidResourceHandle);
    SIMT_NAME(cudaErrorIllegalState);
    SIMT_NAME(cudaErrorNotReady);
    SIMT_NAME(cudaErrorIllegalAddress);
    SIMT_NAME(cudaErrorLaunchOutOfResources);
    SIMT_NAME(cudaErrorLaunchTimeout);
    SIMT_NAME(cudaErrorMisalignedAddress);
    SIMT_NAME(cudaErrorLaunchFailure);
    SIMT_NAME(cudaErrorNotPermitted);
    SIMT_NAME(cudaErrorNotSupported);
    SIMT_NAME(cudaErrorSystemDriverMismatch);
    SIMT_NAME(cudaErrorStreamCaptureUnsupported);
    SIMT_NAME(cudaErrorStreamCaptureInvalidated);
    SIMT_NAME(cudaErrorStreamCaptureMerge);
    SIMT_NAME(cudaErrorStreamCaptureUnmatched);
    SIMT_NAME(cudaErrorStreamCaptureUnjoined);
    SIMT_NAME(cudaErrorStreamCaptureIsolation);
    SIMT_NAME(cudaErrorStreamCaptureImplicit);
    SIMT_NAME(cudaErrorCapturedEvent);
    SIMT_NAME(cudaErrorStreamCaptureWrongThread);
    SIMT_NAME(cudaErrorInvalidClusterSize);
    SIMT_NAME(cudaErrorUnknown);
  }
#undef SIMT_NAME
  return "unrecognized error code";
}
/// CUDA has a sentence for each; the emulator says the most common ones.
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDeviceFunction: return "invalid device function";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return cudaGetErrorName(error);
  }
}
inline cudaError_t cudaGetLastError() { return simt::detail::cuda().take_last_error(); }
inline cudaError_t cudaPeekAtLastError() { return simt::detail::cuda().peek_last_error(); }

// --- Devices. --------------------------------------------------------------------------------------------------------

inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = simt::device.driver_version;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = simt::detail::Runtime::version;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return simt::detail::call("cudaGetDeviceCount", [&] {
    *count = simt::device.count;
    return cudaSuccess;
  });
}
inline cudaError_t cudaSetDevice(int device) {
  return simt::detail::call("cudaSetDevice", [&] {
    if (device < 0 || device >= simt::device.count) return cudaErrorInvalidDevice;
    simt::detail::Runtime::current_device = device;
    return cudaSuccess;
  });
}
inline cudaError_t cudaGetDevice(int* device) {
  return simt::detail::call("cudaGetDevice", [&] {
    *device = simt::detail::Runtime::current_device;
    return cudaSuccess;
  });
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return simt::detail::call("cudaGetDeviceProperties", [&] {
    using simt::detail::Runtime;
    if (device < 0 || device >= simt::device.count) return cudaErrorInvalidDevice;
    *properties = {};
    std::strcpy(properties->name, "emulated device");
    properties->totalGlobalMem = simt::device_bytes_limit;
    properties->sharedMemPerBlock = Runtime::shared_bytes;
    properties->sharedMemPerBlockOptin = Runtime::shared_bytes_optin;
    properties->sharedMemPerMultiprocessor = Runtime::shared_bytes_optin + 1024;
    properties->regsPerBlock = 65536;
    properties->warpSize = warpSize;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->major = simt::device.major;
    properties->minor = simt::device.minor;
    properties->multiProcessorCount = simt::device.multiprocessors;
    properties->l2CacheSize = 4 << 20;
    return cudaSuccess;
  });
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return simt::detail::call("cudaDeviceGetAttribute", [&] {
    using simt::detail::Runtime;
    if (device < 0 || device >= simt::device.count) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
      case cudaDevAttrMaxSharedMemoryPerBlock: *value = Runtime::shared_bytes; break;
      case cudaDevAttrWarpSize: *value = warpSize; break;
      case cudaDevAttrMultiProcessorCount: *value = simt::device.multiprocessors; break;
      case cudaDevAttrL2CacheSize: *value = 4 << 20; break;
      case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
      case cudaDevAttrComputeCapabilityMajor: *value = simt::device.major; break;
      case cudaDevAttrComputeCapabilityMinor: *value = simt::device.minor; break;
      case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = Runtime::shared_bytes_optin + 1024; break;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = Runtime::shared_bytes_optin; break;
      default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
  });
}
inline cudaError_t cudaDeviceSynchronize() {
  return simt::detail::call("cudaDeviceSynchronize", [] {
    auto& cuda = simt::detail::cuda();
    if (!cuda.outside_capture() || cuda.capturing()) return cudaErrorStreamCaptureUnsupported;
    cuda.finish_all();
    return cudaSuccess;
  });
}

// --- Memory. ---------------------------------------------------------------------------------------------------------

inline cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return simt::detail::call_outside_capture("cudaMalloc", [&] {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (bytes > simt::device_bytes_limit || simt::counts.device_bytes > simt::device_bytes_limit - bytes) {
      return cudaErrorMemoryAllocation;
    }
    *pointer = simt::detail::DeviceMemory::instance().allocate(bytes, simt::detail::Runtime::current_device);
    if (*pointer == nullptr) return cudaErrorMemoryAllocation;
    ++simt::counts.device_allocations;
    simt::counts.device_bytes += bytes;
    return cudaSuccess;
  });
}
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
inline cudaError_t cudaFree(void* pointer) {
  return simt::detail::release("cudaFree", [&] {
    auto& cuda = simt::detail::cuda();
    if (pointer == nullptr) return cudaSuccess;
    if (!cuda.outside_capture()) return cudaErrorStreamCaptureUnsupported;
    cuda.finish_all_quietly();
    const std::size_t bytes = simt::detail::DeviceMemory::instance().free(pointer);
    if (bytes == 0) return cudaErrorInvalidValue;
    --simt::counts.device_allocations;
    simt::counts.device_bytes -= bytes;
    return cudaSuccess;
  });
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return simt::detail::call("cudaMemGetInfo", [&] {
    *total = simt::device_bytes_limit;
    *free = *total - std::min(*total, simt::counts.device_bytes);
    return cudaSuccess;
  });
}
inline cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  return simt::detail::call_outside_capture("cudaHostAlloc", [&] {
    if (pointer == nullptr || flags > 7) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    const std::size_t unit = 256;
    void* const start = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (start == nullptr) return cudaErrorMemoryAllocation;
    std::memset(start, simt::detail::DeviceMemory::poison, bytes);
    simt::detail::cuda().host[static_cast<std::byte*>(start)] = {bytes, simt::detail::Runtime::current_device};
    ++simt::counts.host_allocations;
    simt::counts.host_bytes += bytes;
    *pointer = start;
    return cudaSuccess;
  });
}
template <class T>
cudaError_t cudaHostAlloc(T** pointer, std::size_t bytes, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(pointer), bytes, flags);
}
inline cudaError_t cudaFreeHost(void* pointer) {
  return simt::detail::release("cudaFreeHost", [&] {
    auto& cuda = simt::detail::cuda();
    if (pointer == nullptr) return cudaSuccess;
    if (!cuda.outside_capture()) return cudaErrorStreamCaptureUnsupported;
    cuda.finish_all_quietly();
    const auto found = cuda.host.find(static_cast<std::byte*>(pointer));
    if (found == cuda.host.end()) return cudaErrorInvalidValue;
    --simt::counts.host_allocations;
    simt::counts.host_bytes -= found->second.bytes;
    cuda.host.erase(found);
    std::free(pointer);
    return cudaSuccess;
  });
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return simt::detail::call("cudaPointerGetAttributes", [&] {
    void* const p = const_cast<void*>(pointer);
    if (const auto* const allocation = simt::detail::DeviceMemory::instance().find(pointer)) {
      *attributes = {cudaMemoryTypeDevice, allocation->second.device, p, nullptr};
    } else if (const auto* const registered = simt::detail::cuda().find_host(pointer)) {
      *attributes = {cudaMemoryTypeHost, registered->second.device, p, p};
    } else {
      *attributes = simt::host_memory_is_managed ? cudaPointerAttributes{cudaMemoryTypeManaged, 0, p, p}
                                                 : cudaPointerAttributes{cudaMemoryTypeUnregistered, -2, nullptr, p};
    }
    return cudaSuccess;
  });
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t stream = nullptr) {
  return simt::detail::on_stream("cudaMemcpyAsync", stream, [&](CUstream_st& s) {
    return simt::detail::copy(to, bytes, from, bytes, bytes, 1, kind, s);
  });
}
inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                     std::size_t width, std::size_t height, cudaMemcpyKind kind,
                                     cudaStream_t stream = nullptr) {
  return simt::detail::on_stream("cudaMemcpy2DAsync", stream, [&](CUstream_st& s) {
    return simt::detail::copy(to, to_pitch, from, from_pitch, width, height, kind, s);
  });
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return simt::detail::call_outside_capture("cudaMemcpy", [&] {
    CUstream_st& stream = *simt::detail::cuda().stream(nullptr);
    const cudaError_t error = simt::detail::copy(to, bytes, from, bytes, bytes, 1, kind, stream);
    if (error == cudaSuccess) simt::detail::cuda().finish(stream);
    return error;
  });
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream = nullptr) {
  return simt::detail::on_stream("cudaMemsetAsync", stream, [&](CUstream_st& s) {
    if (bytes == 0) return cudaSuccess;
    if (!simt::detail::place_of(to, bytes).valid) return cudaErrorInvalidValue;
    simt::detail::cuda().push(s, [=] {
      ++simt::counts.copies;
      std::memset(to, value, bytes);
    });
    return cudaSuccess;
  });
}

// --- Streams and events. ---------------------------------------------------------------------------------------------

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return simt::detail::call("cudaStreamCreateWithFlags", [&] {
    if (stream == nullptr || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    if (flags != cudaStreamNonBlocking) return cudaErrorNotSupported;  // it would wait for the null stream
    *stream = simt::detail::cuda().new_stream();
    return cudaSuccess;
  });
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return simt::detail::release("cudaStreamDestroy", [&] {
    auto& cuda = simt::detail::cuda();
    if (stream == nullptr || cuda.stream(stream) == nullptr) return cudaErrorInvalidResourceHandle;
    cuda.delete_stream(stream);
    return cudaSuccess;
  });
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return simt::detail::on_stream("cudaStreamSynchronize", stream, [&](CUstream_st& s) {
    if (s.capture != nullptr) return simt::detail::cuda().spoil(s);
    simt::detail::cuda().finish(s);
    return cudaSuccess;
  });
}
inline cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return simt::detail::on_stream("cudaStreamQuery", stream, [&](CUstream_st& s) {
    if (s.capture != nullptr) return simt::detail::cuda().spoil(s);
    simt::detail::cuda().advance();
    return s.queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0) {
  return simt::detail::on_stream("cudaStreamWaitEvent", stream, [&](CUstream_st& s) {
    if (simt::detail::cuda().events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (flags != cudaEventWaitDefault) return cudaErrorInvalidValue;
    return simt::detail::cuda().wait(s, *event);
  });
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return simt::detail::call("cudaEventCreateWithFlags", [&] {
    if (event == nullptr || flags > (cudaEventBlockingSync | cudaEventDisableTiming)) return cudaErrorInvalidValue;
    *event = new CUevent_st{simt::detail::Runtime::current_device, (flags & cudaEventDisableTiming) == 0};
    simt::detail::cuda().events.insert(*event);
    ++simt::counts.events;
    return cudaSuccess;
  });
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return simt::detail::release("cudaEventDestroy", [&] {
    if (simt::detail::cuda().events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    --simt::counts.events;
    return cudaSuccess;
  });
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr) {
  return simt::detail::on_stream("cudaEventRecord", stream, [&](CUstream_st& s) {
    if (simt::detail::cuda().events.count(event) == 0 || event->device != s.device) {
      return cudaErrorInvalidResourceHandle;
    }
    simt::detail::cuda().record(*event, s);
    return cudaSuccess;
  });
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return simt::detail::call("cudaEventSynchronize", [&] {
    if (simt::detail::cuda().events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr) return cudaErrorCapturedEvent;
    simt::detail::cuda().run_while([&] { return event->last != nullptr && !event->last->done; });
    return cudaSuccess;
  });
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return simt::detail::call("cudaEventQuery", [&] {
    if (simt::detail::cuda().events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr) return cudaErrorCapturedEvent;
    simt::detail::cuda().advance();
    return event->last == nullptr || event->last->done ? cudaSuccess : cudaErrorNotReady;
  });
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return simt::detail::call("cudaEventElapsedTime", [&] {
    for (const cudaEvent_t event : {start, end}) {
      if (simt::detail::cuda().events.count(event) == 0 || !event->timed || event->last == nullptr) {
        return cudaErrorInvalidResourceHandle;
      }
      if (!event->last->done) return cudaErrorNotReady;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->last->when - start->last->when).count();
    return cudaSuccess;
  });
}

// --- Graphs. ---------------------------------------------------------------------------------------------------------

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return simt::detail::on_stream("cudaStreamBeginCapture", stream, [&](CUstream_st& s) {
    if (stream == nullptr) return cudaErrorStreamCaptureUnsupported;
    if (s.capture != nullptr) return cudaErrorIllegalState;
    simt::detail::cuda().begin_capture(s, mode);
    return cudaSuccess;
  });
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return simt::detail::on_stream("cudaStreamEndCapture", stream, [&](CUstream_st& s) {
    return s.capture == nullptr ? cudaErrorIllegalState : simt::detail::cuda().end_capture(s, graph);
  });
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return simt::detail::on_stream("cudaStreamIsCapturing", stream, [&](CUstream_st& s) {
    *status = s.capture == nullptr ? cudaStreamCaptureStatusNone
              : s.capture->valid   ? cudaStreamCaptureStatusActive
                                   : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
  });
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0) {
  return simt::detail::call("cudaGraphInstantiate", [&] {
    if (simt::detail::cuda().graphs.count(graph) == 0 || flags != 0) return cudaErrorInvalidValue;
    *exec = new CUgraphExec_st{graph->works};
    simt::detail::cuda().execs.insert(*exec);
    ++simt::counts.graph_execs;
    return cudaSuccess;
  });
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return simt::detail::on_stream("cudaGraphLaunch", stream, [&](CUstream_st& s) {
    if (simt::detail::cuda().execs.count(exec) == 0) return cudaErrorInvalidValue;
    for (const simt::detail::Work& work : exec->works) simt::detail::cuda().push(s, work);
    return cudaSuccess;
  });
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return simt::detail::release("cudaGraphExecDestroy", [&] {
    if (simt::detail::cuda().execs.erase(exec) == 0) return cudaErrorInvalidValue;
    delete exec;
    --simt::counts.graph_execs;
    return cudaSuccess;
  });
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return simt::detail::release("cudaGraphDestroy", [&] {
    if (simt::detail::cuda().graphs.erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    --simt::counts.graphs;
    return cudaSuccess;
  });
}

// --- Kernels. --------------------------------------------------------------------------------------------------------

inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  return simt::detail::call("cudaFuncGetAttributes", [&] {
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (!simt::device.kernel_image) return cudaErrorNoKernelImageForDevice;
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = simt::device.major * 10 + simt::device.minor;
    attributes->maxDynamicSharedSizeBytes = simt::detail::cuda().max_shared(kernel);
    return cudaSuccess;
  });
}
template <class... Params>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(Params...)) {
  return cudaFuncGetAttributes(attributes, simt::detail::address(kernel));
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return simt::detail::call("cudaFuncSetAttribute", [&] {
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (!simt::device.kernel_image) return cudaErrorNoKernelImageForDevice;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value > simt::detail::Runtime::shared_bytes_optin) {
      return cudaErrorInvalidValue;
    }
    simt::detail::cuda().set_max_shared(kernel, value);
    return cudaSuccess;
  });
}
template <class... Params>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Params...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(simt::detail::address(kernel), attribute, value);
}
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads,
                                                                 std::size_t shared_bytes) {
  return simt::detail::call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (!simt::device.kernel_image) return cudaErrorNoKernelImageForDevice;
    if (threads <= 0) return cudaErrorInvalidValue;
    const int by_memory = (simt::detail::Runtime::shared_bytes_optin + 1024) / (static_cast<int>(shared_bytes) + 1024);
    *blocks = threads > 1024 ? 0 : std::min({32, 2048 / threads, by_memory});
    return cudaSuccess;
  });
}
template <class... Params>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(Params...), int threads,
                                                          std::size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, simt::detail::address(kernel), threads, shared_bytes);
}

/// The arguments become the kernel's parameters here, and each of its threads gets a copy.
template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  static_assert((std::size_t{0} + ... + sizeof(Params)) <= 32764, "CUDA passes no more than 32764 bytes to a kernel");
  static_assert((!std::is_reference_v<Params> && ...), "a kernel takes its parameters by value");
  const auto enqueue = [&](const Params&... params) {
    return simt::detail::cuda().launch(
        *config, simt::detail::address(kernel),
        [kernel, params...](const simt::Launch& how) { simt::launch(how, kernel, params...); });
  };
  return simt::detail::call("cudaLaunchKernelEx", [&] { return enqueue(std::forward<Args>(args)...); });
}
