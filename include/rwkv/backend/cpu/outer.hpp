#pragma once
/// The products of a backward pass, y (+)= x w and y (+)= x^T w, from outer products: a block of outputs stays in
/// registers and accumulates one outer product (column of x, row of w) per term of the shared axis. Both factors are
/// first copied, stretch by stretch, into the order in which they are read, because rows a power of two apart would map
/// to the same few cache sets. The copies take about 210 KB of stack in each thread; nothing is allocated.
///
/// The terms of an output are added in order: each stretch of the shared axis is a chain of fused multiply-adds, and
/// the stretches are added one after the other. The length of a stretch depends only on the type and the vector width.
/// So an output has the same bits whatever the other rows and columns, the tile or the number of threads.
#include <algorithm>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/product.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace outer {

#if RWKV_SIMD_BYTES == 64 || defined(__aarch64__)
inline constexpr int block_rows = 12;  // 32 registers: 24 sums, two packs of w and numbers of x
#else
inline constexpr int block_rows = 6;  // 16 registers: 12 sums, two packs of w and a number of x
#endif

/// Consecutive terms of a row in a copy of x. A stretch is padded with zeros to whole groups.
inline constexpr int group = 4;
/// The longest stretch of the shared axis that is copied and summed at a time.
inline constexpr Index longest_stretch = 256;
/// Bytes of a strip of w: it stays in the L1 cache while the strips of x stream by.
inline constexpr Index w_strip_bytes = 16'384;
/// Bytes of the strips of w that are copied together: enough columns for sequential reads that the hardware prefetches.
inline constexpr Index w_strips_bytes = 32'768;
/// Bytes of all strips of x in a tile: they stay in the L2 cache while the strips of w stream by.
inline constexpr Index x_strips_bytes = 147'456;
/// Columns of a tile. Many columns amortise the copy of x. Tiles get narrower while a product has fewer than
/// `least_tiles` of them, so that several threads can share it.
inline constexpr Index most_tile_cols = 512, least_tile_cols = 128, least_tiles = 8;

/// The sizes of the copies in type T: strips of block_rows rows of x and of `cols` columns of w.
template <class T>
struct Strips {
  static constexpr int cols = 2 * Widest<T>::size;
  static constexpr Index depth =
      std::clamp<Index>(w_strip_bytes / (cols * Index{sizeof(T)}) / group * group, group, longest_stretch);
  static constexpr Index x_size = block_rows * depth;
  static constexpr Index w_size = cols * (depth + 1);  // padded by one term: strips must not share cache sets
  static constexpr Index x_count = std::max<Index>(1, x_strips_bytes / (x_size * Index{sizeof(T)}));
  static constexpr Index w_count = std::max<Index>(1, w_strips_bytes / (cols * depth * Index{sizeof(T)}));
};

using dot::parts;
constexpr Index whole_groups(Index depth) { return parts(depth, group) * group; }

/// Divides an output [rows, cols] into tiles of whole blocks, as equal as possible.
template <class T>
class Tiles {
 public:
  constexpr Tiles(Index rows, Index cols)
      : rows_(rows), cols_(cols), tile_rows_(even_part(rows, block_rows, Strips<T>::x_count)) {
    Index most = most_tile_cols;
    do {
      tile_cols_ = even_part(cols, Strips<T>::cols, std::max<Index>(1, most / Strips<T>::cols));
      most /= 2;
    } while (count() < least_tiles && most >= least_tile_cols);
  }

  constexpr Index count() const { return down() * across(); }
  constexpr Index first_row(Index tile) const { return tile / across() * tile_rows_; }
  constexpr Index last_row(Index tile) const { return std::min(rows_, first_row(tile) + tile_rows_); }
  constexpr Index first_col(Index tile) const { return tile % across() * tile_cols_; }
  constexpr Index last_col(Index tile) const { return std::min(cols_, first_col(tile) + tile_cols_); }

 private:
  /// The size of each part when `size` is divided evenly into the fewest parts of at most `most` blocks.
  static constexpr Index even_part(Index size, Index block, Index most) {
    const Index blocks = std::max<Index>(1, parts(size, block));
    return parts(blocks, parts(blocks, most)) * block;
  }
  constexpr Index down() const { return parts(rows_, tile_rows_); }
  constexpr Index across() const { return parts(cols_, tile_cols_); }

  Index rows_, cols_, tile_rows_, tile_cols_ = 1;
};

/// to[i] = from[i], inline: std::copy_n would call memmove for a few numbers.
template <int Count, class T>
RWKV_INLINE void copy_few(const T* from, T* to) {
  T numbers[Count];
  RWKV_UNROLL for (int i = 0; i < Count; ++i) numbers[i] = from[i];
  RWKV_UNROLL for (int i = 0; i < Count; ++i) to[i] = numbers[i];
}

