#pragma once
/// The product of a linear layer, y = x w^T, from dot products. Both factors are contiguous along the shared axis, so
/// they are read in place. Only products with many long rows copy blocks, into about 220 KB of stack; nothing is
/// allocated. Every output is one chain of fused multiply-adds whose order depends on the length and the vector width
/// alone. So a token's result has the same bits whatever the batch, the chunk, the tile or the number of threads, and
/// 16-bit weights give the same bits as their widened copies.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace dot {

/// Prefetches the cache line `ahead` numbers after `from`; the address may lie past the end of the matrix.
template <class T>
RWKV_INLINE void prefetch([[maybe_unused]] const T* from, [[maybe_unused]] Index ahead) {
#if defined(__GNUC__)
  const auto address = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(address));
#endif
}

/// Keeps a number in a register. Otherwise g++ folds the load into every use, and loads, not multiplications, become
/// the limit.
template <class R>
RWKV_INLINE void keep_in_register(R&) {}
#if RWKV_SIMD_BYTES > 0 && defined(__x86_64__) && !defined(__clang__)
template <class T, int N>
RWKV_INLINE void keep_in_register(Pack<T, N>& x) {
  asm("" : "+v"(x.v));
}
#endif

/// Rows of x and of w in one block of outputs. The sums and factors fit 16 registers, and every load serves several
/// multiply-adds.
inline constexpr int dot_x_rows = 4;
inline constexpr int dot_w_rows = 3;
/// Outputs in one pass over w. Long rows are read in stretches; between stretches the partial sums are kept in memory.
inline constexpr Index dot_outputs = 64;
/// Bytes of a row of x in one stretch: the x rows of a block stay in the L1 cache while the rows of w stream by.
inline constexpr Index dot_stretch_bytes = 4096;
/// Prefetch distance in the weights for a single row of x, which is memory-bound.
inline constexpr Index dot_prefetch_bytes = 8192;

#if RWKV_SIMD_BYTES > 0
/// Adds the two halves of every group of `Group` lanes; the sums of a come first, then those of b.
template <int Group, class T, int N, int... Lane>
RWKV_INLINE Pack<T, N> fold_groups(Pack<T, N> a, Pack<T, N> b, std::integer_sequence<int, Lane...>) {
  constexpr int half = Group / 2;
  return Pack<T, N>(__builtin_shufflevector(a.v, b.v, (Lane / half * Group + Lane % half)...) +
                    __builtin_shufflevector(a.v, b.v, (Lane / half * Group + Lane % half + half)...));
}

/// Reduces `Count` packs, a power of two, in pairs; each with the same additions as sum_lanes.
template <int Group, int Count, class T, int N>
RWKV_INLINE Pack<T, N> fold_sums(Pack<T, N>* sums) {
  if constexpr (Group > 1) {
    constexpr auto lanes = std::make_integer_sequence<int, N>();
    RWKV_UNROLL for (int i = 0; i < (Count + 1) / 2; ++i) {
      sums[i] = fold_groups<Group>(sums[2 * i], sums[Count == 1 ? 0 : 2 * i + 1], lanes);
    }
    return fold_sums<Group / 2, (Count + 1) / 2>(sums);
  } else {
    return sums[0];
  }
}

/// to[i] = sum_lanes(sums[i]) for `Count` sums.
template <int Count, class T, int N>
RWKV_INLINE void store_sums(const Pack<T, N>* sums, T* to) {
  constexpr int size = Count >= 4 && N >= 4 ? 4 : Count >= 2 && N >= 2 ? 2 : 1;
  Pack<T, N> folding[size];
  RWKV_UNROLL for (int i = 0; i < size; ++i) folding[i] = sums[i];
  T all[N];  // a partial store would be a call
  fold_sums<N, size>(folding).store(all);
  std::copy_n(all, size, to);
  if constexpr (Count > size) store_sums<Count - size>(sums + size, to + size);
}
#endif
template <int Count, class T>
RWKV_INLINE void store_sums(const One<T>* sums, T* to) {
  RWKV_UNROLL for (int i = 0; i < Count; ++i) to[i] = sums[i].v;
}

