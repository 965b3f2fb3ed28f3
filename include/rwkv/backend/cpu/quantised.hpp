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
///     (scale(g) s) (sum over j of level q)
///
/// Then, of formats with offsets, run r of the stretch, of 32 numbers, adds to partial sum r mod 16
///
///     offset(g) (s (sum over the run of q))
///
/// The sums of products and of q are exact integers, in any instruction set. So an output depends on the length alone, and
/// not on the number of rows, the tile or the threads; its bits are those of every other target with fused multiply-adds.
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

/// Quantises a run of activations as the first or the second half of a pair, for weights with levels in that excess.
/// Returns s times the sum of q.
inline float quantise_run(const float* x, int excess, Activations& to, bool second) {
  std::int8_t* levels = to.levels + second * run;
  float* scales = to.scales + second * (lanes / 2);
  std::int32_t* minus_excess = to.minus_excess + second * (lanes / 2);
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
  const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), all), _mm256_set1_epi16(1));
  _mm256_store_si256(reinterpret_cast<__m256i*>(minus_excess), _mm256_mullo_epi32(fours, _mm256_set1_epi32(-excess)));
  std::fill_n(scales, lanes / 2, scale.scale);
  return scale.scale * static_cast<float>(_mm512_reduce_add_epi32(_mm512_zextsi256_si512(fours)));
#else
  std::uint32_t most = 0;
  for (Index i = 0; i < run; ++i) most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  const Scale scale(most);
  if (scale.scale == scale.scale) {
    for (Index i = 0; i < run; ++i) levels[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * scale.inverse));
  } else {
    std::fill_n(levels, run, std::int8_t{0});  // NaN by the scale
  }
  int sum = 0;
  for (Index l = 0; l < lanes / 2; ++l) {
    const int four = levels[4 * l] + levels[4 * l + 1] + levels[4 * l + 2] + levels[4 * l + 3];
    minus_excess[l] = -excess * four;
    sum += four;
  }
  std::fill_n(scales, lanes / 2, scale.scale);
  return scale.scale * static_cast<float>(sum);
#endif
}

