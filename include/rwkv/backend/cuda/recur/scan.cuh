#pragma once
/// Time in parallel: a scan over tiles of tokens that hand the state on to the next.
#include <cstddef>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/recur/held.cuh"
#include "rwkv/backend/cuda/recur/recur_tuning.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// A few numbers as one value.
template <class R, int Count>
struct Numbers {
  R v[Count];
};

/// The 32-bit words of a value.
template <class V>
inline constexpr int words_of = static_cast<int>(sizeof(V) / 4);

/// Values of the 32 lanes of warps in shared memory, word after word, so that no two lanes meet in a bank.
template <class V>
__device__ void park(detail::Shared<unsigned>* at, int lane, const V& value) {
  struct Words {
    unsigned v[words_of<V>];
  };
  const auto words = detail::bits_as<Words>(value);
  RWKV_UNROLL for (int i = 0; i < words_of<V>; ++i) at[i * 32 + lane] = words.v[i];
}
template <class V>
__device__ V parked(const detail::Shared<unsigned>* at, int lane) {
  struct Words {
    unsigned v[words_of<V>];
  };
  Words words;
  RWKV_UNROLL for (int i = 0; i < words_of<V>; ++i) words.v[i] = at[i * 32 + lane];
  return detail::bits_as<V>(words);
}

/// Hands the state of each channel on from tile to tile, through memory that begins as zeros. Tiles take tickets, so
/// that a tile that waits has a predecessor that runs. Up to 12 bytes of state and the mark that they are there travel
/// as one word; more wait for a mark of their own.
template <class T, int States>
struct Chain {
  static constexpr bool in_words = sizeof(T) == 4 && States <= 3;

  unsigned* tickets;       ///< the next
  detail::Word128* words;  ///< in_words: [slot, channel], else the marks [slot, column of channels]
  T* numbers;              ///< [slot, component, channel]
  Index width, columns;

  static Index word_count(Index slots, Index width) { return slots * (in_words ? width : (width + 31) / 32); }

  /// From the arena; `columns` are the columns of tiles.
  static Chain take(Arena& scratch, Index slots, Index width, Index columns) {
    Chain chain{};
    auto* begin = scratch.take<detail::Word128>(1 + word_count(slots, width));
    chain.tickets = reinterpret_cast<unsigned*>(begin);
    chain.words = begin == nullptr ? nullptr : begin + 1;
    chain.numbers = scratch.take<T>(in_words ? 0 : slots * States * width);
    chain.width = width;
    chain.columns = columns;
    return chain;
  }
  void clear(const CudaStream& stream, Index slots) const {
    const CurrentDevice current(stream.device());
    const Index bytes = (1 + word_count(slots, width)) * static_cast<Index>(sizeof(detail::Word128));
    RWKV_CUDA_TRY(cudaMemsetAsync(tickets, 0, static_cast<std::size_t>(bytes), stream.handle()));
  }

  /// Called by a whole warp, as is `wait`; lanes that are not active have no channels.
  template <int N>
  __device__ void publish(Index slot, Index column, Index channel, bool active,
                          const Several<T, N> (&state)[States]) const {
    if constexpr (in_words) {
      if (!active) return;
      RWKV_UNROLL for (int i = 0; i < N; ++i) {
        unsigned bits[3] = {};
        RWKV_UNROLL for (int n = 0; n < States; ++n) bits[n] = detail::bits_as<unsigned>(state[n].v[i]);
        detail::store_relaxed(words + slot * width + channel + i, {bits[0], bits[1], bits[2], 1});
      }
    } else {
      if (active) {
        RWKV_UNROLL for (int n = 0; n < States; ++n) state[n].store(numbers + (slot * States + n) * width + channel);
      }
      __threadfence();
      __syncwarp();
      if (threadIdx.x % 32 == 0) detail::store_relaxed(words + slot * columns + column, {0, 0, 0, 1});
    }
  }
  template <int N>
  __device__ void wait(Index slot, Index column, Index channel, bool active, Several<T, N> (&state)[States]) const {
    if constexpr (in_words) {
      if (!active) return;
      RWKV_UNROLL for (int i = 0; i < N; ++i) {
        detail::Word128 word;
        do word = detail::load_relaxed(words + slot * width + channel + i);
        while (word.w == 0);
        const unsigned bits[3] = {word.x, word.y, word.z};
        RWKV_UNROLL for (int n = 0; n < States; ++n) state[n].v[i] = detail::bits_as<T>(bits[n]);
      }
    } else {
      while (detail::load_relaxed(words + slot * columns + column).w == 0) {
      }
      __threadfence();
      if (!active) return;
      RWKV_UNROLL for (int n = 0; n < States; ++n) {
        state[n] = Several<T, N>::load(numbers + (slot * States + n) * width + channel);
      }
    }
  }
};

