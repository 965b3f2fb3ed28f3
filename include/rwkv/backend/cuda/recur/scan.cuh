#pragma once
/// The verb `recur` with time in parallel: a chained scan. A block computes a tile of tokens for 32 or 64 channels,
/// each of its warps a run of the tile's tokens:
///
/// 1. Every thread loads its run into registers and composes its tokens into one summary, which goes to shared memory.
/// 2. Warp 0 composes the summaries of the runs in order.
/// 3. Warp 0 waits for the state in front of the tile (tile_chain.cuh) and publishes the one behind it.
/// 4. Every thread computes the state in front of its run and steps through the run, writing outputs.
#include <cstddef>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/recur/held.cuh"
#include "rwkv/backend/cuda/recur/recur_tuning.cuh"
#include "rwkv/backend/cuda/recur/sequences.cuh"
#include "rwkv/backend/cuda/recur/tile_chain.cuh"
#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The tile of a block, and the run of it that a warp holds.
template <class Tile>
struct ScanTilePlace {
  Index column;  ///< of the tile, across the width
  Index slot;    ///< of the tile, among the tiles of all sequences
  Place place;   ///< the sequence, and which of its tiles
  Span span;     ///< the sequence's tokens
  Index left;    ///< tokens from the tile's first to the sequence's end; 0 or less in an empty slot
  int lane, warp;
  int tokens, runs;  ///< in the tile
  Index channel;     ///< the first of the lane
  bool active;       ///< whether the lane has channels
  Index first;       ///< the first token of the warp's run
  int count;         ///< tokens of the run

  /// Consecutive tickets take the columns of a slot, then the next slot: ascending, or descending for the adjoint.
  template <class Sequences>
  RWKV_HD static ScanTilePlace of(const Sequences& sequences, unsigned ticket, Index width, bool descending,
                                  unsigned thread) {
    ScanTilePlace at;
    const auto columns = static_cast<unsigned>((width + Tile::channels - 1) / Tile::channels);
    at.column = ticket % columns;
    at.slot = descending ? sequences.slots(Tile::length) - 1 - Index{ticket / columns} : Index{ticket / columns};
    at.place = sequences.place(at.slot, Tile::length);
    at.span = sequences[at.place.s];
    const Index begin = at.span.begin + at.place.n * Tile::length;
    at.left = at.span.end - begin;
    at.lane = static_cast<int>(thread % 32);
    at.warp = static_cast<int>(thread / 32);
    at.tokens = at.left < Tile::length ? static_cast<int>(at.left) : Tile::length;
    at.runs = (at.tokens + Tile::tokens - 1) / Tile::tokens;
    at.channel = at.column * Tile::channels + at.lane * Tile::lanes;
    at.active = at.channel < width;
    at.first = begin + at.warp * Tile::tokens;
    const int after = at.tokens - at.warp * Tile::tokens;
    at.count = !at.active || after < 0 ? 0 : after < Tile::tokens ? after : Tile::tokens;
    return at;
  }
  RWKV_HD bool is_last() const { return left <= Tile::length; }
};

/// What a stretch of time does to the state of R::size channels, as the cell's `lift` and `compose` describe it.
template <class C, class R>
using stretch_t = decltype(C::lift(std::declval<const R (&)[input_count<C>]>()));

/// The composition of a run of at least one token.
template <class C, class R, class Held>
RWKV_HD stretch_t<C, R> summary_of(const Held& run, int count) {
  R x[input_count<C>];
  run.numbers(0, x);
  stretch_t<C, R> stretch = C::lift(static_cast<const R(&)[input_count<C>]>(x));
  RWKV_UNROLL for (int i = 1; i < Held::length; ++i) {
    if (i < count) {
      run.numbers(i, x);
      stretch = C::compose(stretch, C::lift(static_cast<const R(&)[input_count<C>]>(x)));
    }
  }
  return stretch;
}

/// The tiles of a cell. Their length does not depend on `Lanes`, so results do not depend on alignment.
template <class C, class T, int Lanes, bool Long>
using scan_tile_t = TileShape<warps_of_tile(16, words_of<stretch_t<C, Several<T, most_lanes<T>>>>),
                              (Long ? 2 : 1) * tokens_of_run(static_cast<int>(input_count<C>)), Lanes>;

/// Whether a cell is scanned: it must be scannable, and a tile of one warp must fit in shared memory.
template <class C, class T>
constexpr bool scans() {
  if constexpr (!Scannable<C>) return false;
  else return words_of<stretch_t<C, Several<T, most_lanes<T>>>> + 2 * C::state_size * words_of<T> <= 256;
}

