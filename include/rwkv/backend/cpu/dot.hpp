#pragma once
/// The product of a linear layer, y = x w^T, from dot products. Both factors are contiguous along the shared axis, so
/// they are read in place; nothing is copied or allocated. Products with many rows are computed from copies instead, with
/// the same bits (panels.hpp).
///
/// Every output is one chain of fused multiply-adds whose order depends on the length and the vector width alone. So a
/// token's result has the same bits whatever the batch, the chunk, the tile or the number of threads, and 16-bit weights
/// give the same bits as their widened copies.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/backend/product.hpp"
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
#if defined(__AVX512F__)
RWKV_INLINE void keep_in_register(__m512i& x) { asm("" : "+v"(x)); }
#endif
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
/// loaded from `waiting` unless the stretch is the first, and stored there unless it is the last. The next W rows of w are
/// prefetched: with few rows of x the arithmetic is too short to hide the loads.
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

/// y[0][j] = x_row . w_j for W rows of w.
template <int W, class T, class Stored>
RWKV_INLINE void dot_one(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index out) {
  using R = Widest<T>;
  constexpr Index ahead = dot_prefetch_bytes / Index{sizeof(Stored)};
  constexpr Index packs_per_line = std::max<Index>(1, 64 / (R::size * Index{sizeof(Stored)}));
  const T* activations = x.row(row);
  const Stored* weights[W];
  R sums[W];
  RWKV_UNROLL for (int j = 0; j < W; ++j) weights[j] = w.row(out + j);
  RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = R(0);
  const auto add_packs = [&](Index k) {
    R activation = R::load(activations + k);
    if constexpr (W > 1) keep_in_register(activation);
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = multiply_add(activation, R::load(weights[j] + k), sums[j]);
  };
  Index k = 0;
  for (; k + packs_per_line * R::size <= x.cols; k += packs_per_line * R::size) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) prefetch(weights[j] + k, ahead);
    RWKV_UNROLL for (Index p = 0; p < packs_per_line; ++p) add_packs(k + p * R::size);
  }
  if constexpr (packs_per_line > 1) {
    for (; k + R::size <= x.cols; k += R::size) add_packs(k);
  }
  if (const int left = static_cast<int>(x.cols - k); left > 0) {
    const R activation = R::load(activations + k, left);
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = multiply_add(activation, R::load(weights[j] + k, left), sums[j]);
  }
  store_sums<W>(sums, y.row(row) + out);
}

/// One row of x against the rows [first, last) of w: one after the other, as one sequential stream of memory, which is the
/// fastest; or a few at a time where weights are widened to short packs, so that the multiply-adds of one need not wait for
/// each other.
template <class T, class Stored>
RWKV_INLINE void dot_row(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index row, Index first, Index last) {
  constexpr int together = sizeof(Stored) < sizeof(T) && Widest<T>::size < 16 ? 4 : 1;
  for (; first + together <= last; first += together) dot_one<together>(y, x, w, row, first);
  for (; first < last; ++first) dot_one<1>(y, x, w, row, first);
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
          dot_block<X, dot_w_rows>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
        }
        for (; out < last; ++out) dot_block<X, 1>(y, x, w, row, out, begin, end, waiting + (out - first) * X);
        begin = end;
      } while (begin < x.cols);
    }
    dot_rows<X / 2>(y, x, w, row, first, last);
  }
}

/// All rows of x against the rows [begin, end) of w. Not inlined: compiled once for each pair of types.
template <class T, class Stored>
[[gnu::noinline]] void dot_tile(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  for (; begin < end; begin += dot_outputs) dot_rows<dot_x_rows>(y, x, w, 0, begin, std::min(end, begin + dot_outputs));
}

/// The columns [begin, end) of y = epilogue(y).
template <class T, class Epilogue>
void finish(Mat<T> y, const Epilogue& epilogue, Index begin, Index end) {
  if constexpr (!std::is_same_v<Epilogue, Identity>) {
    using R = Widest<T>;
    for (Index r = 0; r < y.rows; ++r) {
      T* row = y.row(r);
      Index n = begin;
      for (; n + R::size <= end; n += R::size) epilogue(R::load(row + n)).store(row + n);
      if (const int left = static_cast<int>(end - n); left > 0) epilogue(R::load(row + n, left)).store(row + n, left);
    }
  }
}

}  // namespace dot

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
