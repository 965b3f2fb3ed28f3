#pragma once
/// Matrix products of one token of a few sequences: kernels that are bound by the weights they read. A block normalises
/// and mixes the tokens into shared memory by itself and multiplies its share of the rows. The first weights are on
/// their way before a kernel waits for the one in front of it.
#include <cstdint>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/cuda/step/work.cuh"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/rows.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int decode_threads = work_threads;
inline constexpr int decode_warps = decode_threads / warp_size;
/// Sequences that a block multiplies at most, and warps that share a row at most.
inline constexpr Index most_decoded = 8;
inline constexpr int most_parts = 4;

/// How a block multiplies rows of weights W by vectors of T, one of each sequence. A lane takes 16 bytes of a row at a
/// time when the matrix is `Aligned`, else single weights. Sums have the same order for every number of sequences.
template <class T, class W, int Sequences, bool Aligned>
struct DecodeTile {
  using scalar = T;
  using weight = W;
  static constexpr int sequences = Sequences;
  static constexpr int rows = Sequences < 4 ? Sequences : 4;       ///< of a warp
  static constexpr int depth = 4 / rows;                           ///< pieces of a row that a lane loads at a time
  static constexpr int piece = Aligned ? 16 / int{sizeof(W)} : 1;  ///< weights
  static constexpr int lanes = piece * int{sizeof(T)} < 16 ? piece : 16 / int{sizeof(T)};
  using Numbers = Several<T, lanes>;
  using Piece = detail::Piece<W, piece>;
  using Held = std::conditional_t<Aligned, detail::Word128, Piece>;      ///< a piece as registers hold it, packed
  static constexpr int sweep = warp_size * piece;                        ///< columns that a warp takes at a time
  static constexpr int chunk = (64 << 10) / int{sizeof(T)} / sequences;  ///< columns in shared memory at a time
  static constexpr int blocks = sequences == 1 ? 3 : 2;                  ///< of a multiprocessor
  static_assert(chunk % (sweep * depth * most_parts) == 0);

  /// Where shared memory has column c of a chunk: what the lanes of a warp read at a time lies side by side.
  RWKV_HD static int place(int c) {
    const int in_sweep = c % sweep, in_piece = in_sweep % piece;
    return c - in_sweep + in_piece / lanes * (warp_size * lanes) + in_sweep / piece * lanes + in_piece % lanes;
  }
};

