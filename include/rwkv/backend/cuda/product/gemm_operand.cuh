#pragma once
/// The factors and outputs of the tile kernels: y[row, col] is the sum over k of x[row, k] * w[col, k].
#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/product.hpp"
#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

using detail::load_piece, detail::load_shared, detail::Piece, detail::SharedElement, detail::store_piece,
    detail::store_shared;

/// The length of an axis as an int, which kernels count in.
inline int extent(Index length) {
  expects(length <= 2'000'000'000, "rwkv: CUDA products have at most 2000000000 rows and columns, not ", length);
  return static_cast<int>(length);
}

/// The axis along which the elements of a factor are neighbours: depth is summed over, outer is an axis of the output.
enum class Along { depth, outer };

/// A factor [size, depth], stored as [size][stride] or [depth][stride].
template <class T, Along axis>
struct Factor {
  using element = T;
  static constexpr Along along = axis;
  const T* data;
  Index stride;
  int size, depth;
  bool aligned;

  Factor(Mat<const T> m)
      : data(m.data), stride(m.stride), size(extent(along == Along::depth ? m.rows : Index(m.cols))),
        depth(extent(along == Along::depth ? Index(m.cols) : m.rows)), aligned(rows_aligned(m.data, m.rows, m.stride)) {
  }

  /// N neighbours from (at, k) on, with zeros beyond the factor. The one of `at` and k that runs along memory is a
  /// multiple of N, so an aligned factor takes vector accesses.
  template <int N>
  __device__ __forceinline__ Piece<T, N> load(int at, int k) const {
    constexpr bool deep = along == Along::depth;
    const T* from = data + (deep ? at * stride + k : k * stride + at);
    const int left = deep ? depth - k : size - at;
    const bool in_row = deep ? at < size : k < depth;
    if (aligned && in_row && left >= N) return load_piece<N>(from);
    Piece<T, N> piece{};
    RWKV_KERNEL_UNROLL for (int i = 0; i < N; ++i) {
      if (in_row && i < left) piece.v[i] = from[i];
    }
    return piece;
  }
};

/// An output [rows, cols]: it is overwritten by epilogue(sum), or added to.
template <class T, class Epilogue>
struct Output {
  using element = T;
  using scalar = accumulator_t<T>;
  T* data;
  Index stride;
  int rows, cols;
  bool aligned, added;
  [[no_unique_address]] Epilogue epilogue;

  Output(Mat<T> m, bool added_to, Epilogue last)
      : data(m.data), stride(m.stride), rows(extent(m.rows)), cols(extent(m.cols)),
        aligned(rows_aligned(m.data, m.rows, m.stride)), added(added_to), epilogue(last) {}

  __device__ __forceinline__ T finish(scalar sum, T before) const {
    return narrow<T>(added ? widen<scalar>(before) + sum : epilogue(One<scalar>(sum)).v);
  }
  /// Stores one sum.
  __device__ __forceinline__ void store(int row, int col, scalar sum) const {
    if (row >= rows || col >= cols) return;
    T* to = data + row * stride + col;
    *to = finish(sum, added ? *to : T());
  }
  /// Stores N neighbouring sums; `col` is a multiple of N.
  template <int N>
  __device__ __forceinline__ void store(int row, int col, const scalar (&sums)[N]) const {
    if (aligned && row < rows && col + N <= cols) {
      T* to = data + row * stride + col;
      Piece<T, N> piece{};
      if (added) piece = load_piece<N>(to);
      RWKV_KERNEL_UNROLL for (int i = 0; i < N; ++i) piece.v[i] = finish(sums[i], piece.v[i]);
      store_piece(to, piece);
    } else {
      RWKV_KERNEL_UNROLL for (int i = 0; i < N; ++i) store(row, col + i, sums[i]);
    }
  }
};

/// The tile of a block. Tiles are numbered in bands of 8 rows of tiles, so that blocks that run at the same time share
/// rows of x and of w in the cache.
struct TilePlace {
  int row, col;

  static __device__ __forceinline__ TilePlace of(unsigned block, int row_tiles, int col_tiles) {
    constexpr int band = 8;
    const unsigned per_band = static_cast<unsigned>(band * col_tiles);
    const int first = static_cast<int>(block / per_band) * band, within = static_cast<int>(block % per_band);
    const int high = row_tiles - first < band ? row_tiles - first : band;
    return {first + within % high, within / high};
  }
};

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