/// Quantises `count` activations, a multiple of `run` and at most a stretch, for weights with levels in that excess.
/// Zeros follow the last run.
inline void quantise(const float* x, Index count, int excess, ActivationStretch& to) {
  for (Index begin = 0; begin < count; begin += run) {
    to.sums[begin / run] = quantise_run(x + begin, excess, to.pairs[begin / pair], begin % pair != 0);
  }
  std::fill(to.sums + count / run, to.sums + stretch_runs, 0.0f);
  if (count % pair != 0) {
    Activations& last = to.pairs[count / pair];
    std::fill_n(last.levels + run, run, std::int8_t{0});
    std::fill_n(last.scales + lanes / 2, lanes / 2, 0.0f);
    std::fill_n(last.minus_excess + lanes / 2, lanes / 2, 0);
  }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// `runs` runs of a row, from its blocks there on; the last of an odd number is followed by zeros.
template <class Block>
void unpack(const Block* blocks, Index runs, WeightStretch& to) {
  using Read = quantised::Read<Block>;
  Offsets<Block> offsets;
  const auto read = [&]<bool Both>(std::bool_constant<Both>, Index r) {
    const Block* here = blocks + r * run / Block::length;
    const Loaded<Block> weights = Read::template load<Both>(here);
    for (Index p = 0; p < pairs_read<Block>; ++p) {
      store_levels<Read::excess>(weights.levels[p], to.pairs[r / 2 + p]);
      weights.scales[p].store(to.pairs[r / 2 + p].scales);
    }
    if constexpr (Block::has_offset) offsets.template take<Both>(here, r);
  };
  constexpr Index together = 2 * pairs_read<Block>;
  Index r = 0;
  for (; r + together <= runs; r += together) read(std::true_type(), r);
  if (r < runs) read(std::false_type(), r);
  if constexpr (Block::has_offset) {
    for (Index first = 0; first < stretch_runs; first += lanes)
      offsets.get(blocks, runs, first).store(to.offsets + first);
  }
}

/// Writes the sum of a stretch, or adds it to those of the stretches before.
RWKV_INLINE void add_stretch(float& y, float sum, bool is_first) { y = is_first ? sum : y + sum; }

/// Rows of x and of w in one block of outputs.
#if RWKV_BYTE_SUMS == 2
inline constexpr int x_rows = 4, w_rows = 4;
#else
inline constexpr int x_rows = 4, w_rows = 1;
#endif
/// Rows of x that are quantised at a time: 102 KB, for the L2 cache, where all weights of a tile meet them.
inline constexpr Index rows_at_a_time = 32;
/// Stretches of a single row of x that are quantised at a time.
inline constexpr Index stretches_at_a_time = 8;
/// Rows of x and of w in a tile: enough of w that quantising x costs little.
inline constexpr Index rows_per_tile = rows_at_a_time;
constexpr Index outputs_per_tile(Index x_rows_of_product) { return x_rows_of_product == 1 ? 128 : 192; }

/// Adds the products of what is read at a time of W rows of w, or of one run of them, from run r of the stretch on.
template <bool Both, int W, class Block>
RWKV_INLINE void add_products(const Activations* x, const Block* w, Index stride, Index r, Lanes (&sums)[W],
                              Offsets<Block> (&offsets)[W]) {
  using Read = quantised::Read<Block>;
  constexpr Index pairs = pairs_read<Block>, bytes = pairs * pair / Block::length * Index{sizeof(Block)};
  Loaded<Block> weights[W];
  RWKV_UNROLL for (int j = 0; j < W; ++j) {
    const Block* row = w + j * stride;
    RWKV_UNROLL for (Index line = 0; line < bytes; line += 64) {
      dot::prefetch(reinterpret_cast<const char*>(row), dot::prefetch_bytes + line);
    }
    weights[j] = Read::template load<Both>(row);
    if constexpr (Block::has_offset) offsets[j].template take<Both>(row, r);
  }
  RWKV_UNROLL for (Index p = 0; p < pairs; ++p) {
    const Factors<Read::excess> factors(x[p]);
    RWKV_UNROLL for (int j = 0; j < W; ++j) {
      sums[j].add_product(dot_lanes(weights[j].levels[p], factors), weights[j].scales[p] * factors.scales);
    }
  }
}

/// A stretch of `runs` runs of one row of x against W rows of w that are read in place, from their blocks there on.
template <int W, class Block>
RWKV_INLINE void dot_direct(const ActivationStretch& x, Index runs, const Block* w, Index stride, Lanes::R* folded) {
  constexpr Index pairs = pairs_read<Block>;
  Lanes sums[W];
  Offsets<Block> offsets[W];
  RWKV_UNROLL for (int j = 0; j < W; ++j) sums[j] = Lanes::zero();
  const Activations* xs = x.pairs;
  const Block* blocks = w;
  Index r = 0;
  for (; r + 2 * pairs <= runs; r += 2 * pairs, xs += pairs, blocks += pairs * pair / Block::length) {
    add_products<true>(xs, blocks, stride, r, sums, offsets);
  }
  if (r < runs) add_products<false>(xs, blocks, stride, r, sums, offsets);
  if constexpr (Block::has_offset) {
    RWKV_UNROLL for (Index first = 0; first < stretch_runs; first += lanes) {
      const Lanes run_sums = Lanes::load(x.sums + first);
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        sums[j].add_product(offsets[j].get(w + j * stride, runs, first), run_sums);
      }
    }
  }
  RWKV_UNROLL for (int j = 0; j < W; ++j) folded[j] = sums[j].folded();
}

