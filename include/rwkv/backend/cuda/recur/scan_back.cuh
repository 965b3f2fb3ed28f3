#pragma once
/// The verb `recur_back` with time in parallel: a chained scan forward, then one backward over the same tiles.
///
/// Forward (scan_kernel without outputs) publishes the state behind every tile. Backward (scan_back_kernel), in a block
/// for a tile, each warp with a run of its tokens:
///
/// 1. Every thread loads its run and summarises it. Warp 0 waits for the state in front of the tile and stores the
///    state in front of every run.
/// 2. Every thread recomputes the states inside its run and composes the adjoints of its tokens.
/// 3. Warp 0 composes the adjoints of the runs, waits for the cotangent behind the tile and publishes the one in front.
/// 4. Every thread goes backward through its run and writes the cotangents of the inputs.
/// 5. The block adds up its sums over tokens (partial_sums.cuh adds the tiles).
#include <cstddef>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/recur/scan.cuh"
#include "rwkv/backend/cuda/runtime/partial_sums.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The adjoint of a stretch of time for a cell that brings none: a linear map, derived from step_back.
template <class C, class R>
struct DerivedAdjoint {
  static constexpr int states = C::state_size;
  StretchBack<R, states> stretch;

  RWKV_HD static DerivedAdjoint identity() { return {StretchBack<R, states>::identity()}; }
  RWKV_HD void extend(const R (&before)[states], const R (&x)[input_count<C>], R dy) {
    R dx[input_count<C>];
    step_back<C>(before, x, dy, stretch.added, dx);
    RWKV_UNROLL for (int n = 0; n < states; ++n) step_back<C>(before, x, R(0), stretch.map[n], dx);
  }
  RWKV_HD void extend(const DerivedAdjoint& front) {
    front.stretch(stretch.added);
    StretchBack<R, states> linear = front.stretch;
    RWKV_UNROLL for (int n = 0; n < states; ++n) linear.added[n] = R(0);
    RWKV_UNROLL for (int n = 0; n < states; ++n) linear(stretch.map[n]);
  }
  RWKV_HD void operator()(R (&dstate)[states]) const { stretch(dstate); }
};

template <class C, class R>
struct AdjointOf {
  using type = DerivedAdjoint<C, R>;
};
template <class C, class R>
requires HasBack<C>
struct AdjointOf<C, R> {
  using type = typename C::template Back<R>;
};
template <class C, class R>
using adjoint_t = typename AdjointOf<C, R>::type;

/// The position of operand Nth among the operands that are sums.
template <std::size_t Nth, class... Op>
inline constexpr std::size_t sum_position = detail::sums_before<Op...>(Nth);

/// A run of tokens for the adjoint: inputs and cotangents of outputs in their stored type, and the state in front of
/// each token.
template <class C, class R, int Tokens, class... Op>
struct AdjointRun {
  static constexpr std::size_t inputs = input_count<C>, sum_count = detail::sum_count<Op...>;
  run_t<R, Tokens, inputs + 1, Op...> held;
  Numbers<R, C::state_size> states[Tokens];

  RWKV_HD void fetch(int count, Index b, Index first, Index lane, const Op&... ops) {
    RWKV_UNROLL for (int i = 0; i < Tokens; ++i) {
      if (i < count) held.fetch(i, b, first + i, lane, ops...);
    }
  }
  /// Computes the state in front of each token, from the one in front of the first.
  RWKV_HD void recompute(int count, const R (&start)[C::state_size]) {
    R now[C::state_size];
    RWKV_UNROLL for (int n = 0; n < C::state_size; ++n) now[n] = start[n];
    RWKV_UNROLL for (int i = 0; i < Tokens; ++i) {
      if (i < count) {
        RWKV_UNROLL for (int n = 0; n < C::state_size; ++n) states[i].v[n] = now[n];
        R x[inputs];
        held.numbers(i, x);
        if (i + 1 < Tokens) advance<C>(now, x);
      }
    }
  }
  RWKV_HD adjoint_t<C, R> summary(int count) const {
    auto back = adjoint_t<C, R>::identity();
    RWKV_UNROLL for (int i = Tokens - 1; i >= 0; --i) {
      if (i < count) {
        R x[inputs], dy;
        load(i, x, dy);
        back.extend(states[i].v, x, dy);
      }
    }
    return back;
  }
  /// Takes dstate from behind the run to its front, writes the cotangents of the inputs, and adds those of summed
  /// inputs to `sums`.
  RWKV_HD void retreat(int count, Index b, Index first, Index lane, R (&dstate)[C::state_size],
                       Numbers<R, sum_count + 1>& sums, const Op&... ops) const {
    RWKV_UNROLL for (int i = Tokens - 1; i >= 0; --i) {
      if (i < count) {
        R x[inputs], dy, dx[inputs];
        load(i, x, dy);
        step_back<C>(states[i].v, static_cast<const R(&)[inputs]>(x), dy, dstate, dx);
        write(std::index_sequence_for<Op...>(), dx, sums, b, first + i, lane, ops...);
      }
    }
  }

