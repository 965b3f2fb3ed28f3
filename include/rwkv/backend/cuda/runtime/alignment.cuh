#pragma once
/// Whether memory is aligned for vector accesses. The host decides it for a whole launch.
#include <cstdint>

#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/backend/operand.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Whether N neighbouring numbers from `data` on are one aligned vector, in every row when rows are `stride` apart.
template <int N, class T>
bool is_aligned(const T* data, Index stride = 0) {
  return reinterpret_cast<std::uintptr_t>(data) % (sizeof(T) * N) == 0 && stride % N == 0;
}

/// Whether every row of a matrix begins at a multiple of 16 bytes.
template <class T>
bool rows_aligned(const T* data, Index rows, Index stride) {
  return is_aligned<16 / int{sizeof(T)}>(data, rows <= 1 ? 0 : stride);
}

/// Whether is_aligned holds for every row of a matrix, or for every row that a kernel accesses of an operand. A
/// `sum` is always aligned: the kernel that adds to it writes single numbers.
template <int N, class T, Index M>
bool operand_aligned(const Mat<T, M>& m) {
  return is_aligned<N>(m.data, m.stride);
}
template <int N, class Op>
bool operand_aligned(const Op& op) {
  if constexpr (detail::is_sum<Op>) {
    return true;
  } else if constexpr (requires { op.operand; }) {
    return operand_aligned<N>(op.operand);
  } else if constexpr (requires { op.p; }) {
    return is_aligned<N>(op.p.data);
  } else {
    bool all = true;
    if constexpr (detail::is_output<Op>) all = is_aligned<N>(op.y.data, op.y.width);
    else all = is_aligned<N>(op.x.data, op.x.width);
    if constexpr (requires { op.before; }) all = all && operand_aligned<N>(op.before);
    if constexpr (requires { op.dlast; }) all = all && operand_aligned<N>(op.dlast) && operand_aligned<N>(op.dfirst);
    return all;
  }
}

/// Whether a thread may take N neighbouring lanes of all operands.
template <int N, class... Op>
bool lanes_aligned(Index width, const Op&... ops) {
  return width % N == 0 && (operand_aligned<N>(ops) && ...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
