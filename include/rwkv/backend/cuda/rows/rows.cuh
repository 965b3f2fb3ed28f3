#pragma once
/// The verb `rows`: row programs as kernels.
///
/// Without stages (rows_kernel) threads do not cooperate: each takes R::size neighbouring channels of a tile of tokens.
///
/// With stages (staged_rows_kernel) a block takes a group of channels of a tile of tokens, and for each token:
/// 1. Each thread loads its channels, into registers where the group fits.
/// 2. For each stage, each thread reduces its channels, and the block adds up the totals.
/// 3. Each thread maps its channels.
///
/// Operands that are a `sum` over tokens: each tile adds up its tokens in registers and stores its sums, then
/// partial_sums.cuh adds the tiles. Tiles depend on sizes alone.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/partial_sums.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/backend/rows.hpp"
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// How a row program is cut: into tiles of `tokens_per_tile` neighbouring tokens, and into the channels of a block.
struct RowTiles {
  Index batch, time, width;
  Index tokens_per_tile;
  unsigned channel_blocks;  ///< blocks (or groups) across the channels

  RWKV_HD Index tokens() const { return batch * time; }
};

/// Calls run(operands...) with each `sum` replaced by the register that adds up its tokens.
template <class R, class Run, std::size_t... Nth, class... Op>
__device__ void with_totals(R* totals, std::index_sequence<Nth...>, const Run& run, const Op&... ops) {
  const auto replaced = [&](auto nth, const auto& op) {
    using Operand = std::remove_cvref_t<decltype(op)>;
    if constexpr (detail::is_sum<Operand>) {
      constexpr std::size_t before = detail::sums_before<Op...>(decltype(nth)::value);
      return detail::Total<R>{totals + before};
    } else {
      return op;
    }
  };
  run(replaced(std::integral_constant<std::size_t, Nth>{}, ops)...);
}

inline constexpr int row_threads = 128;

/// A program without stages. Blocks are (channels, tiles). partial: [tiles, sums, width].
template <class R, class P, class T, class... Op>
RWKV_KERNEL void __launch_bounds__(row_threads, 1) rows_kernel(P program, RowTiles tiles, T* partial, Op... ops) {
  const Index channel_block = blockIdx.x % tiles.channel_blocks;
  const Index tile = Index{blockIdx.x / tiles.channel_blocks} * blockDim.y + threadIdx.y;
  const Index c = (channel_block * blockDim.x + threadIdx.x) * R::size;
  if (c >= tiles.width) return;
  const Index begin = tile * tiles.tokens_per_tile, left = tiles.tokens() - begin;
  const Index count = left < tiles.tokens_per_tile ? left : tiles.tokens_per_tile;
  constexpr int sums = static_cast<int>(detail::sum_count<Op...>);
  R totals[sums + 1];
  RWKV_UNROLL for (int n = 0; n < sums; ++n) totals[n] = R(0);
  for (Index i = 0; i < count; ++i) {
    const auto token = static_cast<std::uint32_t>(begin + i), time = static_cast<std::uint32_t>(tiles.time);
    const Index b = token / time, t = token % time;
    with_totals(
        totals, std::index_sequence_for<Op...>(),
        [&](const auto&... own) { apply_channels<R>(program, b, t, c, detail::AllLanes{}, own...); }, ops...);
  }
  if (count <= 0) return;
  RWKV_UNROLL for (int n = 0; n < sums; ++n) totals[n].store(partial + (tile * sums + n) * tiles.width + c);
}

/// Vectors of R::size channels that a thread of a program with stages holds in registers.
inline constexpr int row_vectors = 2;
inline constexpr int most_row_threads = 512;

/// The numbers of one operand at the channels of a thread.
template <class R>
struct ThreadChannels {
  R value[row_vectors];
};

/// A program with stages. `InRegisters`: the threads hold the whole group in registers and load it once; otherwise
/// every stage passes over the group again.
template <class R, bool InRegisters, class P, class T, class... Op>
class RowsInStages {
  using stages = typename P::stages;
  using Scalar = typename R::scalar;
  static constexpr int sums = static_cast<int>(detail::sum_count<Op...>);
  static constexpr int most_terms = [] {
    int most = 1;
    for (int s = 0; s < stages::count; ++s) {
      const int terms = stages::before(s + 1) - stages::before(s);
      most = terms > most ? terms : most;
    }
    return most;
  }();

 public:
  static constexpr int shared_numbers = most_terms * most_row_threads / warp_size;

