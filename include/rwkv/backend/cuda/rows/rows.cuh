#pragma once
/// Row programs as kernels. Without stages a thread takes some neighbouring channels of a token, with stages a block
/// takes a group of channels. Sums over tokens are made in registers over a tile of tokens, and the tiles are then
/// added in their order; tiles depend on sizes alone.
#include <cstdint>
#include <utility>

#include "rwkv/backend/cuda/runtime/device.cuh"
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

/// How a row program is cut: `tokens_per_tile` tokens, one after the other, and the channels of a block.
struct RowTiles {
  Index batch, time, width;
  Index tokens_per_tile;
  unsigned channel_blocks;  ///< blocks (or groups) next to each other over the channels

  RWKV_HD Index tokens() const { return batch * time; }
};

/// Calls run(operands...), in which each `sum` is replaced by the register that is to receive it.
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

/// A program without stages. Blocks are (channels, tokens); partial: [tiles, sums, width].
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

/// Channels that a thread of a program with stages holds in registers at a time, in units of R::size.
inline constexpr int row_pieces = 2;
inline constexpr int most_row_threads = 512;

/// What an operand is at the channels of a thread.
template <class R>
struct Pieces {
  R value[row_pieces];
};

/// A program with stages; a block takes one group of channels. `Whole`: the threads hold the group in registers, so it
/// is loaded once; else every stage reads it again.
template <class R, bool Whole, class P, class T, class... Op>
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
  __device__ static void run(const P& program, const RowTiles& tiles, T* partial, S* shared, const Op&... ops) {
    const Index group = tiles.width / tiles.channel_blocks;
    const Index tile = blockIdx.x / tiles.channel_blocks, first = (blockIdx.x % tiles.channel_blocks) * group;
    const Index begin = tile * tiles.tokens_per_tile, left = tiles.tokens() - begin;
    const Index count = left < tiles.tokens_per_tile ? left : tiles.tokens_per_tile;
    R totals[sums * row_pieces + 1];
    RWKV_UNROLL for (int n = 0; n < sums * row_pieces; ++n) totals[n] = R(0);
    T* const own = partial + tile * sums * tiles.width;
    if constexpr (!Whole) clear(own, first, group, tiles.width);
    for (Index i = 0; i < count; ++i) {
      const auto token = static_cast<std::uint32_t>(begin + i), time = static_cast<std::uint32_t>(tiles.time);
      RowsInStages(program, token / time, token % time, first, group).token(totals, own, tiles.width, shared, ops...);
    }
    if constexpr (Whole) {
      RWKV_UNROLL for (int k = 0; k < row_pieces; ++k) {
        const Index c = piece(0, k);
        if (c >= group) break;
        RWKV_UNROLL for (int n = 0; n < sums; ++n) { totals[k * sums + n].store(own + n * tiles.width + first + c); }
      }
    }
  }

 private:
  __device__ RowsInStages(const P& program, Index b, Index t, Index first, Index group)
      : program_(program), b_(b), t_(t), first_(first), group_(group) {}

  /// The channel of the group where piece k of this thread begins, in the pass whose first channel is `pass`.
  __device__ static Index piece(Index pass, int k) {
    return pass + (Index{threadIdx.x} + Index{blockDim.x} * k) * R::size;
  }
  __device__ static Index pass_length() { return Index{blockDim.x} * row_pieces * R::size; }

  __device__ static void clear(T* own, Index first, Index group, Index width) {
    for (Index c = piece(0, 0); c < group; c += Index{blockDim.x} * R::size) {
      RWKV_UNROLL for (int n = 0; n < sums; ++n) R(0).store(own + n * width + first + c);
    }
  }

  template <class S>
  __device__ void token(R* totals, T* own, Index width, S* shared, const Op&... ops) const {
    token(totals, own, width, shared, std::make_integer_sequence<int, stages::count>(), ops...,
          load(Pieces<R>{}, 0, ops)...);
  }

  template <class Operand>
  __device__ Pieces<R> load(Pieces<R> pieces, Index pass, const Operand& op) const {
    if constexpr (!detail::is_output<Operand>) {
      RWKV_UNROLL for (int k = 0; k < row_pieces; ++k) {
        const Index c = piece(pass, k);
        if (c < group_) pieces.value[k] = R::load(op.row(b_, t_) + first_ + c);
      }
    }
    return pieces;
  }

  template <class S, int... Nth, class... Loaded>
  __device__ void token(R* totals, T* own, Index width, S* shared, std::integer_sequence<int, Nth...>, const Op&... ops,
                        Loaded... pieces) const {
    R reduced[stages::total + 1];
    (stage<Nth>(reduced, shared, ops..., pieces...), ...);
    for (Index pass = 0; pass < group_; pass += pass_length()) {
      if constexpr (!Whole) ((pieces = load(pieces, pass, ops)), ...);
      RWKV_UNROLL for (int k = 0; k < row_pieces; ++k) {
        const Index c = piece(pass, k);
        if (c < group_)
          map(std::index_sequence_for<Op...>(), reduced, totals + k * sums, own, width, c, ops..., pieces.value[k]...);
      }
    }
  }

  template <int Nth, class S, class... Loaded>
  __device__ void stage(R* reduced, S* shared, const Op&... ops, Loaded... pieces) const {
    constexpr int terms = stages::before(Nth + 1) - stages::before(Nth);
    R added[terms];
    RWKV_UNROLL for (int n = 0; n < terms; ++n) added[n] = R(0);
    for (Index pass = 0; pass < group_; pass += pass_length()) {
      if constexpr (!Whole) ((pieces = load(pieces, pass, ops)), ...);
      RWKV_UNROLL for (int k = 0; k < row_pieces; ++k) {
        if (piece(pass, k) < group_) {
          R term[terms];
          program_.reduce(Stage<Nth>{}, static_cast<const R*>(reduced), term, pieces.value[k]...);
          RWKV_UNROLL for (int n = 0; n < terms; ++n) added[n] += term[n];
        }
      }
    }
    Scalar sum[terms];
    RWKV_UNROLL for (int n = 0; n < terms; ++n) sum[n] = sum_lanes(added[n]);
    block_sum(sum, shared);
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
    if constexpr (Whole) {
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

template <class R, bool Whole, class P, class T, class... Op>
RWKV_KERNEL void __launch_bounds__(most_row_threads, 1)
    staged_rows_kernel(P program, RowTiles tiles, T* partial, Op... ops) {
  using Rows = RowsInStages<R, Whole, P, T, Op...>;
  __shared__ detail::Shared<typename R::scalar> shared[Rows::shared_numbers];
  Rows::run(program, tiles, partial, shared, ops...);
}

/// A block of (32, add_tiles_rows) threads adds the partial sums of 32 channels in a fixed order.
inline constexpr int add_tiles_rows = 8;

template <class T, class U>
RWKV_KERNEL void add_tiles_kernel(const T* partial, Index tiles, Index stride, Index width, U* sum) {
  __shared__ detail::Shared<T> shared[add_tiles_rows * warp_size];
  const Index c = Index{blockIdx.x} * warp_size + threadIdx.x;
  T total(0);
  if (c < width) {
    for (Index tile = threadIdx.y; tile < tiles; tile += add_tiles_rows) total += partial[tile * stride + c];
  }
  shared[threadIdx.y * warp_size + threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || c >= width) return;
  for (int row = 1; row < add_tiles_rows; ++row)
    total += static_cast<T>(shared[row * warp_size + static_cast<int>(threadIdx.x)]);
  sum[c] = narrow<U>(widen<T>(sum[c]) + total);
}

/// Adds partial sums [tiles, sums, width] to the operands that are `sum`s.
template <class T, class... Op>
void add_tiles(const CudaStream& stream, const T* partial, Index tiles, Index width, const Op&... ops) {
  constexpr Index sums{detail::sum_count<Op...>};
  Index nth = 0;
  const auto add = [&](const auto& op) {
    if constexpr (detail::is_sum<std::remove_cvref_t<decltype(op)>>) {
      const T* from = partial + nth++ * width;
      if (op.p.data == nullptr || tiles == 0) return;
      using U = std::remove_cvref_t<decltype(*op.p.data)>;
      stream.launch({dim3(blocks_for(width, warp_size)), dim3(warp_size, add_tiles_rows)}, add_tiles_kernel<T, U>, from,
                    tiles, sums * width, width, op.p.data);
    }
  };
  (add(ops), ...);
}

/// Whether `channels` neighbouring numbers of every operand are one aligned piece of memory wherever a row is read.
template <int Channels, class Op>
bool is_aligned(const Op& op) {
  if constexpr (detail::is_sum<Op>) {
    return true;  // written by add_tiles
  } else if constexpr (requires { op.operand; }) {
    return is_aligned<Channels>(op.operand);
  } else if constexpr (requires { op.p; }) {
    return has_pieces<Channels>(op.p.data);
  } else {
    const auto& view = [&]() -> const auto& {
      if constexpr (detail::is_output<Op>) return op.y;
      else return op.x;
    }
    ();
    bool all = has_pieces<Channels>(view.data, view.width);
    if constexpr (requires { op.before; }) all = all && has_pieces<Channels>(op.before.data, op.before.stride);
    if constexpr (requires { op.dlast; }) {
      all = all && has_pieces<Channels>(op.dlast.data, op.dlast.stride) &&
            has_pieces<Channels>(op.dfirst.data, op.dfirst.stride);
    }
    return all;
  }
}

/// Bytes of the widest element of a sequence among the operands.
template <class Op>
constexpr std::size_t element_bytes() {
  if constexpr (requires(Op op) { op.p; }) return 1;
  else if constexpr (requires(Op op) { op.operand; }) return 1;
  else if constexpr (detail::is_output<Op>) return sizeof(*std::declval<Op&>().y.data);
  else return sizeof(*std::declval<Op&>().x.data);
}
/// Channels that make 16 bytes.
template <class... Op>
constexpr int vector_channels() {
  std::size_t widest = 2;
  for (const std::size_t bytes : {element_bytes<Op>()...}) widest = bytes > widest ? bytes : widest;
  return static_cast<int>(16 / widest);
}

/// The verb `rows`.
template <class P, class... Op>
void rows(const CudaStream& stream, bool dry, Arena scratch, const P& program, const Op&... ops) {
  using T = accumulator_t<detail::element_t<Op...>>;
  constexpr bool staged = detail::stages_of<P>::type::count > 0;
  constexpr Index sums{detail::sum_count<Op...>};
  constexpr int channels = vector_channels<Op...>();
  const auto y = detail::written(ops...);
  Index groups = 1;
  if constexpr (requires { program.groups; }) groups = program.groups;
  const Index tokens = y.batch * y.time, width = y.width, group = width / groups;
  // As many tiles as keep a large device busy, fewer where there are several blocks over the channels.
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
      const Index pieces = group / R::size;
      tiles.channel_blocks = static_cast<unsigned>(groups);
      const Index threads = std::clamp<Index>((pieces + row_pieces - 1) / row_pieces, 1, most_row_threads);
      const dim3 block(blocks_for(threads, warp_size) * warp_size), grid(static_cast<unsigned>(tile_count * groups));
      if (pieces <= Index{block.x} * row_pieces) {
        stream.launch({grid, block}, staged_rows_kernel<R, true, P, T, Op...>, program, tiles, partial, ops...);
      } else {
        // Sums of fewer channels, which fit the registers that so many threads have.
        using Less = std::conditional_t<(R::size > 4), Several<T, 4>, R>;
        stream.launch({grid, block}, staged_rows_kernel<Less, false, P, T, Op...>, program, tiles, partial, ops...);
      }
    } else {
      const Index pieces = (width + R::size - 1) / R::size;
      const Index across = std::min<Index>(row_threads, blocks_for(pieces, warp_size) * warp_size),
                  down = row_threads / across;
      tiles.channel_blocks = blocks_for(pieces, across);
      const Index blocks = (tile_count + down - 1) / down * tiles.channel_blocks;
      expects(blocks < (Index{1} << 31), "rwkv: ", tokens, " tokens of ", width, " channels are more than a CUDA grid");
      stream.launch(
          {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(across), static_cast<unsigned>(down))},
          rows_kernel<R, P, T, Op...>, program, tiles, partial, ops...);
    }
  };
  if (group % channels == 0 && (is_aligned<channels>(ops) && ...)) run(Several<T, channels>());
  else run(One<T>());
  if constexpr (sums > 0) add_tiles(stream, partial, tile_count, width, ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
