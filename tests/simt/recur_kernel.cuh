#pragma once
/// One kernel that runs any recurrence, one thread per lane: the library's operands, cells and state layout as a GPU
/// sees them.
#include <cstddef>
#include <type_traits>
#include <utility>

#include "device.hpp"
#include "rwkv/backend/recur.hpp"

namespace simt {

/// A barrier to leave out, for tests that must notice.
enum class Without { nothing, barrier_after_staging, barrier_after_step };

/// Threads of a block: a row cell takes the lanes of one head, a channel cell a stretch of channels.
template <class C, rwkv::Index N>
inline constexpr int recur_threads = rwkv::RowCell<C> ? int{N} : 128;

/// The vectors that the lanes of a head share, at one token, in shared memory.
template <class R, rwkv::Index N>
struct StagedHead {
  const Shared<typename R::scalar> (*vectors)[std::size_t{N}];
  RWKV_HD R operator()(int vector, rwkv::Index n) const {
    return R(static_cast<typename R::scalar>(vectors[vector][n]));
  }
};

/// Runs cell C over all tokens; operands as for the verb `recur`, state [batch, head * component * lane], updated in
/// place. A row cell has heads of N lanes and a grid (heads, batch). A channel cell ignores N; its grid is (width /
/// threads rounded up, batch).
template <class C, rwkv::Index N, class T, Without Removed, class... Op>
__global__ void __launch_bounds__(recur_threads<C, N>) recur_kernel(rwkv::Mat<T> state, Op... ops) {
  using rwkv::Extent, rwkv::Index;
  using R = rwkv::One<T>;
  using Used = rwkv::detail::AllLanes;
  const auto y = rwkv::detail::written(ops...);
  const Index b = blockIdx.y;
  if constexpr (rwkv::RowCell<C>) {
    using Lane = rwkv::detail::Lanes<R, C, N, Used>;
    alignas(16) __shared__ Shared<T> staged[Lane::shared][std::size_t{N}];
    const Index head = blockIdx.x, row = threadIdx.x;
    T* row_state = state.row(b) + head * N * N + row;
    Lane lane;
    lane.first = head * N + row;
    lane.load_state(row_state, Extent<N>{}, N);
    for (Index t = 0; t < y.time; ++t) {
      int vector = 0;
      const auto stage = [&](const auto& op) {
        if constexpr (rwkv::detail::is_shared<std::remove_cvref_t<decltype(op)>>)
          staged[vector++][row] = rwkv::widen<T>(op.row(b, t)[lane.first]);
      };
      (stage(ops), ...);
      if (Removed != Without::barrier_after_staging) __syncthreads();
      R x[Lane::own];
      lane.load_inputs(x, std::index_sequence_for<Op...>(), b, t, ops...);
      C::step(rwkv::LaneState<R, N>{lane.state, {}}, x, StagedHead<R, N>{staged}).store(y.row(b, t) + lane.first);
      if (Removed != Without::barrier_after_step) __syncthreads();
    }
    lane.store_state(row_state, Extent<N>{}, N);
  } else {
    const Index lane = Index{blockIdx.x} * blockDim.x + threadIdx.x;
    if (lane >= y.width) return;
    rwkv::advance_lanes<R, 1>(C{}, Extent<rwkv::dyn>{}, state.row(b), rwkv::LanePlace{b, 0, y.width, lane}, Used{}, 0,
                              y.time, ops...);
  }
}

}  // namespace simt