/// y[i][j] = x_i . w_j for X rows of x and W rows of w, over the stretch [begin, end) of their length. Partial sums are
/// loaded from `waiting` unless the stretch is the first, and stored there unless it is the last. `Fetch` prefetches
/// the next W rows of w: with few rows of x the arithmetic is too short to hide the loads.
template <int X, int W, bool Fetch, class T, class Stored>
RWKV_INLINE void dot_block(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index out, Index begin, Index end,
                           Widest<T>* waiting) {
  using R = Widest<T>;
  R sums[X][W];
  const T* xs[X];
  const Stored* ws[W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) xs[i] = x.row(row + i);
  RWKV_UNROLL for (int j = 0; j < W; ++j) ws[j] = w.row(out + j);
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = begin == 0 ? R(0) : waiting[i * W + j];
  }
  Index k = begin;
  for (; k + R::size <= end; k += R::size) {
    R weights[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) {
      if constexpr (Fetch) prefetch(ws[j] + k, W * w.stride);
      weights[j] = R::load(ws[j] + k);
      keep_in_register(weights[j]);
    }
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      R activation = R::load(xs[i] + k);
      keep_in_register(activation);
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = multiply_add(activation, weights[j], sums[i][j]);
    }
  }
  if (end < x.cols) {
    RWKV_UNROLL for (int i = 0; i < X; ++i) { RWKV_UNROLL for (int j = 0; j < W; ++j) waiting[i * W + j] = sums[i][j]; }
    return;
  }
  if (const int left = static_cast<int>(end - k); left > 0) {
    R weights[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) weights[j] = R::load(ws[j] + k, left);
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const R activation = R::load(xs[i] + k, left);
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = multiply_add(activation, weights[j], sums[i][j]);
    }
  }
  T finished[X * W];
  store_sums<X * W>(&sums[0][0], finished);
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) y(row + i, out + j) = finished[i * W + j];
  }
}

/// One row of x against the rows [first, last) of w, which are read as one sequential stream.
template <class T, class Stored>
RWKV_INLINE void dot_row(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index first, Index last) {
  using R = Widest<T>;
  constexpr Index ahead = dot_prefetch_bytes / Index{sizeof(Stored)};
  const T* activations = x.row(row);
  for (Index out = first; out < last; ++out) {
    const Stored* weights = w.row(out);
    R sum(0);
    Index k = 0;
    for (; k + R::size <= x.cols; k += R::size) {
      prefetch(weights + k, ahead);
      sum = multiply_add(R::load(activations + k), R::load(weights + k), sum);
    }
    if (const int left = static_cast<int>(x.cols - k); left > 0) {
      sum = multiply_add(R::load(activations + k, left), R::load(weights + k, left), sum);
    }
    y(row, out) = sum_lanes(sum);
  }
}

/// All rows of x from `row` on, X at a time and the remainder in smaller blocks, against at most dot_outputs rows of w.
template <int X, class T, class Stored>
RWKV_INLINE void dot_rows(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index first, Index last) {
  if constexpr (X == 1) {
    for (; row < x.rows; ++row) dot_row(y, x, w, row, first, last);
  } else {
    constexpr Index stretch = dot_stretch_bytes / Index{sizeof(T)};
    Widest<T> waiting[X * dot_outputs];
    for (; row + X <= x.rows; row += X) {
      Index begin = 0;
      do {  // runs once even for empty rows, to write zeros
        const Index end = std::min<Index>(x.cols, begin + stretch);
        Index out = first;
        for (; out + dot_w_rows <= last; out += dot_w_rows) {
          dot_block<X, dot_w_rows, true>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
        }
        for (; out < last; ++out) dot_block<X, 1, true>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
        begin = end;
      } while (begin < x.cols);
    }
    dot_rows<X / 2>(y, x, w, row, first, last);
  }
}

