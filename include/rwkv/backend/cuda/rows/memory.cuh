#pragma once
/// Filling, gathering and scattering rows: a thread for each column of a row, without cooperation but in scatter_add.
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/operand.hpp"
#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The grid (columns / column_threads, rows). Where a matrix has more rows than a grid, a block takes several.
inline constexpr int column_threads = 256;
inline dim3 column_blocks(Index rows, Index columns) {
  constexpr Index most = 65535;
  return dim3(blocks_for(columns, column_threads), static_cast<unsigned>(rows < most ? rows : most));
}

template <class T>
RWKV_KERNEL void fill_kernel(Mat<T> to, T value) {
  const Index c = Index{blockIdx.x} * column_threads + threadIdx.x;
  if (c >= to.cols) return;
  for (Index r = blockIdx.y; r < to.rows; r += gridDim.y) to(r, c) = value;
}
template <class T>
void fill(const CudaStream& stream, Mat<T> to, T value) {
  stream.launch({column_blocks(to.rows, to.cols), dim3(column_threads)}, fill_kernel<T>, to, value);
}

template <class T, class W>
RWKV_KERNEL void gather_kernel(Mat<const W> table, const Token* rows, Mat<T> to) {
  const Index c = Index{blockIdx.x} * column_threads + threadIdx.x;
  if (c >= to.cols) return;
  for (Index r = blockIdx.y; r < to.rows; r += gridDim.y) to(r, c) = widen<T>(table(rows[r], c));
}
template <class T, class W>
void gather_rows(const CudaStream& stream, Mat<const W> table, const Token* rows, Mat<T> to) {
  stream.launch({column_blocks(to.rows, to.cols), dim3(column_threads)}, gather_kernel<T, W>, table, rows, to);
}

/// Tokens that a block of scatter_add_kernel has in shared memory at a time.
inline constexpr int scatter_stretch = 1024;

/// table[rows[i]] += from[i], in the order of i; a block for each i:
/// 1. The block looks whether its token occurs before i, and ends if so.
/// 2. It adds every row of that token from i on, a thread for each column.
/// So one block alone writes a row of the table, and the order of additions is fixed.
template <class T, class W>
RWKV_KERNEL void scatter_add_kernel(Mat<const T> from, const Token* rows, Mat<W> table) {
  const Index own = blockIdx.x;
  const Token token = rows[own];
  __shared__ detail::SharedElement<int> seen;
  if (threadIdx.x == 0) seen = 0;
  __syncthreads();
  bool found = false;
  for (Index r = threadIdx.x; r < own; r += blockDim.x) found = found || rows[r] == token;
  if (found) atomicExch(&seen, 1);
  __syncthreads();
  if (seen != 0) return;
  __shared__ detail::SharedElement<Token> stretch[scatter_stretch];
  for (Index begin = own; begin < from.rows; begin += scatter_stretch) {
    const Index left = from.rows - begin, count = left < scatter_stretch ? left : scatter_stretch;
    __syncthreads();
    for (Index i = threadIdx.x; i < count; i += blockDim.x) stretch[i] = rows[begin + i];
    __syncthreads();
    for (Index c = threadIdx.x; c < from.cols; c += blockDim.x) {
      auto sum = widen<accumulator_t<W>>(table(token, c));
      for (Index i = 0; i < count; ++i) {
        if (stretch[i] == token) sum += widen<accumulator_t<W>>(from(begin + i, c));
      }
      table(token, c) = narrow<W>(sum);
    }
  }
}
template <class T, class W>
void scatter_add_rows(const CudaStream& stream, Mat<const T> from, const Token* rows, Mat<W> table) {
  expects(from.rows < (Index{1} << 31), "rwkv: ", from.rows, " rows are more than a CUDA grid");
  stream.launch({dim3(static_cast<unsigned>(from.rows)), dim3(column_threads)}, scatter_add_kernel<T, W>, from, rows,
                table);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