/// One tile of a scan. Without `Outputs` it ends after phase 3: the adjoint needs only the published states.
template <class Tile, bool Outputs, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(Tile::threads, 1)
    scan_kernel(Sequences sequences, TileChain<T, C::state_size> chain,
                Mat<std::conditional_t<Outputs, T, const T>> state, Op... ops) {
  using R = Several<T, Tile::lanes>;
  using Summary = stretch_t<C, R>;
  using State = Numbers<R, C::state_size>;
  constexpr std::size_t inputs = input_count<C>;
  constexpr int words = words_of<Summary>;
  __shared__ detail::SharedElement<unsigned> ticket;
  __shared__ detail::SharedElement<unsigned> summaries[Tile::warps * words * 32];
  __shared__ detail::SharedElement<unsigned> in_front[words_of<State> * 32];
  if (threadIdx.x == 0) ticket = atomicAdd(chain.tickets, 1u);
  __syncthreads();
  const Index width = detail::written(ops...).width;
  const auto at = ScanTilePlace<Tile>::of(sequences, ticket, width, false, threadIdx.x);
  if (at.left <= 0 || (!Outputs && at.is_last())) return;

  run_t<R, Tile::tokens, inputs, Op...> run;
  if (at.active) run.begin(at.channel, ops...);
  RWKV_UNROLL for (int i = 0; i < Tile::tokens; ++i) {
    if (i < at.count) run.fetch(i, at.span.b, at.first + i, at.channel, ops...);
  }
  if (at.count > 0) park(summaries + at.warp * words * 32, at.lane, summary_of<C, R>(run, at.count));
  __syncthreads();
  if (at.warp == 0) {
    Summary total;
    if (at.active) {
      total = parked<Summary>(summaries, at.lane);
      for (int w = 1; w < at.runs; ++w) {
        total = C::compose(total, parked<Summary>(summaries + w * words * 32, at.lane));
        park(summaries + w * words * 32, at.lane, total);
      }
    }
    State now;
    if (at.place.n > 0) {
      const Index before = sequences.slot({at.place.s, at.place.n - 1}, Tile::length);
      chain.wait_warp(before, at.column, at.channel, at.active, now.v);
    } else if (at.active) {
      detail::load_lanes(now.v, state.row(at.place.s) + at.channel, width, detail::AllLanes{});
    }
    if (at.active) {
      park(in_front, at.lane, now);
      C::enter(now.v, total);
    }
    if (!at.is_last()) chain.publish_warp(at.slot, at.column, at.channel, at.active, now.v);
    else if constexpr (Outputs) {
      if (at.active) detail::store_lanes(now.v, state.row(at.place.s) + at.channel, width, detail::AllLanes{});
    }
  }
  if constexpr (Outputs) {
    __syncthreads();
    if (at.count == 0) return;
    const auto y = detail::written(ops...);
    State now = parked<State>(in_front, at.lane);
    if (at.warp > 0) C::enter(now.v, parked<Summary>(summaries + (at.warp - 1) * words * 32, at.lane));
    RWKV_UNROLL for (int i = 0; i < Tile::tokens; ++i) {
      if (i < at.count) {
        R x[inputs];
        run.numbers(i, x);
        C::step(now.v, static_cast<const R(&)[inputs]>(x)).store(y.row(at.span.b, at.first + i) + at.channel);
      }
    }
  }
}

/// The chunk that a schedule asks for. Auto asks for `longest`, which means token after token, where that is faster.
inline Index chunk_of(Auto, Index lanes, Index longest) {
  return serial_is_faster(lanes, longest) ? longest : auto_chunk(longest);
}
inline Index chunk_of(Scan schedule, Index, Index) {
  expects(schedule.chunk > 0, "rwkv: a scan needs chunks of at least one token, not ", schedule.chunk);
  return schedule.chunk;
}

/// The number of tiles across a width.
template <class Tile>
Index tile_columns(Index width) {
  return (width + Tile::channels - 1) / Tile::channels;
}

/// Calls body(tile) with the tile shape for a chunk, with several lanes a thread where memory is aligned for them.
template <class C, class T, bool Long, class Body>
void with_scan_tile([[maybe_unused]] Index chunk, bool aligned, const Body& body) {
  const auto with_lanes = [&]<int Lanes>(std::integral_constant<int, Lanes>) {
    if constexpr (Long) {
      if (chunk >= long_chunk) return body(scan_tile_t<C, T, Lanes, true>{});
    }
    body(scan_tile_t<C, T, Lanes, false>{});
  };
  if constexpr (most_lanes < T >> 1) {
    if (aligned) return with_lanes(std::integral_constant<int, most_lanes<T>>{});
  }
  with_lanes(std::integral_constant<int, 1>{});
}

/// Launches scan_kernel.
template <class Tile, bool Outputs, class C, class T, class Sequences, class... Op>
void launch_scan(const CudaStream& stream, const TileChain<T, C::state_size>& chain, Sequences sequences,
                 Mat<std::conditional_t<Outputs, T, const T>> state, const Op&... ops) {
  const Index slots = sequences.slots(Tile::length);
  chain.clear(stream, slots);
  stream.launch({.grid = {static_cast<unsigned>(slots * chain.columns)}, .block = {Tile::threads}},
                scan_kernel<Tile, Outputs, C, T, Sequences, Op...>, sequences, chain, state, ops...);
}

/// Takes scratch for the chain and launches the scan.
template <class C, class T, class Sequences, class... Op>
void recur_scan(const CudaStream& stream, bool dry, Arena scratch, Index chunk, Sequences sequences, Mat<T> state,
                const Op&... ops) {
  const Index width = detail::written(ops...).width;
  with_scan_tile<C, T, Sequences::long_tiles>(
      chunk, lanes_aligned<most_lanes<T>>(width, state, ops...), [&](auto tile) {
        using Tile = decltype(tile);
        const auto chain =
            TileChain<T, C::state_size>::take(scratch, sequences.slots(Tile::length), width, tile_columns<Tile>(width));
        if (!dry) launch_scan<Tile, true, C>(stream, chain, sequences, state, ops...);
      });
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
