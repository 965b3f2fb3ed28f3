#pragma once
/// Work as what its blocks do, apart from the kernel they belong to: a kernel does one piece of work, or one and, when
/// all of that is done, another.
///
/// Work has the number of its `blocks`, each of work_threads threads, and run(block, wait), the part of a block, which
/// calls wait() before it reads what was computed in front of it. The first of two waits for nothing, run(block), and
/// has the `shared_bytes` of a block and the `resident` blocks of a multiprocessor that its registers leave room for; 0
/// lets the compiler choose.
#include "rwkv/backend/cuda/runtime/device.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int work_threads = 256;

/// Where the blocks of a launch of two pieces of work find out whose turn it is; zeros when the launch begins.
struct Turn {
  unsigned tickets, done;
};

template <class Work>
RWKV_KERNEL void __launch_bounds__(work_threads) work_kernel(Work work) {
  detail::let_successor_begin();
  work.run(blockIdx.x, [] { detail::wait_for_predecessor(); });
}

/// Blocks take tickets, so that those of the second piece of work wait for blocks that run already.
template <class First, class Second>
RWKV_KERNEL void __launch_bounds__(work_threads, First::resident)
    in_turn_kernel(First first, Second second, Turn* turn) {
  __shared__ detail::Shared<unsigned> ticket;
  detail::let_successor_begin();
  detail::wait_for_predecessor();
  if (threadIdx.x == 0) ticket = atomicAdd(&turn->tickets, 1u);
  __syncthreads();
  const unsigned block = ticket;
  if (block < first.blocks) {
    first.run(block);
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(&turn->done, 1u);
    }
  } else {
    const unsigned* const done = &turn->done;
    const unsigned blocks = first.blocks;
    second.run(block - blocks, [done, blocks] {
      if (threadIdx.x == 0) detail::wait_for_count(done, blocks);
      __syncthreads();
    });
  }
}

/// `early`: see CudaStream::Shape.
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