/// With at least this many rows of x, the loops are exchanged: a few rows of w serve all rows of x. If the rows are
/// longer than DotCopies::length, both factors are copied.
inline constexpr Index dot_many_rows = 32;
/// The sizes of the copies in type T. The copies of x and the partial sums fit the L2 cache; the few rows of w stay in
/// the L1 cache while the rows of x stream by.
template <class T>
struct DotCopies {
  static constexpr Index lanes = Widest<T>::size;
  static constexpr Index length = std::max<Index>(1, 2048 / (lanes * Index{sizeof(T)})) * lanes;
  static constexpr Index stride = length + lanes;  // padded, so that neighbouring rows use different cache sets
  static constexpr Index w_rows = 3 * dot_w_rows;
  static constexpr Index blocks_across = (dot_outputs + dot_w_rows - 1) / dot_w_rows;
  static constexpr Index block_size = dot_x_rows * dot_w_rows;
  static constexpr Index x_blocks =
      std::clamp<Index>(98'304 / (blocks_across * block_size * Index{sizeof(Widest<T>)}), 1, 12);
  static constexpr Index x_rows = x_blocks * dot_x_rows;
};

/// Widens `count` numbers into `to` and pads with zeros up to a whole pack.
template <class T, class Stored>
RWKV_INLINE void copy_row(const Stored* from, Index count, T* to) {
  using R = Widest<T>;
  Index k = 0;
  for (; k + R::size <= count; k += R::size) R::load(from + k).store(to + k);
  if (const int left = static_cast<int>(count - k); left > 0) R::load(from + k, left).store(to + k);
}

/// One block over a stretch of `length` numbers, from copies. Partial sums are loaded from `waiting` unless the stretch
/// is the first. `finished` receives the results of the last stretch, row by row; it is null for earlier stretches.
template <class T>
[[gnu::noinline]] void dot_copied_block(const T* x, const T* w, Index length, Widest<T>* waiting, bool first,
                                        T* finished) {
  using R = Widest<T>;
  constexpr Index stride = DotCopies<T>::stride;
  constexpr int size = dot_x_rows * dot_w_rows;
  R sums[size];
  RWKV_UNROLL for (int i = 0; i < size; ++i) sums[i] = R(0);
  if (!first) {
    RWKV_UNROLL for (int i = 0; i < size; ++i) sums[i] = waiting[i];
  }
  for (Index k = 0; k < length; k += R::size) {
    R weights[dot_w_rows];
    RWKV_UNROLL for (int j = 0; j < dot_w_rows; ++j) {
      weights[j] = R::load(w + j * stride + k);
      keep_in_register(weights[j]);
    }
    RWKV_UNROLL for (int i = 0; i < dot_x_rows; ++i) {
      R activation = R::load(x + i * stride + k);
      keep_in_register(activation);
      RWKV_UNROLL for (int j = 0; j < dot_w_rows; ++j) {
        sums[i * dot_w_rows + j] = multiply_add(activation, weights[j], sums[i * dot_w_rows + j]);
      }
    }
  }
  if (finished != nullptr) {
    store_sums<size>(sums, finished);
  } else {
    RWKV_UNROLL for (int i = 0; i < size; ++i) waiting[i] = sums[i];
  }
}

/// The rows [row, last_row) of x against at most dot_outputs rows of w, from copies. Rows of x: whole blocks, at most
/// DotCopies<T>::x_rows.
template <class T, class Stored>
void dot_copied(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index last_row, Index first, Index last) {
  using Copies = DotCopies<T>;
  alignas(64) T xs[Copies::x_rows * Copies::stride];
  alignas(64) T ws[Copies::w_rows * Copies::stride];
  Widest<T> waiting[Copies::x_blocks * Copies::blocks_across * Copies::block_size];
  for (Index begin = 0, length = 0; begin < x.cols; begin += length) {
    length = std::min(Copies::length, x.cols - begin);
    const bool finishes = begin + length == x.cols;
    for (Index r = row; r < last_row; ++r) copy_row(x.row(r) + begin, length, xs + (r - row) * Copies::stride);
    Widest<T>* sums = waiting;
    for (Index group = first; group < last; group += Copies::w_rows) {
      const Index group_end = std::min(last, group + Copies::w_rows);
      for (Index j = 0; j < Copies::w_rows; ++j) {  // pads the last block with copies of the last row
        copy_row(w.row(std::min(group + j, last - 1)) + begin, length, ws + j * Copies::stride);
      }
      for (Index r = row; r < last_row; r += dot_x_rows) {
        for (Index out = group; out < group_end; out += dot_w_rows, sums += Copies::block_size) {
          T finished[Copies::block_size];
          dot_copied_block(xs + (r - row) * Copies::stride, ws + (out - group) * Copies::stride, length, sums,
                           begin == 0, finishes ? finished : nullptr);
          if (!finishes) continue;
          if (out + dot_w_rows <= last) {
            RWKV_UNROLL for (int i = 0; i < dot_x_rows; ++i) {
              T* to = y.row(r + i) + out;
              RWKV_UNROLL for (int j = 0; j < dot_w_rows; ++j) to[j] = finished[i * dot_w_rows + j];
            }
          } else {
            for (int i = 0; i < dot_x_rows; ++i) {
              for (Index j = 0; out + j < last; ++j) y(r + i, out + j) = finished[i * dot_w_rows + j];
            }
          }
        }
      }
    }
  }
}

/// The rows [row, last_row) of x, in whole blocks, against at most dot_outputs rows of w, read in place: a few rows of
/// w this short stay in the L1 cache without a copy.
template <class T, class Stored>
void dot_short(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index last_row, Index first, Index last) {
  Widest<T>* const nothing_waits = nullptr;
  for (Index group = first; group < last; group += DotCopies<T>::w_rows) {
    const Index group_end = std::min(last, group + DotCopies<T>::w_rows);
    for (Index r = row; r < last_row; r += dot_x_rows) {
      Index out = group;
      for (; out + dot_w_rows <= group_end; out += dot_w_rows) {
        dot_block<dot_x_rows, dot_w_rows, false>(y, x, w, r, out, 0, x.cols, nothing_waits);
      }
      for (; out < group_end; ++out) dot_block<dot_x_rows, 1, false>(y, x, w, r, out, 0, x.cols, nothing_waits);
    }
  }
}

/// All rows of x against the rows [begin, end) of w. Not inlined: compiled once for each pair of types.
template <class T, class Stored>
[[gnu::noinline]] void dot_tile(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  const Index blocked = x.rows >= dot_many_rows ? x.rows / dot_x_rows * dot_x_rows : 0;
  for (; begin < end; begin += dot_outputs) {
    const Index last = std::min(end, begin + dot_outputs);
    for (Index row = 0; row < blocked; row += DotCopies<T>::x_rows) {
      const Index last_row = std::min(blocked, row + DotCopies<T>::x_rows);
      if (x.cols > DotCopies<T>::length) dot_copied(y, x, w, row, last_row, begin, last);
      else dot_short(y, x, w, row, last_row, begin, last);
    }
    dot_rows<dot_x_rows>(y, x, w, blocked, begin, last);
  }
}

}  // namespace dot

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
