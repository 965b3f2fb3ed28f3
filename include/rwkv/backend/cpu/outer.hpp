#pragma once
/// The products of a backward pass, y (+)= x w and y (+)= x^T w, from outer products: a block of outputs stays in
/// registers while a column of x meets a row of w, again and again along the axis they share. Both factors are first
/// copied, stretch by stretch, into the order in which they are read: rows a power of two apart would fall into the same
/// few places of a cache. The copies lie on the stack, some 160 KB in each thread; nothing is allocated.
///
/// The terms of an output are added in order: each stretch of the shared axis is a chain of fused multiply-adds, and
/// the stretches are added one after the other. A stretch is as long as the type and the vector width say, so an output
/// has the same bits whatever the other rows and columns, the tile or the number of threads.
#include <algorithm>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/product.hpp"

namespace rwkv::inline RWKV_ABI::inline RWKV_CPU_ABI {

namespace outer {

#if RWKV_SIMD_BYTES == 64 || defined(__aarch64__)
inline constexpr int block_rows = 12;  // 32 registers: 24 sums, two packs of w and numbers of x
#else
inline constexpr int block_rows = 6;  // 16 registers: 12 sums, two packs of w and a number of x
#endif

/// Bytes of a strip of w: it stays in the first-level cache while the strips of x pass.
inline constexpr Index w_strip_bytes = 16'384;
/// Bytes of all strips of x in a tile: they stay in a second-level cache while the strips of w pass.
inline constexpr Index x_strips_bytes = 147'456;
inline constexpr Index longest_stretch = 256;
/// Columns of a tile: enough to pay for its copy of x, few enough to leave tiles for several threads.
inline constexpr Index tile_cols = 256;

/// The sizes of the copies in type T. A strip of x is block_rows wide, a strip of w `cols`.
template <class T>
struct Strips {
  static constexpr int cols = 2 * Widest<T>::size;
  static constexpr Index depth = std::clamp<Index>(w_strip_bytes / (cols * Index{sizeof(T)}), 1, longest_stretch);
  static constexpr Index x_numbers = block_rows * depth;
  static constexpr Index x_strips = std::max<Index>(1, x_strips_bytes / (x_numbers * Index{sizeof(T)}));
};

/// An output [rows, cols] cut into tiles as equal as whole blocks allow.
template <class T>
class Tiles {
 public:
  constexpr Tiles(Index rows, Index cols)
      : rows_(rows), cols_(cols), tile_rows_(even_part(rows, block_rows, Strips<T>::x_strips)),
        tile_cols_(even_part(cols, Strips<T>::cols, std::max<Index>(1, tile_cols / Strips<T>::cols))) {}

  constexpr Index count() const { return down() * across(); }
  constexpr Index first_row(Index tile) const { return tile / across() * tile_rows_; }
  constexpr Index last_row(Index tile) const { return std::min(rows_, first_row(tile) + tile_rows_); }
  constexpr Index first_col(Index tile) const { return tile % across() * tile_cols_; }
  constexpr Index last_col(Index tile) const { return std::min(cols_, first_col(tile) + tile_cols_); }

 private:
  static constexpr Index parts(Index whole, Index part) { return (whole + part - 1) / part; }
  /// The size of a part, of at most `most` blocks, when as few parts as possible share the blocks evenly.
  static constexpr Index even_part(Index size, Index block, Index most) {
    const Index blocks = std::max<Index>(1, parts(size, block));
    return parts(blocks, parts(blocks, most)) * block;
  }
  constexpr Index down() const { return parts(rows_, tile_rows_); }
  constexpr Index across() const { return parts(cols_, tile_cols_); }

