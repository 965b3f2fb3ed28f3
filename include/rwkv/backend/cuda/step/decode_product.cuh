#pragma once
/// Matrix products for one token of up to 8 sequences, bound by the weights that they read. A block computes groups of
/// rows of one product:
///
/// 1. Every thread starts to load its first weights, then waits for the previous kernel (programmatic dependent
///    launch).
/// 2. The block computes the totals of the norm, if the source has one; every block repeats this.
/// 3. For each chunk of columns, the block stages the source in shared memory, normalised and mixed.
/// 4. Every warp, or `parts` warps together, multiplies rows of weights, loading the next weights ahead.
/// 5. The warp adds up its lanes by shuffles; with several parts the block adds them through shared memory. One thread
///    for each sum calls the destination.
#include <cstdint>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/cuda/step/decode_operand.cuh"
#include "rwkv/backend/cuda/step/work.cuh"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/rows.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The most sequences of a launch, and the most warps that share a row.
inline constexpr Index most_decoded = 8;
inline constexpr int most_parts = 4;

/// How a block multiplies rows of weights of type W by vectors of type T, one for each sequence. A lane takes 16
/// bytes of a row at a time when the matrix is `Aligned`, otherwise single weights. The order of additions is the
/// same for any number of sequences.
template <class T, class W, int Sequences, bool Aligned>
struct DecodeTile {
  using scalar = T;
  using weight = W;
  static constexpr int sequences = Sequences;
  static constexpr int rows = Sequences < 4 ? Sequences : 4;       ///< of a warp
  static constexpr int depth = 4 / rows;                           ///< pieces that a lane loads of each row at a time
  static constexpr int piece = Aligned ? 16 / int{sizeof(W)} : 1;  ///< weights of a piece
  static constexpr int lanes = piece * int{sizeof(T)} < 16 ? piece : 16 / int{sizeof(T)};
  using Numbers = Several<T, lanes>;
  using Piece = detail::Piece<W, piece>;
  using Held = std::conditional_t<Aligned, detail::Word128, Piece>;      ///< a piece packed in registers
  static constexpr int sweep = warp_size * piece;                        ///< columns that a warp takes at a time
  static constexpr int chunk = (64 << 10) / int{sizeof(T)} / sequences;  ///< columns in shared memory at a time
  static constexpr int blocks = sequences == 1 ? 3 : 2;                  ///< of a multiprocessor
  static_assert(chunk % (sweep * depth * most_parts) == 0);

  /// The element of shared memory that holds column c of a chunk: what the lanes of a warp read at a time is
  /// contiguous.
  RWKV_HD static int place(int c) {
    const int in_sweep = c % sweep, in_piece = in_sweep % piece;
    return c - in_sweep + in_piece / lanes * (warp_size * lanes) + in_sweep / piece * lanes + in_piece % lanes;
  }
};

/// A matrix [rows, depth], the mix of its tokens, the destination of its sums, and the blocks that share its rows.
template <class W, class Out>
struct DecodeProduct {
  const W* w;
  int rows, stride;
  const W* mix;
  Out out;
  unsigned blocks = 0;
};
template <class W, Index N, class Out>
DecodeProduct<std::remove_const_t<W>, Out> decode_product(const Mat<W, N>& w, const std::remove_const_t<W>* mix,
                                                          const Out& out) {
  constexpr Index most = Index{1} << 30;
  expects(w.rows <= most && w.stride <= most, "rwkv: a matrix of ", w.rows, " rows of ", w.stride,
          " numbers is more than a step on a GPU takes");
  return {w.data, static_cast<int>(w.rows), static_cast<int>(w.stride), mix, out};
}
/// Products of the same tokens. `parts` warps share a row.
template <class W, class Out, int Count>
struct DecodeProducts {
  DecodeProduct<W, Out> each[Count];
  int batch, depth, parts = 1;
};