/// Copies x(row + i, begin + k) into strips of layout [group of terms][row][term].
template <class T>
void copy_x(Mat<const T> x, Index row, Index last_row, Index begin, Index depth, T* strips) {
  for (; row < last_row; row += block_rows, strips += Strips<T>::x_size) {
    for (Index i = 0; i < block_rows; ++i) {
      T* to = strips + i * group;
      Index k = 0;
      if (row + i < last_row) {
        const T* from = x.row(row + i) + begin;
        for (; k + group <= depth; k += group, to += block_rows * group) copy_few<group>(from + k, to);
        if (k < depth) std::fill(std::copy_n(from + k, depth - k, to), to + group, T(0));
      } else {
        for (; k < depth; k += group, to += block_rows * group) std::fill_n(to, group, T(0));
      }
    }
  }
}

/// Copies x(begin + k, row + i) into strips of layout [term][row].
template <class T>
void copy_transposed_x(Mat<const T> x, Index row, Index last_row, Index begin, Index depth, T* strips) {
  for (Index k = 0; k < whole_groups(depth); ++k) {
    T* to = strips + k * block_rows;
    Index r = row;
    if (k < depth) {
      const T* from = x.row(begin + k);
      for (; r + block_rows <= last_row; r += block_rows, to += Strips<T>::x_size) {
        copy_few<block_rows>(from + r, to);
      }
      if (r < last_row) std::fill(std::copy_n(from + r, last_row - r, to), to + block_rows, T(0));
    } else {
      for (; r < last_row; r += block_rows, to += Strips<T>::x_size) std::fill_n(to, block_rows, T(0));
    }
  }
}

/// Copies a piece of w, at most [Strips<T>::depth, Strips<T>::w_count * Strips<T>::cols], widened into strips of layout
/// [term][column]. The copy is interleaved with the multiplication of the previous piece, a few terms at a time, and
/// prefetches the terms of the next call. So the multiplications do not wait for memory.
template <class T, class W>
class CopyOfW {
 public:
  CopyOfW(Mat<const W> w, Index begin, Index depth, Index col, Index last_col, T* strips)
      : w_(w), begin_(begin), depth_(depth), col_(col), last_col_(last_col), strips_(strips) {}

  void advance(Index terms) {
    const Index end = std::min(whole_groups(depth_), done_ + terms);
    for (; done_ < end; ++done_) {
      if (done_ + terms < depth_) fetch(w_.row(begin_ + done_ + terms));
      T* to = strips_ + done_ * cols;
      Index c = col_;
      if (done_ < depth_) {
        const W* from = w_.row(begin_ + done_);
        for (; c + cols <= last_col_; c += cols, to += Strips<T>::w_size) {
          R::load(from + c).store(to);
          R::load(from + c + R::size).store(to + R::size);
        }
        if (c < last_col_) {
          for (int j = 0; j < cols; ++j) to[j] = c + j < last_col_ ? widen<T>(from[c + j]) : T(0);
        }
      } else {
        for (; c < last_col_; c += cols, to += Strips<T>::w_size) std::fill_n(to, cols, T(0));
      }
    }
  }

 private:
  using R = Widest<T>;
  static constexpr int cols = Strips<T>::cols;

  void fetch(const W* row) const {
    constexpr Index line = std::max<Index>(1, 64 / Index{sizeof(W)});
    for (Index c = col_; c < last_col_; c += line) dot::prefetch(row + c, 0);
    dot::prefetch(row + last_col_ - 1, 0);
  }

  Mat<const W> w_;
  Index begin_, depth_, col_, last_col_;
  T* strips_;
  Index done_ = 0;
};

/// One block of outputs, at most [Rows, Strips<T>::cols]: y = or += the product of a strip of x and a strip of w. Within a
/// group of the x strip, row i and term k are at i * RowStep + k * TermStep.
template <int Rows, int RowStep, int TermStep, class T>
[[gnu::noinline]] void multiply_block(Mat<T> y, const T* x, const T* w, Index depth, bool add) {
  using R = Widest<T>;
  R sums[Rows][2];
  for (Index r = 0; r < y.rows; ++r) dot::prefetch(y.row(r), 0);
  RWKV_UNROLL for (int i = 0; i < Rows; ++i) sums[i][0] = sums[i][1] = R(0);
  for (Index begin = 0; begin < depth; begin += group) {
    RWKV_UNROLL for (int k = 0; k < group; ++k) {
      R left = R::load(w), right = R::load(w + R::size);
      dot::keep_in_register(left);
      dot::keep_in_register(right);
      w += Strips<T>::cols;
      RWKV_UNROLL for (int i = 0; i < Rows; ++i) {
        const R number(x[i * RowStep + k * TermStep]);
        sums[i][0] = multiply_add(number, left, sums[i][0]);
        sums[i][1] = multiply_add(number, right, sums[i][1]);
      }
    }
    x += block_rows * group;
  }
  if (y.rows == Rows && y.cols == Strips<T>::cols) {
    RWKV_UNROLL for (int i = 0; i < Rows; ++i) {
      RWKV_UNROLL for (int j = 0; j < 2; ++j) {
        T* to = y.row(i) + j * R::size;
        (add ? R::load(to) + sums[i][j] : sums[i][j]).store(to);
      }
    }
  } else {
    T block[Rows][Strips<T>::cols];
    RWKV_UNROLL for (int i = 0; i < Rows; ++i) {
      RWKV_UNROLL for (int j = 0; j < 2; ++j) sums[i][j].store(block[i] + j * R::size);
    }
    for (Index r = 0; r < y.rows; ++r) {
      for (Index c = 0; c < y.cols; ++c) y(r, c) = add ? y(r, c) + block[r][c] : block[r][c];
    }
  }
}

