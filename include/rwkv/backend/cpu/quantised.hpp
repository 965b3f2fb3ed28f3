#pragma once
/// The product of a linear layer with quantised weights, y = x w^T, from dot products of integers.
///
/// The activations are quantised too, for any number of rows, so that a step and a sequence have the same bits. Of every 32
/// consecutive activations the largest magnitude, over 127, is the scale; their levels are x / scale, rounded to nearest
/// even. Magnitudes below 2^-100 count as zero. NaN and infinity make all outputs of their row NaN.
///
/// An output is the sum over stretches of 1024 numbers, in order. A stretch has 16 partial sums: number 64 p + 4 l + j
/// belongs to partial sum l. With the level q and the scale s of an activation, and scale(g) and offset(g) of a weight (see
/// block_formats.hpp), each p adds
///
///     (scale(g) s) (sum over j of level q) + (offset(g) s) (sum over j of q)
///
/// The sums over j are exact integers, in any instruction set. So an output depends on the length alone, and not on the
/// number of rows, the tile or the threads; its bits are those of every other target with fused multiply-adds.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/cpu/quantised_blocks.hpp"
#include "rwkv/core/weights.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace quantised {

// False warning of g++ 12: the AVX-512 header leaves registers uninitialised on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

/// The scale of a run of activations, and what levels are multiplied by; from the largest magnitude as an integer, where
/// infinity and NaN are largest.
struct Scale {
  float scale, inverse;

  explicit Scale(std::uint32_t most_bits) {
    constexpr float least = 0x1p-100f;
    const auto most = std::bit_cast<float>(most_bits);
    const bool finite = most_bits < 0x7f800000u, counts = most >= least;
    scale = !finite ? std::bit_cast<float>(0x7fc00000u) : counts ? most / 127 : 0;
    inverse = finite && counts ? 127 / most : 0;
  }
};

/// Quantises a run of activations as the first or the second half of a pair.
inline void quantise_run(const float* x, Activations& to, bool second) {
  std::int8_t* levels = to.levels + second * run;
  float* scales = to.scales + second * (lanes / 2);
  std::int32_t* minus_sums = to.minus_sums + second * (lanes / 2);
#if RWKV_BYTE_SUMS == 2
  const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
  const __m512i magnitudes = _mm512_set1_epi32(0x7fffffff);
  const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitudes),
                                        _mm512_and_si512(_mm512_castps_si512(high), magnitudes));
  const Scale scale(_mm512_reduce_max_epu32(most));
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  // A product that is not finite converts to a level that its scale, NaN, makes NaN whatever it is.
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)));
  const __m128i last = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)));
  const __m256i all = _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
  _mm256_store_si256(reinterpret_cast<__m256i*>(levels), all);
  const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_castsi256_si512(all));
  const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
  _mm256_store_si256(reinterpret_cast<__m256i*>(minus_sums), _mm512_castsi512_si256(minus));
  std::fill_n(scales, lanes / 2, scale.scale);
#else
  std::uint32_t most = 0;
  for (Index i = 0; i < run; ++i) most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  const Scale scale(most);
  if (scale.scale == scale.scale) {
    for (Index i = 0; i < run; ++i) levels[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * scale.inverse));
  } else {
    std::fill_n(levels, run, std::int8_t{0});  // NaN by the scale
  }
  for (Index l = 0; l < lanes / 2; ++l) {
    minus_sums[l] = -(levels[4 * l] + levels[4 * l + 1] + levels[4 * l + 2] + levels[4 * l + 3]);
  }
  std::fill_n(scales, lanes / 2, scale.scale);
#endif
}