 private:
  RWKV_HD void load(int i, R (&x)[inputs], R& dy) const {
    R all[inputs + 1];
    held.numbers(i, all);
    RWKV_UNROLL for (std::size_t n = 0; n < inputs; ++n) x[n] = all[n];
    dy = all[inputs];
  }
  template <std::size_t... Nth>
  RWKV_HD static void write(std::index_sequence<Nth...>, const R (&dx)[inputs], Numbers<R, sum_count + 1>& sums,
                            Index b, Index t, Index lane, const Op&... ops) {
    (write_one<Nth>(dx, sums, b, t, lane, ops), ...);
  }
  template <std::size_t N, class O>
  RWKV_HD static void write_one(const R (&dx)[inputs], Numbers<R, sum_count + 1>& sums, Index b, Index t, Index lane,
                                const O& op) {
    if constexpr (detail::is_sum<O>) {
      sums.v[sum_position<N, Op...>] += dx[N - inputs - 1];
    } else if constexpr (N > inputs) {
      detail::Slot<R, O, detail::AllLanes> slot(op, b, t, lane, {});
      slot.value = dx[N - inputs - 1];
      slot.finish();
    }
  }
};

/// The 32-bit words of shared memory that scan_back_kernel needs for a thread: for the widest of summary, adjoint and
/// state, and for these and the sums.
template <class C, class T>
inline constexpr int words_back = [] {
  using R = Several<T, 1>;
  const int stretch = words_of<stretch_t<C, R>>, back = words_of<adjoint_t<C, R>>, state = words_of<T> * C::state_size;
  const int widest = stretch > back ? stretch : back;
  return widest > state ? widest : state;
}();
template <class C, class T, class... Op>
inline constexpr int all_words_back = words_back<C, T> + words_of<T>* static_cast<int>(detail::sum_count<Op...> + 1);

/// The tiles of scan_back_kernel.
template <class C, class T, class... Op>
using tile_back_t =
    TileShape<warps_of_tile(16, all_words_back<C, T, Op...>), tokens_of_run(C::state_size* words_of<T>), 1>;

/// Whether the adjoint of a cell is scanned: a tile of one warp must fit in shared memory.
template <class C, class T, class... Op>
constexpr bool scans_back() {
  if constexpr (!scans<C, T>()) return false;
  else return all_words_back<C, T, Op...> <= 256;
}

