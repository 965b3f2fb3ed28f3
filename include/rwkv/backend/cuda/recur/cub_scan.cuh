#pragma once
/// Scans over time by CUB, for kernels of your own: with the `compose` of any scannable cell.
#include <cstddef>
#include <cub/block/block_scan.cuh>
#include <cub/device/device_scan.cuh>

#include "rwkv/backend/cuda/recur/scan.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// A cell's `compose` as a binary operator.
template <Scannable C>
struct Compose {
  /// Two stretches as one.
  template <class Stretch>
  RWKV_HD Stretch operator()(const Stretch& earlier, const Stretch& later) const {
    return C::compose(earlier, later);
  }
};

/// A scan over the tokens of one channel by a block of `Threads` threads in one dimension, a token for each thread:
///
///     __shared__ typename TimeScan<WKV4, float, 128>::Storage storage;
///     TimeScan<WKV4, float, 128>(storage).states_block(x, state);  // from in front of the block to the token's own
///     const auto y = WKV4::step(state, x);                         // to behind the token
///
/// All threads of the block call states_block, with the same state. Put a barrier between two uses of the storage.
template <Scannable C, class T, int Threads>
class TimeScan {
 public:
  using Number = One<T>;                                                   ///< what the cell computes in
  using Stretch = gpu::stretch_t<C, Number>;                               ///< of the cell's `lift`
  using Storage = typename cub::BlockScan<Stretch, Threads>::TempStorage;  ///< shared memory of the block

  /// Over memory that all threads of the block share.
  __device__ explicit TimeScan(Storage& storage) : storage_(storage) {}

  /// Takes the state in front of the block's tokens to the one in front of the thread's token. Returns the stretch
  /// of all tokens of the block.
  __device__ Stretch states_block(const Number (&x)[input_count<C>], Number (&state)[C::state_size]) const {
    const Stretch token = C::lift(x);
    Stretch before = token, all = token;  // unused by the first thread, which has no token before its own
    cub::BlockScan<Stretch, Threads>(storage_).ExclusiveScan(token, before, Compose<C>(), all);
    if (threadIdx.x > 0) C::enter(state, before);
    return all;
  }

 private:
  Storage& storage_;
};

/// scanned[i] = the composition of stretches[0] to stretches[i], all of one channel. CUB chooses the order of
/// compositions: two runs may differ in their last bits, unlike with recur. A dry call takes the scratch and does no more.
/// Shapes    stretches, scanned: [count], contiguous memory of the device
/// Errors    those of CUDA
template <Scannable C, class Stretch>
void scan_stretches(const CudaStream& stream, bool dry, Arena scratch, const Stretch* stretches, Stretch* scanned,
                    Index count) {
  const gpu::CurrentDevice current(stream.device());
  std::size_t bytes = 0;
  RWKV_CUDA_TRY(
      cub::DeviceScan::InclusiveScan(nullptr, bytes, stretches, scanned, Compose<C>(), count, stream.handle()));
  auto* temporary = scratch.take<std::byte>(static_cast<Index>(bytes));
  if (dry || count == 0) return;
  RWKV_CUDA_TRY(
      cub::DeviceScan::InclusiveScan(temporary, bytes, stretches, scanned, Compose<C>(), count, stream.handle()));
}

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