/// Quantises `count` activations, a multiple of `run`; the last run of an odd number of runs is followed by zeros.
inline void quantise(const float* x, Index count, Activations* to) {
  for (Index begin = 0; begin < count; begin += run) quantise_run(x + begin, to[begin / pair], begin % pair != 0);
  if (count % pair != 0) {
    Activations& last = to[count / pair];
    std::fill_n(last.levels + run, run, std::int8_t{0});
    std::fill_n(last.scales + lanes / 2, lanes / 2, 0.0f);
    std::fill_n(last.minus_sums + lanes / 2, lanes / 2, 0);
  }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// `runs` runs of a row from number k on, an even one, as Weights; the last run of an odd number is followed by zeros.
template <class Block>
void unpack(const Block* row, Index k, Index runs, Weights* to) {
  for (const Index end = k + runs; k < end; k += 2, ++to) {
    const Loaded weights =
        k + 1 < end ? Read<Block>::template load<true>(row, k) : Read<Block>::template load<false>(row, k);
    store_levels<Read<Block>::bias>(weights.levels, *to);
    weights.scales.store(to->scales);
    if constexpr (Block::has_offset) weights.offsets.store(to->offsets);
  }
}

/// Adds the products of a pair of runs, or of one run, from number k of a row on.
template <bool Both, class Block>
RWKV_INLINE void add_pair(const Block* row, Index k, const Activations& x, Lanes& sum) {
  const Lanes scales = Lanes::load(x.scales);
  const Loaded weights = Read<Block>::template load<Both>(row, k);
  sum.add_product(dot_lanes<Read<Block>::bias>(weights.levels, x), weights.scales * scales);
  if constexpr (Block::has_offset) sum.add_product(sums_of(x), weights.offsets * scales);
}

/// Writes the sum of a stretch, or adds it to those of the stretches before.
RWKV_INLINE void add_stretch(float& y, float sum, bool is_first) { y = is_first ? sum : y + sum; }

/// Rows of x and of w in one block of outputs.
#if RWKV_BYTE_SUMS == 2
inline constexpr int x_rows = 4, w_rows = 4;
#else
inline constexpr int x_rows = 4, w_rows = 1;
#endif
/// Rows of x that are quantised at a time: 98 KB, for the L2 cache, where all weights of a tile meet them.
inline constexpr Index rows_at_a_time = 32;
/// Activations of a single row that are quantised at a time.
inline constexpr Index numbers_at_a_time = 8 * stretch;
/// Rows of x and of w in a tile: enough of w that quantising x costs little.
inline constexpr Index rows_per_tile = rows_at_a_time;
constexpr Index outputs_per_tile(Index x_rows_of_product) { return x_rows_of_product == 1 ? 128 : 192; }
/// Prefetch distance in the weights for a single row of x.
inline constexpr Index prefetch_bytes = 8192;

/// One row of x, `runs` runs of it from number k on, against W rows of w that are read in place.
template <int W, class Block>
RWKV_INLINE void dot_direct(const Activations* x, Index k, Index runs, const Block* w, Index stride, float* y) {
  for (const Index end = k + runs; k < end;) {
    const bool is_first = k == 0;
    const Index last = std::min(k + stretch / run, end);
    Lanes sums[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = Lanes::zero();
    for (; k + 2 <= last; k += 2, ++x) {
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        const Block* row = w + j * stride;
        dot::prefetch(reinterpret_cast<const char*>(row + k * run / Block::length), prefetch_bytes);
        add_pair<true>(row, k, *x, sums[j]);
      }
    }
    if (k < last) {
      RWKV_UNROLL for (int j = 0; j < W; ++j) add_pair<false>(w + j * stride, k, *x, sums[j]);
      ++k;
    }
    Lanes::R folded[W];
    float finished[W];
    RWKV_UNROLL for (int j = 0; j < W; ++j) folded[j] = sums[j].folded();
    dot::store_sums<W>(folded, finished);
    RWKV_UNROLL for (int j = 0; j < W; ++j) add_stretch(y[j], finished[j], is_first);
  }
}

/// X rows of x against W rows of w, over one stretch.
template <int X, int W>
[[gnu::noinline]] void dot_unpacked(const Activations* x, const Weights* w, Index pairs, bool has_offset, bool is_first,
                                    Mat<float> y) {
  Lanes sums[X][W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) { RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = Lanes::zero(); }
  for (Index p = 0; p < pairs; ++p) {
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const Activations& activations = x[i * stretch_pairs + p];
      const Lanes scales = Lanes::load(activations.scales);
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        const Weights& weights = w[j * stretch_pairs + p];
        sums[i][j].add_product(dot_lanes<7>(load_levels(weights), activations), Lanes::load(weights.scales) * scales);
        if (has_offset) {
          sums[i][j].add_product(sums_of(activations), Lanes::load(weights.offsets) * scales);
        }
      }
    }
  }
  Lanes::R folded[X * W];
  float finished[X * W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) folded[i * W + j] = sums[i][j].folded();
  }
  dot::store_sums<X * W>(folded, finished);
  RWKV_UNROLL for (int i = 0; i < X; ++i) {
    RWKV_UNROLL for (int j = 0; j < W; ++j) add_stretch(y(i, j), finished[i * W + j], is_first);
  }
}