/// The smallest power of two that is not below n.
RWKV_HD constexpr int power_of_two_from(int n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

/// The sums of M numbers over a warp, each in 32 / M lanes: those of sum i begin at lane 32 / M * i. In the order of
/// warp_sum.
template <int M, int Lanes = warp_size / 2, class T>
__device__ T warp_sums(T* x, int lane) {
  static_assert(M >= 1 && M <= warp_size && (M & (M - 1)) == 0);
  if constexpr (Lanes == 0) {
    return x[0];
  } else if constexpr (M == 1) {
    x[0] += __shfl_xor_sync(whole_warp, x[0], Lanes);
    return warp_sums<1, Lanes / 2>(x, lane);
  } else {
    const bool upper = (lane & Lanes) != 0;
    RWKV_KERNEL_UNROLL for (int i = 0; i < M / 2; ++i) {
      const T kept = upper ? x[i + M / 2] : x[i], given = upper ? x[i] : x[i + M / 2];
      x[i] = kept + __shfl_xor_sync(whole_warp, given, Lanes);
    }
    return warp_sums<M / 2, Lanes / 2>(x, lane);
  }
}

/// The totals of a row program over `width` channels of each of the first `batch` of N rows x, left in shared memory,
/// [N, totals]. `partial` is shared memory for partial_numbers.
template <class R, int N, class Program, class T, class S>
class DecodeTotals {
  using stages = typename Program::stages;

 public:
  static constexpr int count = stages::total;
  static constexpr int partial_numbers = warp_size * decode_warps;

  __device__ static void run(const Program& program, const T* x, int width, int batch, S* partial, S* totals) {
    run(std::make_integer_sequence<int, stages::count>(), program, x, width, batch, partial, totals);
  }

 private:
  template <int... Nth>
  __device__ static void run(std::integer_sequence<int, Nth...>, const Program& program, const T* x, int width,
                             int batch, S* partial, S* totals) {
    (stage<Nth>(program, x, width, batch, partial, totals), ...);
  }

  template <int Nth>
  __device__ static void stage(const Program& program, const T* x, int width, int batch, S* partial, S* totals) {
    constexpr int first = stages::before(Nth), terms = stages::before(Nth + 1) - first;
    constexpr int numbers = power_of_two_from(N * terms);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
    R earlier[N][first + 1];
    T sums[numbers];
    RWKV_KERNEL_UNROLL for (int n = 0; n < N; ++n) {
      RWKV_KERNEL_UNROLL for (int k = 0; k < first; ++k) earlier[n][k] = R(static_cast<T>(totals[n * count + k]));
    }
    RWKV_KERNEL_UNROLL for (int i = 0; i < numbers; ++i) sums[i] = T(0);
    for (int c = thread * R::size; c < width; c += decode_threads * R::size) {
      RWKV_KERNEL_UNROLL for (int n = 0; n < N; ++n) {
        if (n < batch) {
          R term[terms];
          program.reduce(Stage<Nth>{}, static_cast<const R*>(earlier[n]), term, R::load(x + Index{n} * width + c));
          RWKV_KERNEL_UNROLL for (int k = 0; k < terms; ++k) sums[n * terms + k] += sum_lanes(term[k]);
        }
      }
    }
    const T sum = warp_sums<numbers>(sums, lane);
    constexpr int share = warp_size / numbers;
    if (lane % share == 0) partial[warp * numbers + lane / share] = sum;
    __syncthreads();
    if (thread < N) {
      R all[first + terms];
      RWKV_KERNEL_UNROLL for (int k = 0; k < first; ++k) all[k] = R(static_cast<T>(totals[thread * count + k]));
      RWKV_KERNEL_UNROLL for (int k = 0; k < terms; ++k) {
        T total(0);
        for (int w = 0; w < decode_warps; ++w) total += static_cast<T>(partial[w * numbers + thread * terms + k]);
        all[first + k] = R(total);
      }
      if constexpr (requires { program.finish(Stage<Nth>{}, all); }) program.finish(Stage<Nth>{}, all);
      RWKV_KERNEL_UNROLL for (int k = 0; k < first + terms; ++k) totals[thread * count + k] = all[k].v[0];
    }
    __syncthreads();
  }
};

/// In place of a rule of mixing: tokens are normalised only.
struct NoMix {};

/// What a product is multiplied by: rows x [batch, width] as they are.
template <class T>
struct PlainRows {
  const T* x;
  int width;

  static constexpr int totals = 0;
  template <class R>
  struct Channels {};

  template <class R>
  __device__ Channels<R> channels(int) const {
    return {};
  }
  template <class R, class S>
  __device__ R load(const Channels<R>&, const S*, int n, int c) const {
    return R::load(x + Index{n} * width + c);
  }
};

/// Rows x [batch, width] normalised by a row program and mixed with those before by a rule. `normed`, when there is
/// one, receives them as they were normalised.
template <class Program, class Rule, class T, class W>
struct NormedRows {
  Program program;
  const T* x;
  int width;
  const W *scale, *bias;
  Mat<const T> before;
  T* normed;
  const W* mix = nullptr;

  static constexpr int totals = Program::stages::total;
  template <class R>
  struct Channels {
    R scale, bias, mix;
  };

  template <class R>
  __device__ Channels<R> channels(int c) const {
    Channels<R> channels;
    channels.scale = R::load(scale + c);
    channels.bias = R::load(bias + c);
    if constexpr (!std::is_same_v<Rule, NoMix>) channels.mix = R::load(mix + c);
    return channels;
  }
  template <class R, class S>
  __device__ R normalise(const Channels<R>& channels, const S* shared_totals, int n, int c) const {
    R all[totals], y;
    RWKV_KERNEL_UNROLL for (int k = 0; k < totals; ++k) all[k] = R(static_cast<T>(shared_totals[n * totals + k]));
    program.map(static_cast<const R*>(all), R::load(x + Index{n} * width + c), channels.scale, channels.bias, y);
    return y;
  }
  template <class R, class S>
  __device__ R load(const Channels<R>& channels, const S* shared_totals, int n, int c) const {
    const R y = normalise(channels, shared_totals, n, c);
    if (normed != nullptr) y.store(normed + Index{n} * width + c);
    if constexpr (std::is_same_v<Rule, NoMix>) return y;
    else return Rule::mix(y, R::load(before.row(n) + c), channels.mix);
  }
};

/// Where sums go: to a vector of each sequence, with or without the activation.
template <class Activation, class T>
struct StoreSums {
  T* to;
  int width;
  bool activated = false;

  __device__ void operator()(int n, int row, T sum) const {
    const One<T> value(sum);
    to[Index{n} * width + row] = activated ? Activation{}(value).v : sum;
  }
};
/// y = x + sum.
template <class T>
struct AddSums {
  const T* x;
  T* y;
  int width;

  __device__ void operator()(int n, int row, T sum) const {
    y[Index{n} * width + row] = x[Index{n} * width + row] + sum;
  }
};
/// y += gate(r, sum).
template <class Gate, class T>
struct GateSums {
  const T* r;
  T* y;
  int width;

  __device__ void operator()(int n, int row, T sum) const {
    One<T> gated;
    Gate{}.map(One<T>(r[Index{n} * width + row]), One<T>(sum), gated);
    y[Index{n} * width + row] += gated.v;
  }
};

/// A copy of the tokens [batch, width] into a token-shift state, or none.
template <class T>
struct ShiftCopy {
  const T* from = nullptr;
  Mat<T> to{};

  __device__ void run(Index begin, Index step) const {
    if (from == nullptr) return;
    const auto width = static_cast<std::uint32_t>(to.cols), numbers = static_cast<std::uint32_t>(to.rows) * width;
    for (auto i = static_cast<std::uint32_t>(begin); i < numbers; i += static_cast<std::uint32_t>(step)) {
      to(i / width, i % width) = from[i];
    }
  }
};

/// A matrix [rows, depth], its own mix where tokens are mixed, where its sums go, and the blocks that share its rows.
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

/// What a lane has of the rows of its warp.
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
  /// Steps of a warp along a row.
  __device__ int tiles() const { return (sweeps() + parts * D::depth - 1) / (parts * D::depth); }
  /// The first of the rows of a warp in a group of a block's rows.
  __device__ int row(int group) const { return (group * (decode_warps / parts) + warp_row) * D::rows; }
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

  /// Adds what a tile contributes; x: the chunk of the sequences' vectors in which it is tile number `in_chunk`.
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

/// Leaves the columns [begin, begin + chunk) of what the products are multiplied by in shared memory, zeros beyond the
/// last column and the last sequence.
template <class D, class Source, class S>
__device__ void stage_chunk(const Source& source, const S* totals, int batch, int begin, int depth, S* x, int stride) {
  using R = typename D::Numbers;
  // As many sequences together as registers hold beside the first weights.
  constexpr int together = D::sequences < 4 ? D::sequences : 4;
  for (int first = 0; first < D::sequences; first += together) {
    for (int c = static_cast<int>(threadIdx.x) * D::lanes; c < stride; c += decode_threads * D::lanes) {
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

/// Products of one token of each sequence. Blocks are those of the first product, then of the next; a block takes
/// every `blocks`-th group of rows of its product. `stride`: the columns of a vector in shared memory.
template <class D, class Source, class Out, int Count>
RWKV_KERNEL void __launch_bounds__(decode_threads, D::blocks)
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
  const int group_rows = decode_warps / parts * D::rows, step = static_cast<int>(own.blocks);
  const int groups = (place.rows + group_rows - 1) / group_rows,
            first_group = static_cast<int>(blockIdx.x - first_block);
  const int tiles = place.tiles(), chunk_tiles = D::chunk / (D::sweep * D::depth * parts);
  WeightPieces<D> pieces = place.load(first_group, 0);

  detail::wait_for_predecessor();
  shift.run(Index{blockIdx.x} * decode_threads + thread, Index{gridDim.x} * decode_threads);
  detail::Shared<T>* const x = detail::dynamic_shared<T>();
  __shared__ detail::Shared<T> totals[D::sequences * (Source::totals + 1)];
  if constexpr (!std::is_same_v<Totals, NoMix>) {
    using Norm = DecodeTotals<R, D::sequences, decltype(source.program), T, detail::Shared<T>>;
    __shared__ detail::Shared<T> partial[Norm::partial_numbers];
    Norm::run(source.program, source.x, source.width, batch, partial, totals);
    source.mix = own.mix;
    if (blockIdx.x != 0) source.normed = nullptr;
  }
  __shared__ detail::Shared<T> partial_sums[decode_warps * sums_of_warp];

  for (int group = first_group; group < groups; group += step) {
    T sums[sums_of_warp];
    RWKV_KERNEL_UNROLL for (int i = 0; i < sums_of_warp; ++i) sums[i] = T(0);
    for (int tile = 0; tile < tiles; ++tile) {
      const int in_chunk = tile & (chunk_tiles - 1);  // a power of two
      // Vectors of one chunk stay where they are.
      if (in_chunk == 0 && (group == first_group || tiles > chunk_tiles)) {
        __syncthreads();
        stage_chunk<D>(source, static_cast<const detail::Shared<T>*>(totals), batch,
                       tile * parts * (D::sweep * D::depth), products.depth, x, stride);
        __syncthreads();
      }
      const bool last = tile + 1 == tiles;
      const WeightPieces<D> next = place.load(last ? group + step : group, last ? 0 : tile + 1);
      place.multiply(pieces, tile, in_chunk, static_cast<const detail::Shared<T>*>(x), stride, sums);
      pieces = next;
    }
    T sum = warp_sums<sums_of_warp>(sums, lane);
    constexpr int share = warp_size / sums_of_warp;  // lanes that have the same sum
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

template <class R, class T>
bool is_aligned_source(const PlainRows<T>& rows) {
  return has_pieces<R::size>(rows.x, rows.width);
}
template <class R, class Program, class Rule, class T, class W>
bool is_aligned_source(const NormedRows<Program, Rule, T, W>& rows) {
  constexpr int N = R::size;
  return has_pieces<N>(rows.x, rows.width) && has_pieces<N>(rows.normed, rows.width) &&
         has_pieces<N>(rows.before.data, rows.before.stride) && has_pieces<N>(rows.scale) && has_pieces<N>(rows.bias) &&
         has_pieces<N>(rows.mix);
}

template <class D, class Source, class Out, int Count>
void launch_decode(const CudaStream& stream, const Source& source,
                   DecodeProducts<typename D::weight, Out, Count> products,
                   const ShiftCopy<typename D::scalar>& shift) {
  const int sweeps = (products.depth + D::sweep - 1) / D::sweep;
  Index rows = 0, groups = 0;
  for (const auto& product : products.each) rows += product.rows;
  // Enough blocks for the largest devices; by sizes alone, because the order of sums depends on it.
  constexpr Index enough_rows = Index{2 * 132} * decode_warps;
  while (products.parts < most_parts && products.parts * 2 <= sweeps && rows * products.parts < enough_rows) {
    products.parts *= 2;
  }
  const Index group_rows = Index{decode_warps / products.parts} * D::rows;
  const auto groups_of = [&](const auto& product) { return (product.rows + group_rows - 1) / group_rows; };
  for (const auto& product : products.each) groups += groups_of(product);
  const Index at_once = Index{stream.properties().multiProcessorCount} * D::blocks;
  const Index each = (groups + at_once - 1) / at_once;
  unsigned blocks = 0;
  for (auto& product : products.each) blocks += product.blocks = blocks_for(groups_of(product), each);
  const int stride = sweeps * D::sweep < D::chunk ? sweeps * D::sweep : D::chunk;
  stream.launch({.grid = dim3(blocks),
                 .block = dim3(decode_threads),
                 .shared_bytes = static_cast<std::size_t>(stride) * D::sequences * sizeof(typename D::scalar),
                 .early = true},
                decode_kernel<D, Source, Out, Count>, source, products, shift, stride);
}

/// Multiplies the tokens of 1 to most_decoded sequences.
template <class T, class W, class Source, class Out, int Count>
void decode(const CudaStream& stream, const Source& source, const DecodeProducts<W, Out, Count>& products,
            const ShiftCopy<T>& shift = {}) {
  using Whole = DecodeTile<T, W, 1, true>;
  bool aligned = products.depth % Whole::piece == 0 && is_aligned_source<typename Whole::Numbers>(source);
  for (const auto& product : products.each) {
    aligned = aligned && has_pieces<Whole::piece>(product.w, product.stride) && has_pieces<Whole::lanes>(product.mix);
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