/// One tile, backward. `forward` holds the states behind the tiles, `chain` the cotangents in front of them.
template <class Tile, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(Tile::threads, 1)
    scan_back_kernel(Sequences sequences, TileChain<T, C::state_size> forward, TileChain<T, C::state_size> chain,
                     Mat<const T> first, Mat<const T> dlast, Mat<T> dfirst, Partial<T> partial, Op... ops) {
  using R = Several<T, Tile::lanes>;
  using Summary = stretch_t<C, R>;
  using Adjoint = adjoint_t<C, R>;
  using State = Numbers<R, C::state_size>;
  using Sums = Numbers<R, detail::sum_count<Op...> + 1>;
  constexpr int words = words_back<C, T>;
  __shared__ detail::SharedElement<unsigned> ticket;
  __shared__ detail::SharedElement<unsigned> summaries[Tile::warps * words * 32];
  __shared__ detail::SharedElement<unsigned> behind[words_of<State> * 32];
  __shared__ detail::SharedElement<unsigned> summed[Tile::warps * words_of<Sums> * 32];
  if (threadIdx.x == 0) ticket = atomicAdd(chain.tickets, 1u);
  __syncthreads();
  const Index width = detail::written(ops...).width;
  const auto at = ScanTilePlace<Tile>::of(sequences, ticket, width, true, threadIdx.x);
  const auto all = detail::AllLanes{};
  const auto summary_at = [&](int warp) { return summaries + warp * words * 32; };
  Sums sums;
  RWKV_UNROLL for (std::size_t n = 0; n <= detail::sum_count<Op...>; ++n) sums.v[n] = R(0);
  if (at.left <= 0) {
    if (at.warp > 0 || !at.active) return;
    partial.store(at.slot, at.channel, sums);
    if (at.place.n > 0) return;
    State dstate;
    detail::load_lanes(dstate.v, dlast.row(at.place.s) + at.channel, width, all);
    detail::store_lanes(dstate.v, dfirst.row(at.place.s) + at.channel, width, all);
    return;
  }

  AdjointRun<C, R, Tile::tokens, Op...> run;
  if (at.active) run.held.begin(at.channel, ops...);
  run.fetch(at.count, at.span.b, at.first, at.channel, ops...);
  if (at.count > 0) park(summary_at(at.warp), at.lane, summary_of<C, R>(run.held, at.count));
  __syncthreads();
  if (at.warp == 0) {
    State now;
    if (at.place.n > 0) {
      const Index before = sequences.slot({at.place.s, at.place.n - 1}, Tile::length);
      forward.wait_warp(before, at.column, at.channel, at.active, now.v);
    } else if (at.active) {
      detail::load_lanes(now.v, first.row(at.place.s) + at.channel, width, all);
    }
    if (at.active) {
      for (int w = 0; w < at.runs; ++w) {
        const auto summary = parked<Summary>(summary_at(w), at.lane);
        park(summary_at(w), at.lane, now);
        C::enter(now.v, summary);
      }
    }
  }
  __syncthreads();
  if (at.count > 0) {
    run.recompute(at.count, parked<State>(summary_at(at.warp), at.lane).v);
    park(summary_at(at.warp), at.lane, run.summary(at.count));
  }
  __syncthreads();
  if (at.warp == 0) {
    Adjoint total;
    if (at.active) {
      total = parked<Adjoint>(summary_at(at.runs - 1), at.lane);
      for (int w = at.runs - 1; w-- > 0;) {
        total.extend(parked<Adjoint>(summary_at(w), at.lane));
        park(summary_at(w), at.lane, total);
      }
    }
    State dstate;
    if (!at.is_last()) {
      const Index after = sequences.slot({at.place.s, at.place.n + 1}, Tile::length);
      chain.wait_warp(after, at.column, at.channel, at.active, dstate.v);
    } else if (at.active) {
      detail::load_lanes(dstate.v, dlast.row(at.place.s) + at.channel, width, all);
    }
    if (at.active) {
      park(behind, at.lane, dstate);
      total(dstate.v);
    }
    if (at.place.n > 0) chain.publish_warp(at.slot, at.column, at.channel, at.active, dstate.v);
  }
  __syncthreads();
  if (at.count > 0) {
    auto dstate = parked<State>(behind, at.lane);
    if (at.warp + 1 < at.runs) parked<Adjoint>(summary_at(at.warp + 1), at.lane)(dstate.v);
    run.retreat(at.count, at.span.b, at.first, at.channel, dstate.v, sums, ops...);
    if (at.warp == 0 && at.place.n == 0) {
      detail::store_lanes(dstate.v, dfirst.row(at.place.s) + at.channel, width, all);
    }
  }
  if constexpr (detail::sum_count < Op... >> 0) {
    park(summed + at.warp * words_of<Sums> * 32, at.lane, sums);
    __syncthreads();
    if (at.warp > 0 || !at.active) return;
    for (int w = 1; w < Tile::warps; ++w) {
      const auto more = parked<Sums>(summed + w * words_of<Sums> * 32, at.lane);
      RWKV_UNROLL for (std::size_t n = 0; n < detail::sum_count<Op...>; ++n) sums.v[n] += more.v[n];
    }
    partial.store(at.slot, at.channel, sums);
  }
}

/// Takes scratch and launches the scan forward, the one backward, and the sums.
template <class C, class T, class Sequences, class... Op>
void recur_back_scan(const CudaStream& stream, bool dry, Arena scratch, Sequences sequences, Mat<const T> first,
                     Mat<const T> dlast, Mat<T> dfirst, const Op&... ops) {
  using Tile = tile_back_t<C, T, Op...>;
  const Index width = detail::written(ops...).width, slots = sequences.slots(Tile::length);
  const Index columns = tile_columns<Tile>(width);
  const auto forward = TileChain<T, C::state_size>::take(scratch, slots, width, columns);
  const auto chain = TileChain<T, C::state_size>::take(scratch, slots, width, columns);
  const Partial<T> partial{scratch.take<T>(slots * Index{detail::sum_count<Op...>} * width), width};
  if (dry) return;
  launch_scan<Tile, false, C>(stream, forward, sequences, first, ops...);
  chain.clear(stream, slots);
  stream.launch({.grid = {static_cast<unsigned>(slots * columns)}, .block = {Tile::threads}},
                scan_back_kernel<Tile, C, T, Sequences, Op...>, sequences, forward, chain, first, dlast, dfirst,
                partial, ops...);
  add_partial(stream, partial, slots, ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
