#pragma once
/// Stands in for CUB's header, in tests only: scans from left to right as one operation of a stream.
#include <cuda_runtime.h>

namespace cub {

struct DeviceScan {
  /// Without temporary memory only sets its size, as CUB does.
  template <class In, class Out, class Op, class Size>
  static cudaError_t InclusiveScan(void* temporary, std::size_t& bytes, In in, Out out, Op op, Size size,
                                   cudaStream_t stream = nullptr) {
    return queue(temporary, bytes, stream, [=]() mutable {
      if (size <= 0) return;
      auto sum = *in;
      *out = sum;
      for (Size i = 1; i < size; ++i) *++out = sum = op(sum, *++in);
    });
  }
  template <class In, class Out, class Op, class T, class Size>
  static cudaError_t ExclusiveScan(void* temporary, std::size_t& bytes, In in, Out out, Op op, T initial, Size size,
                                   cudaStream_t stream = nullptr) {
    return queue(temporary, bytes, stream, [=]() mutable {
      T sum = initial;
      for (Size i = 0; i < size; ++i, ++in, ++out) {
        const T next = op(sum, *in);
        *out = sum;
        sum = next;
      }
    });
  }

 private:
  template <class F>
  static cudaError_t queue(void* temporary, std::size_t& bytes, cudaStream_t stream, F scan) {
    constexpr std::size_t needed = 256;
    if (temporary == nullptr) {
      bytes = needed;
      return cudaSuccess;
    }
    return simt::detail::on_stream("cub::DeviceScan", stream, [&](CUstream_st& s) {
      if (bytes < needed) return cudaErrorInvalidValue;
      if (!simt::device.kernel_image) return cudaErrorNoKernelImageForDevice;
      simt::detail::cuda().push(s, [scan] {
        ++simt::counts.launches;
        auto fresh = scan;  // a graph runs it again
        fresh();
      });
      return cudaSuccess;
    });
  }
};

}  // namespace cub