  template <class S>
  __device__ static void run_block(const P& program, const RowTiles& tiles, T* partial, S* shared, const Op&... ops) {
    const Index group = tiles.width / tiles.channel_blocks;
    const Index tile = blockIdx.x / tiles.channel_blocks, first = (blockIdx.x % tiles.channel_blocks) * group;
    const Index begin = tile * tiles.tokens_per_tile, left = tiles.tokens() - begin;
    const Index count = left < tiles.tokens_per_tile ? left : tiles.tokens_per_tile;
    R totals[sums * row_vectors + 1];
    RWKV_UNROLL for (int n = 0; n < sums * row_vectors; ++n) totals[n] = R(0);
    T* const own = partial + tile * sums * tiles.width;
    if constexpr (!InRegisters) clear(own, first, group, tiles.width);
    for (Index i = 0; i < count; ++i) {
      const auto token = static_cast<std::uint32_t>(begin + i), time = static_cast<std::uint32_t>(tiles.time);
      RowsInStages(program, token / time, token % time, first, group)
          .token_block(totals, own, tiles.width, shared, ops...);
    }
    if constexpr (InRegisters) {
      RWKV_UNROLL for (int k = 0; k < row_vectors; ++k) {
        const Index c = channel(0, k);
        if (c >= group) break;
        RWKV_UNROLL for (int n = 0; n < sums; ++n) { totals[k * sums + n].store(own + n * tiles.width + first + c); }
      }
    }
  }

 private:
  __device__ RowsInStages(const P& program, Index b, Index t, Index first, Index group)
      : program_(program), b_(b), t_(t), first_(first), group_(group) {}

  /// The first channel of vector k of this thread, in the pass over the group that begins at channel `pass`.
  __device__ static Index channel(Index pass, int k) {
    return pass + (Index{threadIdx.x} + Index{blockDim.x} * k) * R::size;
  }
  __device__ static Index pass_length() { return Index{blockDim.x} * row_vectors * R::size; }

  __device__ static void clear(T* own, Index first, Index group, Index width) {
    for (Index c = channel(0, 0); c < group; c += Index{blockDim.x} * R::size) {
      RWKV_UNROLL for (int n = 0; n < sums; ++n) R(0).store(own + n * width + first + c);
    }
  }

  template <class S>
  __device__ void token_block(R* totals, T* own, Index width, S* shared, const Op&... ops) const {
    token_block(totals, own, width, shared, std::make_integer_sequence<int, stages::count>(), ops...,
                load(ThreadChannels<R>{}, 0, ops)...);
  }

  template <class Operand>
  __device__ ThreadChannels<R> load(ThreadChannels<R> vectors, Index pass, const Operand& op) const {
    if constexpr (!detail::is_output<Operand>) {
      RWKV_UNROLL for (int k = 0; k < row_vectors; ++k) {
        const Index c = channel(pass, k);
        if (c < group_) vectors.value[k] = R::load(op.row(b_, t_) + first_ + c);
      }
    }
    return vectors;
  }

  template <class S, int... Nth, class... Loaded>
  __device__ void token_block(R* totals, T* own, Index width, S* shared, std::integer_sequence<int, Nth...>,
                              const Op&... ops, Loaded... vectors) const {
    R reduced[stages::total + 1];
    (stage_block<Nth>(reduced, shared, ops..., vectors...), ...);
    for (Index pass = 0; pass < group_; pass += pass_length()) {
      if constexpr (!InRegisters) ((vectors = load(vectors, pass, ops)), ...);
      RWKV_UNROLL for (int k = 0; k < row_vectors; ++k) {
        const Index c = channel(pass, k);
        if (c < group_)
          map(std::index_sequence_for<Op...>(), reduced, totals + k * sums, own, width, c, ops..., vectors.value[k]...);
      }
    }
  }

  template <int Nth, class S, class... Loaded>
  __device__ void stage_block(R* reduced, S* shared, const Op&... ops, Loaded... vectors) const {
    constexpr int terms = stages::before(Nth + 1) - stages::before(Nth);
    R added[terms];
    RWKV_UNROLL for (int n = 0; n < terms; ++n) added[n] = R(0);
    for (Index pass = 0; pass < group_; pass += pass_length()) {
      if constexpr (!InRegisters) ((vectors = load(vectors, pass, ops)), ...);
      RWKV_UNROLL for (int k = 0; k < row_vectors; ++k) {
        if (channel(pass, k) < group_) {
          R term[terms];
          program_.reduce(Stage<Nth>{}, static_cast<const R*>(reduced), term, vectors.value[k]...);
          RWKV_UNROLL for (int n = 0; n < terms; ++n) added[n] += term[n];
        }
      }
    }
    Scalar sum[terms];
    RWKV_UNROLL for (int n = 0; n < terms; ++n) sum[n] = sum_lanes(added[n]);
    sum_block(sum, shared);
    RWKV_UNROLL for (int n = 0; n < terms; ++n) reduced[stages::before(Nth) + n] = R(sum[n]);
    if constexpr (requires { program_.finish(Stage<Nth>{}, reduced); }) program_.finish(Stage<Nth>{}, reduced);
  }

  template <std::size_t... Nth, class... Value>
  __device__ void map(std::index_sequence<Nth...> order, const R* reduced, R* totals, T* own, Index width, Index c,
                      const Op&... ops, Value... values) const {
    const auto run = [&](const auto&... operands) {
      detail::map_slots<R>(program_, reduced,
                           detail::Slot<R, std::remove_cvref_t<decltype(operands)>, detail::AllLanes>(
                               operands, b_, t_, first_ + c, {}, values)...);
    };
    if constexpr (InRegisters) {
      with_totals(totals, order, run, ops...);
    } else {
      R added[sums + 1];
      RWKV_UNROLL for (int n = 0; n < sums; ++n) added[n] = R::load(own + n * width + first_ + c);
      with_totals(added, order, run, ops...);
      RWKV_UNROLL for (int n = 0; n < sums; ++n) added[n].store(own + n * width + first_ + c);
    }
  }

