#pragma once
/// Sums over tokens, as row programs and the adjoints of recurrences have them for per-channel parameters.
///
/// 1. The kernel of the program cuts the tokens into parts. Each part stores its sums: [part, sum, channel].
/// 2. add_partial_kernel adds the parts of a channel, a warp every eighth part, and then the warps in order.
///
/// The order of additions depends on the number of parts alone.
#include <tuple>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The sums of all parts: numbers [part, sum, width].
template <class T>
struct Partial {
  T* numbers;
  Index width;

  /// Stores the sums of one part for the channels of a lane: all but the last number, which only keeps `sums` from
  /// being an empty array.
  template <class R, int Count>
  RWKV_HD void store(Index part, Index lane, const Numbers<R, Count>& sums) const {
    RWKV_UNROLL for (int n = 0; n + 1 < Count; ++n) sums.v[n].store(numbers + (part * (Count - 1) + n) * width + lane);
  }
};

inline constexpr int partial_warps = 8;

/// Adds the parts of sum n to the n-th address; skipped when that is null (frozen parameter). Blocks are (32 channels,
/// sum).
template <class T, class... U>
RWKV_KERNEL void __launch_bounds__(warp_size* partial_warps)
    add_partial_kernel(Partial<T> partial, Index parts, U*... to) {
  constexpr Index sums = sizeof...(U);
  __shared__ detail::SharedElement<T> totals[partial_warps][warp_size];
  const int lane = static_cast<int>(threadIdx.x % warp_size), warp = static_cast<int>(threadIdx.x / warp_size);
  const Index channel = Index{blockIdx.x} * warp_size + lane;
  T total(0);
  if (channel < partial.width) {
    for (Index part = warp; part < parts; part += partial_warps) {
      total += partial.numbers[(part * sums + blockIdx.y) * partial.width + channel];
    }
  }
  totals[warp][lane] = total;
  __syncthreads();
  if (warp > 0 || channel >= partial.width) return;
  for (int w = 1; w < partial_warps; ++w) total += static_cast<T>(totals[w][lane]);
  unsigned nth = blockIdx.y;
  const auto add = [&]<class V>(V* sum) {
    if (nth-- == 0 && sum != nullptr) sum[channel] = narrow<V>(widen<T>(sum[channel]) + total);
  };
  (add(to), ...);
}

/// The address that a `sum` is added to; nothing for other operands.
template <class Op>
auto sum_address(const Op& op) {
  if constexpr (detail::is_sum<Op>) return std::tuple(op.p.data);
  else return std::tuple<>();
}

/// Adds the parts to the operands that are `sum`s, in one launch. Does not launch when all of them are null.
template <class T, class... Op>
void add_partial(const CudaStream& stream, Partial<T> partial, Index parts, const Op&... ops) {
  constexpr auto sums = static_cast<unsigned>(detail::sum_count<Op...>);
  if constexpr (sums > 0) {
    const auto launch = [&]<class... U>(U*... to) {
      if (parts == 0 || ((to == nullptr) && ...)) return;
      stream.launch({.grid = {blocks_for(partial.width, warp_size), sums}, .block = {warp_size * partial_warps}},
                    add_partial_kernel<T, U...>, partial, parts, to...);
    };
    std::apply(launch, std::tuple_cat(sum_address(ops)...));
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