/// The weights that a lane holds of the rows of its warp.
template <class D>
struct WeightPieces {
  typename D::Held v[D::depth][D::rows];
};

/// The place of a thread among the rows and columns of a matrix.
template <class D>
struct DecodePlace {
  using T = typename D::scalar;
  using W = typename D::weight;

  const W* w;
  int stride, rows, depth, parts, lane, part, warp_row;

  __device__ int sweeps() const { return (depth + D::sweep - 1) / D::sweep; }
  /// Steps of a warp along a row, `depth` sweeps each.
  __device__ int tiles() const { return (sweeps() + parts * D::depth - 1) / (parts * D::depth); }
  /// The first row of the warp in a group of rows of the block.
  __device__ int row(int group) const { return (group * (work_warps / parts) + warp_row) * D::rows; }
  __device__ int sweep(int tile, int d) const { return (tile * D::depth + d) * parts + part; }

  __device__ WeightPieces<D> load(int group, int tile) const {
    WeightPieces<D> pieces{};
    const int first = row(group);
    RWKV_KERNEL_UNROLL for (int d = 0; d < D::depth; ++d) {
      const int c = sweep(tile, d) * D::sweep + lane * D::piece;
      RWKV_KERNEL_UNROLL for (int r = 0; r < D::rows; ++r) {
        if (c < depth && first + r < rows) {
          pieces.v[d][r] =
              detail::bits_as<typename D::Held>(detail::load_piece<D::piece>(w + Index{first + r} * stride + c));
        }
      }
    }
    return pieces;
  }

  /// Adds the products of a tile to the sums. x: the staged chunk, in which it is tile number `in_chunk`.
  template <class S>
  __device__ void multiply(const WeightPieces<D>& pieces, int tile, int in_chunk, const S* x, int x_stride,
                           T (&sums)[D::rows * D::sequences]) const {
    RWKV_KERNEL_UNROLL for (int d = 0; d < D::depth; ++d) {
      if (sweep(tile, d) >= sweeps()) break;
      const S* const from = x + sweep(in_chunk, d) * D::sweep + lane * D::lanes;
      RWKV_KERNEL_UNROLL for (int h = 0; h < D::piece / D::lanes; ++h) {
        T weights[D::rows][D::lanes];
        RWKV_KERNEL_UNROLL for (int r = 0; r < D::rows; ++r) {
          const auto piece = detail::bits_as<typename D::Piece>(pieces.v[d][r]);
          RWKV_KERNEL_UNROLL for (int q = 0; q < D::lanes; ++q) {
            weights[r][q] = detail::widen_fast<T>(piece.v[h * D::lanes + q]);
          }
        }
        RWKV_KERNEL_UNROLL for (int n = 0; n < D::sequences; ++n) {
          const auto numbers = detail::load_shared<T, D::lanes>(from + n * x_stride + h * (warp_size * D::lanes));
          RWKV_KERNEL_UNROLL for (int r = 0; r < D::rows; ++r) {
            RWKV_KERNEL_UNROLL for (int q = 0; q < D::lanes; ++q) {
              using std::fma;
              T& sum = sums[r * D::sequences + n];
              sum = fma(weights[r][q], numbers.v[q], sum);
            }
          }
        }
      }
    }
  }
};

/// Stages the columns [begin, begin + stride) of the source in shared memory, with zeros beyond the last column and the
/// last sequence. Barriers before and after are the caller's.
template <class D, class Source, class S>
__device__ void stage_chunk_block(const Source& source, const S* totals, int batch, int begin, int depth, S* x,
                                  int stride) {
  using R = typename D::Numbers;
  // As many sequences at a time as there are registers for beside the first weights.
  constexpr int together = D::sequences < 4 ? D::sequences : 4;
  for (int first = 0; first < D::sequences; first += together) {
    for (int c = static_cast<int>(threadIdx.x) * D::lanes; c < stride; c += work_threads * D::lanes) {
      const int column = begin + c, place = D::place(c);
      const bool inside = column < depth;
      typename Source::template Channels<R> channels{};
      if (inside) {
        channels = source.template channels<R>(column);
      }
      RWKV_KERNEL_UNROLL for (int i = 0; i < together; ++i) {
        const int n = first + i;
        R value(0);
        if (inside && n < batch) value = source.template load<R>(channels, totals, n, column);
        detail::Piece<typename D::scalar, D::lanes> piece;
        RWKV_KERNEL_UNROLL for (int q = 0; q < D::lanes; ++q) piece.v[q] = value.v[q];
        detail::store_shared<typename D::scalar, D::lanes>(x + n * stride + place, piece);
      }
    }
  }
}

