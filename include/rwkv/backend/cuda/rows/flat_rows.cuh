#pragma once
/// Row programs over many arrays in one launch.
///
/// 1. The host packs tasks into the parameter of a kernel, which has room for 4 KB.
/// 2. A block finds the task that it works on.
/// 3. A thread applies the program to R::size neighbours. Threads do not cooperate.
#include <algorithm>
#include <span>
#include <utility>

#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/flat_rows.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int flat_threads = 256;

/// The tasks of one launch.
template <class Task>
struct FlatTasks {
  static constexpr int most = static_cast<int>(3840 / (sizeof(Task) + sizeof(unsigned)));
  Task task[most];
  unsigned first_block[most];  ///< of each task; its blocks follow each other
  int count;
};

template <class R, class P, class T, std::size_t Inputs, std::size_t Outputs, std::size_t... In, std::size_t... Out>
__device__ void apply_flat(const FlatRows<P, T, Inputs, Outputs>& task, Index at, std::index_sequence<In...>,
                           std::index_sequence<Out...>) {
  const R in[] = {R::load(task.in[In] + at)...};
  R out[Outputs];
  task.program.map(in[In]..., out[Out]...);
  (out[Out].store(task.out[Out] + at), ...);
}

template <class R, class P, class T, std::size_t Inputs, std::size_t Outputs>
RWKV_KERNEL void __launch_bounds__(flat_threads) flat_rows_kernel(FlatTasks<FlatRows<P, T, Inputs, Outputs>> tasks) {
  int nth = 0;
  while (nth + 1 < tasks.count && tasks.first_block[nth + 1] <= blockIdx.x) ++nth;
  const auto& task = tasks.task[nth];
  const Index at = (Index{blockIdx.x - tasks.first_block[nth]} * flat_threads + threadIdx.x) * R::size;
  if (at < task.rows * task.width) {
    apply_flat<R>(task, at, std::make_index_sequence<Inputs>(), std::make_index_sequence<Outputs>());
  }
}

/// The verb `rows_each`. Aligned and other tasks have launches of their own.
template <class P, class T, std::size_t Inputs, std::size_t Outputs>
void rows_each(const CudaStream& stream, std::span<const FlatRows<P, T, Inputs, Outputs>> tasks) {
  using Task = FlatRows<P, T, Inputs, Outputs>;
  constexpr int channels = static_cast<int>(16 / sizeof(T));
  const auto aligned = [](const Task& task) {
    bool all = task.size() % channels == 0;
    for (const T* pointer : task.in) all = all && is_aligned<channels>(pointer);
    for (const T* pointer : task.out) all = all && is_aligned<channels>(pointer);
    return all;
  };
  const auto run = [&](auto number, bool wanted) {
    using R = decltype(number);
    FlatTasks<Task> together{};
    Index blocks = 0;
    const auto launch = [&] {
      stream.launch({dim3(static_cast<unsigned>(blocks)), dim3(flat_threads)},
                    flat_rows_kernel<R, P, T, Inputs, Outputs>, together);
      together.count = 0;
      blocks = 0;
    };
    for (const Task& task : tasks) {
      const Index own = (task.size() / R::size + flat_threads - 1) / flat_threads;
      if (aligned(task) != wanted || own == 0) continue;
      if (together.count == FlatTasks<Task>::most || blocks + own >= (Index{1} << 31)) launch();
      together.task[together.count] = task;
      together.first_block[together.count++] = static_cast<unsigned>(blocks);
      blocks += own;
    }
    launch();
  };
  run(Several<accumulator_t<T>, channels>(), true);
  run(One<accumulator_t<T>>(), false);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
