#pragma once
/// The product of a linear layer, y = x w^T, from dot products: both factors are contiguous along the axis they share, so
/// nothing is repacked and nothing is allocated. Every output is one chain of fused multiply-adds whose order depends on
/// the length and the vector width alone. So a token's result has the same bits whatever the batch, the chunk, the tile
/// or the number of threads, and 16-bit weights give the bits of their widened copies.
#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv::inline RWKV_ABI {

namespace detail {

/// y[i][j] = x_i . w_j for X rows of x and W rows of w.
template <int X, int W, class T, class Stored>
RWKV_HD void dot_block(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index out) {
  using R = Widest<T>;
  R sums[X][W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = R(0);
  }
  const T* xs[X];
  const Stored* ws[W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) xs[i] = x.row(row + i);
  RWKV_UNROLL for (int j = 0; j < W; ++j) ws[j] = w.row(out + j);

  const Index length = x.cols;
  Index k = 0;
  for (; k + R::size <= length; k += R::size) {
    R weights[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) weights[j] = R::load(ws[j] + k);
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const R activation = R::load(xs[i] + k);
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] += activation * weights[j];
    }
  }
  if (const int left = static_cast<int>(length - k); left > 0) {
    R weights[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) weights[j] = R::load(ws[j] + k, left);
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const R activation = R::load(xs[i] + k, left);
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] += activation * weights[j];
    }
  }
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) y(row + i, out + j) = sum_lanes(sums[i][j]);
  }
}

/// All rows of x against the rows [begin, end) of w.
template <int X, class T, class Stored>
RWKV_HD void dot_rows(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index begin, Index end) {
  Index out = begin;
  for (; out + 4 <= end; out += 4) dot_block<X, 4>(y, x, w, row, out);
  for (; out < end; ++out) dot_block<X, 1>(y, x, w, row, out);
}

/// One instantiation per pair of types, shared by all callers.
template <class T, class Stored>
[[gnu::noinline]] void dot_tile(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  Index row = 0;
  for (; row + 4 <= x.rows; row += 4) dot_rows<4>(y, x, w, row, begin, end);
  for (; row < x.rows; ++row) dot_rows<1>(y, x, w, row, begin, end);
}

}  // namespace detail

}  // namespace rwkv::inline RWKV_ABI