/// Blocks belong to the first product, then to the next. A block takes every `blocks`-th group of rows of its product.
/// stride    the columns of a vector in shared memory
template <class D, class Source, class Out, int Count>
RWKV_KERNEL void __launch_bounds__(work_threads, D::blocks)
    decode_kernel(Source source, DecodeProducts<typename D::weight, Out, Count> products,
                  ShiftCopy<typename D::scalar> shift, int stride) {
  using T = typename D::scalar;
  using R = typename D::Numbers;
  constexpr int sums_of_warp = D::rows * D::sequences;
  using Totals = std::conditional_t<(Source::totals > 0), Source, NoMix>;
  detail::let_successor_begin();

  DecodeProduct<typename D::weight, Out> own = products.each[0];
  unsigned first_block = 0, next_block = own.blocks;
  RWKV_KERNEL_UNROLL for (int i = 1; i < Count; ++i) {
    if (blockIdx.x >= next_block) {
      own = products.each[i];
      first_block = next_block;
    }
    next_block += products.each[i].blocks;
  }
  const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
  const int parts = products.parts, batch = products.batch;
  const DecodePlace<D> place{own.w, own.stride, own.rows, products.depth, parts, lane, warp % parts, warp / parts};
  const int group_rows = work_warps / parts * D::rows, step = static_cast<int>(own.blocks);
  const int groups = (place.rows + group_rows - 1) / group_rows,
            first_group = static_cast<int>(blockIdx.x - first_block);
  const int tiles = place.tiles(), chunk_tiles = D::chunk / (D::sweep * D::depth * parts);
  WeightPieces<D> pieces = place.load(first_group, 0);

  detail::wait_for_predecessor();
  shift.run(Index{blockIdx.x} * work_threads + thread, Index{gridDim.x} * work_threads);
  detail::SharedElement<T>* const x = detail::dynamic_shared<T>();
  __shared__ detail::SharedElement<T> totals[D::sequences * (Source::totals + 1)];
  if constexpr (!std::is_same_v<Totals, NoMix>) {
    using Norm = DecodeTotals<R, D::sequences, decltype(source.program), T, detail::SharedElement<T>>;
    __shared__ detail::SharedElement<T> partial[Norm::partial_numbers];
    Norm::run_block(source.program, source.x, source.width, batch, partial, totals);
    source.mix = own.mix;
    if (blockIdx.x != 0) source.normed = nullptr;
  }
  __shared__ detail::SharedElement<T> partial_sums[work_warps * sums_of_warp];

  for (int group = first_group; group < groups; group += step) {
    T sums[sums_of_warp];
    RWKV_KERNEL_UNROLL for (int i = 0; i < sums_of_warp; ++i) sums[i] = T(0);
    for (int tile = 0; tile < tiles; ++tile) {
      const int in_chunk = tile & (chunk_tiles - 1);  // a power of two
      // When all columns fit in one chunk, they are staged once.
      if (in_chunk == 0 && (group == first_group || tiles > chunk_tiles)) {
        __syncthreads();
        stage_chunk_block<D>(source, static_cast<const detail::SharedElement<T>*>(totals), batch,
                             tile * parts * (D::sweep * D::depth), products.depth, x, stride);
        __syncthreads();
      }
      const bool last = tile + 1 == tiles;
      const WeightPieces<D> next = place.load(last ? group + step : group, last ? 0 : tile + 1);
      place.multiply(pieces, tile, in_chunk, static_cast<const detail::SharedElement<T>*>(x), stride, sums);
      pieces = next;
    }
    T sum = sums_warp<sums_of_warp>(sums, lane);
    constexpr int share = warp_size / sums_of_warp;  // lanes that hold the same sum
    const int number = lane / share;
    if (parts > 1) {
      __syncthreads();
      if (lane % share == 0) partial_sums[warp * sums_of_warp + number] = sum;
      __syncthreads();
      if (warp % parts != 0) continue;
      for (int part = 1; part < parts; ++part)
        sum += static_cast<T>(partial_sums[(warp + part) * sums_of_warp + number]);
    }
    const int row = place.row(group) + number / D::sequences;
    const int n = number % D::sequences;
    if (lane % share == 0 && n < batch && row < place.rows) own.out(n, row, sum);
  }
}