/// The tile of a block, and the run of it that a warp holds.
template <class Tile>
struct ScanTilePlace {
  Index column;  ///< of tiles
  Index slot;    ///< among the tiles of all sequences
  Place place;   ///< sequence and tile of it
  Span span;     ///< the sequence's tokens
  Index left;    ///< tokens from the tile's first to the sequence's end; none in an empty slot
  int lane, warp;
  int tokens, runs;  ///< of the tile
  Index channel;     ///< the lane's first
  bool active;       ///< whether it has any
  Index first;       ///< the token its run begins with
  int count;         ///< of its tokens

  /// Ticket by ticket, the columns of a slot first, slots ascending or, for the way back, descending.
  template <class Sequences>
  RWKV_HD static ScanTilePlace of(const Sequences& sequences, unsigned ticket, Index width, bool back,
                                  unsigned thread) {
    ScanTilePlace at;
    const auto columns = static_cast<unsigned>((width + Tile::channels - 1) / Tile::channels);
    at.column = ticket % columns;
    at.slot = back ? sequences.slots(Tile::length) - 1 - Index{ticket / columns} : Index{ticket / columns};
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

/// What a stretch of time does to the state of R::size channels.
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

/// The tiles of a cell: their lengths do not depend on the lanes, so neither does a result.
template <class C, class T, int Lanes, bool Long>
using scan_tile_t = TileShape<warps_of_tile(16, words_of<stretch_t<C, Several<T, most_lanes<T>>>>),
                              (Long ? 2 : 1) * tokens_of_run(static_cast<int>(input_count<C>)), Lanes>;

/// Cells whose tiles of one warp fit in shared memory.
template <class C, class T>
constexpr bool scans() {
  if constexpr (!Scannable<C>) return false;
  else return words_of<stretch_t<C, Several<T, most_lanes<T>>>> + 2 * C::state_size * words_of<T> <= 256;
}

/// One tile of a scan. Each warp summarises its run, one of them composes the summaries, waits for the state in front
/// of the tile and publishes the one behind it, then each warp goes through its run from the state in front of it.
/// Without `Outputs` only the states behind tiles are published, for the way back.
template <class Tile, bool Outputs, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(Tile::threads, 1)
    scan_kernel(Sequences sequences, Chain<T, C::state_size> chain, Mat<std::conditional_t<Outputs, T, const T>> state,
                Op... ops) {
  using R = Several<T, Tile::lanes>;
  using Summary = stretch_t<C, R>;
  using State = Numbers<R, C::state_size>;
  constexpr std::size_t inputs = input_count<C>;
  constexpr int words = words_of<Summary>;
  __shared__ detail::Shared<unsigned> ticket;
  __shared__ detail::Shared<unsigned> summaries[Tile::warps * words * 32];
  __shared__ detail::Shared<unsigned> in_front[words_of<State> * 32];
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
      chain.wait(before, at.column, at.channel, at.active, now.v);
    } else if (at.active) {
      detail::load_lanes(now.v, state.row(at.place.s) + at.channel, width, detail::AllLanes{});
    }
    if (at.active) {
      park(in_front, at.lane, now);
      C::enter(now.v, total);
    }
    if (!at.is_last()) chain.publish(at.slot, at.column, at.channel, at.active, now.v);
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

/// Tiles of tokens for a chunk that was asked for, or that Auto takes; longer than `longest` where it is to be in
/// sequence.
inline Index chunk_of(Auto, Index lanes, Index longest) {
  return serial_is_faster(lanes, longest) ? longest : auto_chunk(longest);
}
inline Index chunk_of(Scan schedule, Index, Index) {
  expects(schedule.chunk > 0, "rwkv: a scan needs chunks of at least one token, not ", schedule.chunk);
  return schedule.chunk;
}

/// The columns of tiles across a width.
template <class Tile>
Index tile_columns(Index width) {
  return (width + Tile::channels - 1) / Tile::channels;
}

/// Calls body(tile) with the shape of tile for a chunk and the lanes that memory is aligned for.
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
void launch_scan(const CudaStream& stream, const Chain<T, C::state_size>& chain, Sequences sequences,
                 Mat<std::conditional_t<Outputs, T, const T>> state, const Op&... ops) {
  const Index slots = sequences.slots(Tile::length);
  chain.clear(stream, slots);
  stream.launch({.grid = {static_cast<unsigned>(slots * chain.columns)}, .block = {Tile::threads}},
                scan_kernel<Tile, Outputs, C, T, Sequences, Op...>, sequences, chain, state, ops...);
}

/// The verb `recur` as a chained scan.
template <class C, class T, class Sequences, class... Op>
void recur_scan(const CudaStream& stream, bool dry, Arena scratch, Index chunk, Sequences sequences, Mat<T> state,
                const Op&... ops) {
  const Index width = detail::written(ops...).width;
  with_scan_tile<C, T, Sequences::long_tiles>(chunk, all_aligned<most_lanes<T>>(width, state, ops...), [&](auto tile) {
    using Tile = decltype(tile);
    const auto chain =
        Chain<T, C::state_size>::take(scratch, sequences.slots(Tile::length), width, tile_columns<Tile>(width));
    if (!dry) launch_scan<Tile, true, C>(stream, chain, sequences, state, ops...);
  });
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