  const P& program_;
  Index b_, t_, first_, group_;
};

template <class R, bool InRegisters, class P, class T, class... Op>
RWKV_KERNEL void __launch_bounds__(most_row_threads, 1)
    staged_rows_kernel(P program, RowTiles tiles, T* partial, Op... ops) {
  using Rows = RowsInStages<R, InRegisters, P, T, Op...>;
  __shared__ detail::SharedElement<typename R::scalar> shared[Rows::shared_numbers];
  Rows::run_block(program, tiles, partial, shared, ops...);
}

/// Bytes of an element of a sequence; 1 for per-channel parameters, which do not decide.
template <class Op>
constexpr std::size_t element_bytes() {
  if constexpr (requires(Op op) { op.p; }) return 1;
  else if constexpr (requires(Op op) { op.operand; }) return 1;
  else if constexpr (detail::is_output<Op>) return sizeof(*std::declval<Op&>().y.data);
  else return sizeof(*std::declval<Op&>().x.data);
}
/// Channels that make 16 bytes of the widest sequence.
template <class... Op>
constexpr int vector_channels() {
  std::size_t widest = 2;
  for (const std::size_t bytes : {element_bytes<Op>()...}) widest = bytes > widest ? bytes : widest;
  return static_cast<int>(16 / widest);
}

/// The most channels a thread takes at a time: a program that needs many registers for each says so.
template <class P>
inline constexpr int most_channels = 16;
template <class P>
requires(P::most_channels > 0) inline constexpr int most_channels<P> = P::most_channels;

/// The verb `rows`.
template <class P, class... Op>
void rows(const CudaStream& stream, bool dry, Arena scratch, const P& program, const Op&... ops) {
  using T = accumulator_t<detail::element_t<Op...>>;
  constexpr bool staged = detail::stages_of<P>::type::count > 0;
  constexpr Index sums{detail::sum_count<Op...>};
  constexpr int channels = std::min(vector_channels<Op...>(), most_channels<P>);
  const auto y = detail::written(ops...);
  Index groups = 1;
  if constexpr (requires { program.groups; }) groups = program.groups;
  const Index tokens = y.batch * y.time, width = y.width, group = width / groups;
  // Enough tiles to keep a large device busy: fewer where several blocks share a row.
  const Index most_tiles = std::max<Index>(1, 2048 / std::max<Index>(1, staged ? groups : (width + 511) / 512));
  const Index per_tile = sums == 0 ? 1 : std::max<Index>(1, (tokens + most_tiles - 1) / most_tiles);
  const Index tile_count = (tokens + per_tile - 1) / per_tile;
  T* const partial = scratch.take<T>(tile_count * sums * width);
  if (dry) return;
  (detail::check_operand(ops, y.batch, y.time, y.width), ...);
  if (tokens == 0 || width == 0) return;
  expects(tokens < (Index{1} << 32), "rwkv: ", tokens, " tokens are more than a CUDA kernel counts");
  const auto run = [&](auto number) {
    using R = decltype(number);
    RowTiles tiles{y.batch, y.time, width, per_tile, 0};
    if constexpr (staged) {
      const Index vectors = group / R::size;
      tiles.channel_blocks = static_cast<unsigned>(groups);
      const Index threads = std::clamp<Index>((vectors + row_vectors - 1) / row_vectors, 1, most_row_threads);
      const dim3 block(blocks_for(threads, warp_size) * warp_size), grid(static_cast<unsigned>(tile_count * groups));
      if (vectors <= Index{block.x} * row_vectors) {
        stream.launch({grid, block}, staged_rows_kernel<R, true, P, T, Op...>, program, tiles, partial, ops...);
      } else {
        // Blocks of this size leave a thread registers for the sums of 4 channels.
        using Less = std::conditional_t<(R::size > 4), Several<T, 4>, R>;
        stream.launch({grid, block}, staged_rows_kernel<Less, false, P, T, Op...>, program, tiles, partial, ops...);
      }
    } else {
      const Index vectors = (width + R::size - 1) / R::size;
      const Index across = std::min<Index>(row_threads, blocks_for(vectors, warp_size) * warp_size),
                  down = row_threads / across;
      tiles.channel_blocks = blocks_for(vectors, across);
      const Index blocks = (tile_count + down - 1) / down * tiles.channel_blocks;
      expects(blocks < (Index{1} << 31), "rwkv: ", tokens, " tokens of ", width, " channels are more than a CUDA grid");
      stream.launch(
          {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(across), static_cast<unsigned>(down))},
          rows_kernel<R, P, T, Op...>, program, tiles, partial, ops...);
    }
  };
  const auto run_widest = [&] {
    if constexpr (channels > 1) {
      if (lanes_aligned<channels>(group, ops...)) return run(Several<T, channels>());
    }
    run(One<T>());
  };
  run_widest();
  add_partial(stream, Partial<T>{partial, width}, tile_count, ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