/// All `rows` of x against W rows of w, over one stretch.
template <int W>
void dot_rows(const Activations* x, Index rows, const Weights* w, Index pairs, bool has_offset, bool is_first,
              Mat<float> y) {
  Index row = 0;
  const auto outputs = [&] { return Mat<float>{y.row(row), y.rows, y.cols, y.stride}; };
  for (; row + x_rows <= rows; row += x_rows) {
    dot_unpacked<x_rows, W>(x + row * stretch_pairs, w, pairs, has_offset, is_first, outputs());
  }
  for (; row < rows; ++row) {
    dot_unpacked<1, W>(x + row * stretch_pairs, w, pairs, has_offset, is_first, outputs());
  }
}

/// Several rows of x against the rows [begin, end) of w, which are unpacked once for all of them.
template <class Block>
[[gnu::noinline]] void dot_many(Mat<float> y, Mat<const float> x, const Block* w, Index stride, Index begin,
                                Index end) {
  Activations xs[rows_at_a_time * stretch_pairs];
  Weights ws[w_rows * stretch_pairs];
  for (Index row = 0; row < x.rows; row += rows_at_a_time) {
    const Index rows = std::min(rows_at_a_time, x.rows - row);
    for (Index at = 0; at < x.cols; at += stretch) {
      const Index count = std::min(stretch, x.cols - at), pairs = (count + pair - 1) / pair;
      for (Index r = 0; r < rows; ++r) quantise(x.row(row + r) + at, count, xs + r * stretch_pairs);
      for (Index out = begin; out < end;) {
        const Mat<float> outputs{y.row(row) + out, rows, y.cols, y.stride};
        const Index fitting = end - out >= w_rows ? w_rows : 1;
        for (Index j = 0; j < fitting; ++j)
          unpack(w + (out + j) * stride, at / run, count / run, ws + j * stretch_pairs);
        if (fitting == w_rows) dot_rows<w_rows>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        else dot_rows<1>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        out += fitting;
      }
    }
  }
}

/// One row of x against the rows [begin, end) of w.
template <class Block>
[[gnu::noinline]] void dot_one(float* y, const float* x, Index count, const Block* w, Index stride, Index begin,
                               Index end) {
  constexpr int together = Read<Block>::together;
  Activations xs[numbers_at_a_time / pair];
  for (Index at = 0; at < count; at += numbers_at_a_time) {
    const Index here = std::min(numbers_at_a_time, count - at);
    quantise(x + at, here, xs);
    const Index k = at / run, runs = here / run;
    Index out = begin;
    for (; out + together <= end; out += together) {
      dot_direct<together>(xs, k, runs, w + out * stride, stride, y + out);
    }
    for (; out < end; ++out) dot_direct<1>(xs, k, runs, w + out * stride, stride, y + out);
  }
}

/// The outputs [begin, end) of y = x w^T, with w of any quantised type.
inline void dot_tile(Mat<float> y, Mat<const float> x, const StoredMat& w, Index begin, Index end) {
  if (x.cols == 0) {
    for (Index r = 0; r < y.rows; ++r) std::fill(y.row(r) + begin, y.row(r) + end, 0.0f);
    return;
  }
  with_block(w.dtype, [&]<class Block>(Block) {
    const auto* blocks = static_cast<const Block*>(w.data);
    const Index stride = w.stride / Block::length;
    if (x.rows == 1) dot_one(y.row(0), x.row(0), x.cols, blocks, stride, begin, end);
    else dot_many(y, x, blocks, stride, begin, end);
  });
}

}  // namespace quantised
}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