/// X rows of x against W rows of w, over one stretch.
template <int X, int W>
[[gnu::noinline]] void dot_unpacked(const ActivationStretch* x, const WeightStretch* w, Index pairs, bool has_offset,
                                    bool is_first, Mat<float> y) {
  Lanes sums[X][W];
  RWKV_UNROLL for (int i = 0; i < X; ++i) { RWKV_UNROLL for (int j = 0; j < W; ++j) sums[i][j] = Lanes::zero(); }
  for (Index p = 0; p < pairs; ++p) {
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      const Factors<unpacked_excess> factors(x[i].pairs[p]);
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        const Weights& weights = w[j].pairs[p];
        sums[i][j].add_product(dot_lanes(load_levels(weights), factors), Lanes::load(weights.scales) * factors.scales);
      }
    }
  }
  if (has_offset) {
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      RWKV_UNROLL for (int j = 0; j < W; ++j) {
        RWKV_UNROLL for (Index r = 0; r < stretch_runs; r += lanes) {
          sums[i][j].add_product(Lanes::load(w[j].offsets + r), Lanes::load(x[i].sums + r));
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
void dot_rows(const ActivationStretch* x, Index rows, const WeightStretch* w, Index pairs, bool has_offset,
              bool is_first, Mat<float> y) {
  Index row = 0;
  const auto outputs = [&] { return Mat<float>{y.row(row), y.rows, y.cols, y.stride}; };
  for (; row + x_rows <= rows; row += x_rows) {
    dot_unpacked<x_rows, W>(x + row, w, pairs, has_offset, is_first, outputs());
  }
  for (; row < rows; ++row) dot_unpacked<1, W>(x + row, w, pairs, has_offset, is_first, outputs());
}

/// Several rows of x against the rows [begin, end) of w, which are unpacked once for all of them.
template <class Block>
[[gnu::noinline]] void dot_many(Mat<float> y, Mat<const float> x, const Block* w, Index stride, Index begin,
                                Index end) {
  ActivationStretch xs[rows_at_a_time];
  WeightStretch ws[w_rows];
  for (Index row = 0; row < x.rows; row += rows_at_a_time) {
    const Index rows = std::min(rows_at_a_time, x.rows - row);
    for (Index at = 0; at < x.cols; at += stretch) {
      const Index count = std::min(stretch, x.cols - at), pairs = (count + pair - 1) / pair;
      for (Index r = 0; r < rows; ++r) quantise(x.row(row + r) + at, count, unpacked_excess, xs[r]);
      for (Index out = begin; out < end;) {
        const Mat<float> outputs{y.row(row) + out, rows, y.cols, y.stride};
        const Index fitting = end - out >= w_rows ? w_rows : 1;
        for (Index j = 0; j < fitting; ++j) {
          unpack(w + (out + j) * stride + at / Block::length, count / run, ws[j]);
        }
        if (fitting == w_rows) dot_rows<w_rows>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        else dot_rows<1>(xs, rows, ws, pairs, Block::has_offset, at == 0, outputs);
        out += fitting;
      }
    }
  }
}

/// One row of x against the rows [begin, end) of w. The sums of several are folded together.
template <class Block>
[[gnu::noinline]] void dot_one(float* y, const float* x, Index count, const Block* w, Index stride, Index begin,
                               Index end) {
  constexpr int together = Read<Block>::together, folds = 8;
  ActivationStretch xs[stretches_at_a_time];
  for (Index at = 0; at < count; at += stretches_at_a_time * stretch) {
    const Index here = std::min(stretches_at_a_time * stretch, count - at);
    for (Index k = 0; k < here; k += stretch) {
      quantise(x + at + k, std::min(stretch, here - k), Read<Block>::excess, xs[k / stretch]);
    }
    Lanes::R folded[stretches_at_a_time][folds];
    const auto dot = [&]<int W>(std::integral_constant<int, W>, Index out, int place) {
      for (Index k = 0; k < here; k += stretch) {
        const Block* blocks = w + out * stride + (at + k) / Block::length;
        dot_direct<W>(xs[k / stretch], std::min(stretch, here - k) / run, blocks, stride, folded[k / stretch] + place);
      }
    };
    for (Index out = begin; out < end; out += folds) {
      const int rows = static_cast<int>(std::min<Index>(folds, end - out));
      int row = 0;
      for (; row + together <= rows; row += together) dot(std::integral_constant<int, together>(), out + row, row);
      for (; row < rows; ++row) dot(std::integral_constant<int, 1>(), out + row, row);
      for (Index k = 0; k < here; k += stretch) {
        float finished[folds];
        for (int i = rows; i < folds; ++i) folded[k / stretch][i] = Lanes::R(0);
        dot::store_sums<folds>(folded[k / stretch], finished);
        for (int i = 0; i < rows; ++i) add_stretch(y[out + i], finished[i], at + k == 0);
      }
    }
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