  Index rows_, cols_, tile_rows_, tile_cols_;
};

/// Copies x(row + i, k) into strips of block_rows rows, each row contiguous; zeros fill the last strip.
template <class T>
void copy_x(Mat<const T> x, Index row, Index last_row, Index begin, Index depth, T* strips) {
  for (; row < last_row; row += block_rows, strips += Strips<T>::x_numbers) {
    for (Index i = 0; i < block_rows; ++i) {
      T* to = strips + i * Strips<T>::depth;
      if (row + i < last_row) std::copy_n(x.row(row + i) + begin, depth, to);
      else std::fill_n(to, depth, T(0));
    }
  }
}

/// Copies x(k, row + i) into strips of block_rows columns, the numbers of one k together; zeros fill the last strip.
template <class T>
void copy_transposed_x(Mat<const T> x, Index row, Index last_row, Index begin, Index depth, T* strips) {
  for (Index k = 0; k < depth; ++k) {
    const T* from = x.row(begin + k);
    T* to = strips + k * block_rows;
    Index r = row;
    for (; r + block_rows <= last_row; r += block_rows, to += Strips<T>::x_numbers) {
      std::copy_n(from + r, block_rows, to);
    }
    if (r < last_row) std::fill(std::copy_n(from + r, last_row - r, to), to + block_rows, T(0));
  }
}

/// Copies the columns of w from `col` on, at most a strip of them, widened; zeros fill the strip.
template <class T, class W>
void copy_w(Mat<const W> w, Index col, Index last_col, Index begin, Index depth, T* strip) {
  using R = Widest<T>;
  if (col + Strips<T>::cols <= last_col) {
    for (Index k = 0; k < depth; ++k, strip += Strips<T>::cols) {
      const W* from = w.row(begin + k) + col;
      R::load(from).store(strip);
      R::load(from + R::size).store(strip + R::size);
    }
  } else {
    for (Index k = 0; k < depth; ++k, strip += Strips<T>::cols) {
      for (Index c = 0; c < Strips<T>::cols; ++c) {
        strip[c] = col + c < last_col ? widen<T>(w(begin + k, col + c)) : T(0);
      }
    }
  }
}

/// One block of outputs, at most [block_rows, Strips<T>::cols]: y = or += the product of a strip of x, whose numbers
/// (row, k) lie at row * RowStep + k * DepthStep, and a strip of w.
template <Index RowStep, Index DepthStep, class T>
[[gnu::noinline]] void multiply_strips(Mat<T> y, const T* x, const T* w, Index depth, bool add) {
  using R = Widest<T>;
  R sums[block_rows][2];
  for (Index r = 0; r < y.rows; ++r) dot::prefetch(y.row(r), 0);
  RWKV_UNROLL for (int i = 0; i < block_rows; ++i) sums[i][0] = sums[i][1] = R(0);
  for (Index k = 0; k < depth; ++k) {
    R left = R::load(w), right = R::load(w + R::size);
    dot::keep_in_register(left);
    dot::keep_in_register(right);
    RWKV_UNROLL for (int i = 0; i < block_rows; ++i) {
      const R number(x[i * RowStep]);
      sums[i][0] += number * left;
      sums[i][1] += number * right;
    }
    x += DepthStep;
    w += Strips<T>::cols;
  }
  if (y.rows == block_rows && y.cols == Strips<T>::cols) {
    RWKV_UNROLL for (int i = 0; i < block_rows; ++i) {
      RWKV_UNROLL for (int j = 0; j < 2; ++j) {
        T* to = y.row(i) + j * R::size;
        (add ? R::load(to) + sums[i][j] : sums[i][j]).store(to);
      }
    }
  } else {
    T block[block_rows][Strips<T>::cols];
    RWKV_UNROLL for (int i = 0; i < block_rows; ++i) {
      RWKV_UNROLL for (int j = 0; j < 2; ++j) sums[i][j].store(block[i] + j * R::size);
    }
    for (Index r = 0; r < y.rows; ++r) {
      for (Index c = 0; c < y.cols; ++c) y(r, c) = add ? y(r, c) + block[r][c] : block[r][c];
    }
  }
}

/// One tile of a product. One instantiation per pair of types, shared by all callers.
template <class T, class W>
[[gnu::noinline]] void outer_tile(const PlainProduct<T, W>& product, Index tile) {
  const auto& [y, x, w, transposed, added] = product;
  const Tiles<T> tiles(y.rows, y.cols);
  const Index first_row = tiles.first_row(tile), last_row = tiles.last_row(tile);
  const Index first_col = tiles.first_col(tile), last_col = tiles.last_col(tile);
  alignas(64) T x_strips[Strips<T>::x_strips * Strips<T>::x_numbers];
  alignas(64) T w_strip[Strips<T>::cols * Strips<T>::depth];
  if (w.rows == 0 && added) return;
  Index begin = 0;
  do {  // once for an empty axis, whose sums are zero
    const Index depth = std::min(Strips<T>::depth, w.rows - begin);
    const bool add = added || begin > 0;
    if (transposed) copy_transposed_x(x, first_row, last_row, begin, depth, x_strips);
    else copy_x(x, first_row, last_row, begin, depth, x_strips);
    for (Index col = first_col; col < last_col; col += Strips<T>::cols) {
      copy_w(w, col, last_col, begin, depth, w_strip);
      const T* strip = x_strips;
      for (Index row = first_row; row < last_row; row += block_rows, strip += Strips<T>::x_numbers) {
        const Mat<T> block{&y(row, col), std::min<Index>(block_rows, last_row - row),
                           std::min<Index>(Strips<T>::cols, last_col - col), y.stride};
        if (transposed) multiply_strips<1, block_rows>(block, strip, w_strip, depth, add);
        else multiply_strips<Strips<T>::depth, 1>(block, strip, w_strip, depth, add);
      }
    }
    begin += Strips<T>::depth;
  } while (begin < w.rows);
}

}  // namespace outer

}  // namespace rwkv::inline RWKV_ABI::inline RWKV_CPU_ABI
