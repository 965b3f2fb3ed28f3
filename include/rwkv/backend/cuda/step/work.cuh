#pragma once
/// Kernels that are composed: a work is the body of a kernel as an object. A launch runs one work, or two of which the
/// second needs all results of the first, without a grid-wide barrier.
///
/// A work has
///
///     unsigned blocks                  of work_threads threads each
///     run_block(unsigned block, wait)  what block number `block` does. All its threads call wait() before they read
///                                      results of earlier work; what does not depend on these may be loaded before.
///
/// The first of two works has instead
///
///     run_block(unsigned block)        without wait: the launch has waited already
///     shared_bytes                     dynamic shared memory of a block
///     resident                         blocks for each multiprocessor that registers must leave room for; 0: the
///                                      compiler chooses
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int work_threads = 256, work_warps = work_threads / warp_size;

/// The counters of a launch of two works, zero when it begins: blocks that have started, and blocks of the first
/// work that have ended.
struct Turn {
  unsigned tickets, done;
};

/// One work.
template <class Work>
RWKV_KERNEL void __launch_bounds__(work_threads) work_kernel(Work work) {
  detail::let_successor_begin();
  work.run_block(blockIdx.x, [] { detail::wait_for_predecessor(); });
}

/// Two works.
/// 1. Blocks number themselves with an atomic counter, not with blockIdx: blocks of the second work only wait for
///    blocks that are already scheduled, so there is no deadlock.
/// 2. A block of the first work runs it and then raises `done`.
/// 3. A block of the second work waits, inside its own wait(), until all of the first are done.
template <class First, class Second>
RWKV_KERNEL void __launch_bounds__(work_threads, First::resident)
    in_turn_kernel(First first, Second second, Turn* turn) {
  __shared__ detail::SharedElement<unsigned> ticket;
  detail::let_successor_begin();
  detail::wait_for_predecessor();
  if (threadIdx.x == 0) ticket = atomicAdd(&turn->tickets, 1u);
  __syncthreads();
  const unsigned block = ticket;
  if (block < first.blocks) {
    first.run_block(block);
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(&turn->done, 1u);
    }
  } else {
    const unsigned* const done = &turn->done;
    const unsigned blocks = first.blocks;
    second.run_block(block - blocks, [done, blocks] {
      if (threadIdx.x == 0) detail::wait_for_count(done, blocks);
      __syncthreads();
    });
  }
}

/// early    see CudaStream::Shape
template <class Work>
void launch_work(const CudaStream& stream, bool early, const Work& work) {
  stream.launch({.grid = {work.blocks}, .block = {work_threads}, .shared_bytes = 0, .early = early}, work_kernel<Work>,
                work);
}
template <class First, class Second>
void launch_in_turn(const CudaStream& stream, const First& first, const Second& second, Turn* turn) {
  stream.launch({.grid = {first.blocks + second.blocks},
                 .block = {work_threads},
                 .shared_bytes = first.shared_bytes,
                 .early = true},
                in_turn_kernel<First, Second>, first, second, turn);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
