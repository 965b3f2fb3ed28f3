#pragma once
/// The product of a linear layer, y = x w^T, from dot products: both factors are contiguous along the axis they share,
/// so nothing is repacked and nothing is allocated. Every output is one chain of fused multiply-adds whose order
/// depends on the length and the vector width alone. So a token's result has the same bits whatever the batch, the
/// chunk, the tile or the number of threads, and 16-bit weights give the bits of their widened copies.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv::inline RWKV_ABI::inline RWKV_CPU_ABI {

namespace dot {

/// Asks for the memory `ahead` numbers behind an address, which may lie past the end of the matrix.
template <class T>
RWKV_INLINE void prefetch([[maybe_unused]] const T* from, [[maybe_unused]] Index ahead) {
#if defined(__GNUC__)
  const auto address = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(address));
#endif
}

/// Keeps a number in a register. g++ would read it from memory again at each of its uses, and a processor reads about
/// as often as it multiplies.
template <class R>
RWKV_INLINE void keep_in_register(R&) {}
#if RWKV_SIMD_BYTES > 0 && defined(__x86_64__) && !defined(__clang__)
template <class T, int N>
RWKV_INLINE void keep_in_register(Pack<T, N>& x) {
  asm("" : "+v"(x.v));
}
#endif

/// Rows of x and of w in one block of outputs: the sums and the factors fit 16 registers, and a number that is read
/// serves several multiply-adds.
inline constexpr int dot_x_rows = 4;
inline constexpr int dot_w_rows = 3;
/// Outputs whose sums wait in memory while a long row is walked in stretches.
inline constexpr Index dot_outputs = 64;
/// Bytes of a row of x in one stretch: the rows of a block stay in the first-level cache while the rows of w pass.
inline constexpr Index dot_stretch_bytes = 4096;
/// How far ahead of a single row of x, which is bound by memory, the weights are fetched.
inline constexpr Index dot_prefetch_bytes = 8192;

#if RWKV_SIMD_BYTES > 0
/// Adds the halves of every group of `Group` lanes, first those of a, then those of b.
template <int Group, class T, int N, int... Lane>
RWKV_INLINE Pack<T, N> fold_groups(Pack<T, N> a, Pack<T, N> b, std::integer_sequence<int, Lane...>) {
  constexpr int half = Group / 2;
  return Pack<T, N>(__builtin_shufflevector(a.v, b.v, (Lane / half * Group + Lane % half)...) +
                    __builtin_shufflevector(a.v, b.v, (Lane / half * Group + Lane % half + half)...));
}

/// Folds `Count` sums, a power of two, in pairs; the additions of each are those of sum_lanes.
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
  fold_sums<N, size>(folding).store(to, size);
  if constexpr (Count > size) store_sums<Count - size>(sums + size, to + size);
}
#endif
template <int Count, class T>
RWKV_INLINE void store_sums(const One<T>* sums, T* to) {
  RWKV_UNROLL for (int i = 0; i < Count; ++i) to[i] = sums[i].v;
}

/// y[i][j] = x_i . w_j for X rows of x and W rows of w, over the stretch [begin, end) of their length. The sums come
/// from `waiting` unless the stretch is the first, and go back there unless it is the last.
template <int X, int W, class T, class Stored>
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
      prefetch(ws[j] + k, W * w.stride);
      weights[j] = R::load(ws[j] + k);
      keep_in_register(weights[j]);
    }
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      R activation = R::load(xs[i] + k);
      keep_in_register(activation);
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] += activation * weights[j];
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
      RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] += activation * weights[j];
    }
  }
  RWKV_UNROLL for (int i = 0; i < X; ++i) store_sums<W>(sums[i], &y(row + i, out));
}

/// One row of x against the rows [first, last) of w, read in one stream from end to end: the fastest way to read
/// memory.
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
      sum += R::load(activations + k) * R::load(weights + k);
    }
    if (const int left = static_cast<int>(x.cols - k); left > 0) {
      sum += R::load(activations + k, left) * R::load(weights + k, left);
    }
    y(row, out) = sum_lanes(sum);
  }
}

/// All rows of x from `row` on, X at a time and the rest with fewer, against at most dot_outputs rows of w.
template <int X, class T, class Stored>
RWKV_INLINE void dot_rows(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index first, Index last) {
  if constexpr (X == 1) {
    for (; row < x.rows; ++row) dot_row(y, x, w, row, first, last);
  } else {
    constexpr Index stretch = dot_stretch_bytes / Index{sizeof(T)};
    Widest<T> waiting[X * dot_outputs];
    for (; row + X <= x.rows; row += X) {
      for (Index begin = 0; begin < x.cols; begin += stretch) {
        const Index end = std::min<Index>(x.cols, begin + stretch);
        Index out = first;
        for (; out + dot_w_rows <= last; out += dot_w_rows) {
          dot_block<X, dot_w_rows>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
        }
        for (; out < last; ++out) dot_block<X, 1>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
      }
    }
    dot_rows<X / 2>(y, x, w, row, first, last);
  }
}

/// All rows of x against the rows [begin, end) of w. One instantiation per pair of types, shared by all callers.
template <class T, class Stored>
[[gnu::noinline]] void dot_tile(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  for (; begin < end; begin += dot_outputs) {
    dot_rows<dot_x_rows>(y, x, w, 0, begin, std::min(end, begin + dot_outputs));
  }
}

}  // namespace dot

}  // namespace rwkv::inline RWKV_ABI::inline RWKV_CPU_ABI