template <class D, class Source, class Out, int Count>
void launch_decode(const CudaStream& stream, const Source& source,
                   DecodeProducts<typename D::weight, Out, Count> products,
                   const ShiftCopy<typename D::scalar>& shift) {
  const int sweeps = (products.depth + D::sweep - 1) / D::sweep;
  Index rows = 0, groups = 0;
  for (const auto& product : products.each) rows += product.rows;
  // Warps share rows where there are too few rows for the largest devices. Sizes alone decide, as the order of
  // additions depends on it.
  constexpr Index enough_rows = Index{2 * 132} * work_warps;
  while (products.parts < most_parts && products.parts * 2 <= sweeps && rows * products.parts < enough_rows) {
    products.parts *= 2;
  }
  const Index group_rows = Index{work_warps / products.parts} * D::rows;
  const auto groups_of = [&](const auto& product) { return (product.rows + group_rows - 1) / group_rows; };
  for (const auto& product : products.each) groups += groups_of(product);
  const Index at_once = Index{stream.properties().multiProcessorCount} * D::blocks;
  const Index each = (groups + at_once - 1) / at_once;
  unsigned blocks = 0;
  for (auto& product : products.each) blocks += product.blocks = blocks_for(groups_of(product), each);
  const int stride = sweeps * D::sweep < D::chunk ? sweeps * D::sweep : D::chunk;
  stream.launch({.grid = dim3(blocks),
                 .block = dim3(work_threads),
                 .shared_bytes = static_cast<std::size_t>(stride) * D::sequences * sizeof(typename D::scalar),
                 .early = true},
                decode_kernel<D, Source, Out, Count>, source, products, shift, stride);
}

/// Launches the products for 1 to most_decoded sequences.
template <class T, class W, class Source, class Out, int Count>
void decode(const CudaStream& stream, const Source& source, const DecodeProducts<W, Out, Count>& products,
            const ShiftCopy<T>& shift = {}) {
  using Tile = DecodeTile<T, W, 1, true>;
  bool aligned = products.depth % Tile::piece == 0 && source_aligned<typename Tile::Numbers>(source);
  for (const auto& product : products.each) {
    aligned = aligned && is_aligned<Tile::piece>(product.w, product.stride) && is_aligned<Tile::lanes>(product.mix);
  }
  if (!aligned) return launch_decode<DecodeTile<T, W, most_decoded, false>>(stream, source, products, shift);
  if (products.batch == 1) return launch_decode<DecodeTile<T, W, 1, true>>(stream, source, products, shift);
  if (products.batch == 2) return launch_decode<DecodeTile<T, W, 2, true>>(stream, source, products, shift);
  if (products.batch <= 4) return launch_decode<DecodeTile<T, W, 4, true>>(stream, source, products, shift);
  launch_decode<DecodeTile<T, W, most_decoded, true>>(stream, source, products, shift);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