/// The same with as many rows as y needs, in thirds of a block: powers of two leave one or two.
template <int RowStep, int TermStep, class T>
void multiply_strips(Mat<T> y, const T* x, const T* w, Index depth, bool add) {
  constexpr int third = block_rows / 3;
  if (y.rows > 2 * third) multiply_block<block_rows, RowStep, TermStep>(y, x, w, depth, add);
  else if (y.rows > third) multiply_block<2 * third, RowStep, TermStep>(y, x, w, depth, add);
  else multiply_block<third, RowStep, TermStep>(y, x, w, depth, add);
}

/// One tile of a product. Not inlined: compiled once for each pair of types.
template <class T, class W>
[[gnu::noinline]] void outer_tile(const PlainProduct<T, W>& product, Index tile) {
  const Mat<T> y = product.y;
  const Mat<const T> x = product.x;
  const Mat<const W> w = product.w;
  using Strip = Strips<T>;
  alignas(64) T x_strips[Strip::x_count * Strip::x_size];
  alignas(64) T w_strips[2][Strip::w_count * Strip::w_size];
  if (w.rows == 0 && product.added) return;
  const Tiles<T> tiles(y.rows, y.cols);
  const Index first_row = tiles.first_row(tile), last_row = tiles.last_row(tile);
  const Index first_col = tiles.first_col(tile), last_col = tiles.last_col(tile);
  const Index stretches = std::max<Index>(1, parts(w.rows, Strip::depth));  // at least one, to write zeros

  // The pieces of w, numbered from left to right within a stretch, then stretch after stretch.
  const Index piece_cols = Strip::w_count * Strip::cols;
  const Index across = parts(last_col - first_col, piece_cols), pieces = stretches * across;
  const auto begin_of = [&](Index piece) { return piece / across * Strip::depth; };
  const auto depth_of = [&](Index piece) { return std::min(Strip::depth, w.rows - begin_of(piece)); };
  const auto first_col_of = [&](Index piece) { return first_col + piece % across * piece_cols; };
  const auto last_col_of = [&](Index piece) { return std::min(last_col, first_col_of(piece) + piece_cols); };
  const auto copy_of = [&](Index piece) {
    return CopyOfW<T, W>(w, begin_of(piece), depth_of(piece), first_col_of(piece), last_col_of(piece),
                         w_strips[piece % 2]);
  };

  if (!product.added) {
    // Zeros written row by row bring the outputs into the cache without a read, which their blocks, far apart, would wait for.
    for (Index row = first_row; row < last_row; ++row) std::fill(&y(row, first_col), &y(row, 0) + last_col, T(0));
  }
  copy_of(0).advance(Strip::depth);
  for (Index piece = 0; piece < pieces; ++piece) {
    const Index begin = begin_of(piece), depth = depth_of(piece);
    if (piece % across == 0) {
      if (product.transposed) copy_transposed_x(x, first_row, last_row, begin, depth, x_strips);
      else copy_x(x, first_row, last_row, begin, depth, x_strips);
    }
    const bool last = piece + 1 == pieces;
    auto next = copy_of(last ? piece : piece + 1);
    const Index blocks =
        parts(last_col_of(piece) - first_col_of(piece), Strip::cols) * parts(last_row - first_row, Index{block_rows});
    const Index terms = last ? 0 : parts(Strip::depth, blocks);
    const T* ws = w_strips[piece % 2];
    for (Index col = first_col_of(piece); col < last_col_of(piece); col += Strip::cols, ws += Strip::w_size) {
      const T* xs = x_strips;
      for (Index row = first_row; row < last_row; row += block_rows, xs += Strip::x_size) {
        const Mat<T> block{&y(row, col), std::min<Index>(block_rows, last_row - row),
                           std::min<Index>(Strip::cols, last_col - col), y.stride};
        const bool add = product.added || begin > 0;
        next.advance(terms);
        if (product.transposed) multiply_strips<1, block_rows>(block, xs, ws, depth, add);
        else multiply_strips<group, 1>(block, xs, ws, depth, add);
      }
    }
  }
}

}  // namespace outer

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
