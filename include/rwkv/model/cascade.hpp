#pragma once
/// The layers of a prompt, or of the forward pass of training, as a cascade on several threads.
///
/// A layer needs of the layer below only the tokens so far. So with the prompt cut into tiles of time, tile c of layer l
/// may run as soon as tile c of layer l-1 and tile c-1 of layer l have run:
///
///     layer 2             0  1  2  3
///     layer 1          0  1  2  3
///     layer 0       0  1  2  3           time goes to the right
///
/// Of L K tiles, L + K - 1 come one after the other, so threads make it faster by L K / (L + K - 1) at most. Each tile
/// runs on one thread, which waits once for each tile, where the ordinary order splits every operation of a layer over the
/// threads, with a barrier behind each operation. So it pays for small widths. Others call it a wavefront.
#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <new>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

#include "rwkv/backend/recur.hpp"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/each_layer.hpp"
#include "rwkv/model/tape_policy.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How the layers of a prompt or of a batch follow one another. The bits are the same.
enum class LayerOrder {
  automatic,   ///< what is faster by a rule of thumb: a cascade for narrow models
  one_by_one,  ///< each over all tokens, its operations split over the threads
  cascade,  ///< several at a time, each on one thread. As one_by_one with one thread, on backends without threads, and
            ///< for bodies with a block that may not (cuts_freely)
};

/// Whether a block may run in a cascade: it has the same bits however a prompt is cut, so no schedule of it cuts time
/// itself, and its forward pass does not throw. What its tape keeps of tokens it takes by Arena::like, from x of the
/// pass; all else that it takes has a size that does not depend on x. A block of one's own says
/// `static constexpr bool cuts_freely = true`.
template <class K>
inline constexpr bool cuts_freely = false;
/// Of a block that says so.
template <class K>
requires(K::cuts_freely) inline constexpr bool cuts_freely<K> = true;
/// Of the official time mixes, unless their schedule cuts time.
template <class V, class S, class B, class D>
inline constexpr bool cuts_freely<TimeMix<V, S, B, D>> =
    !std::is_same_v<typename V::Schedule, Scan> && !std::is_same_v<typename V::Schedule, Chunked>;
/// Of the official channel mixes.
template <class V, class S, class B, class D>
inline constexpr bool cuts_freely<ChannelMix<V, S, B, D>> = true;
/// Of a cell.
template <class Cell, class S, class B, class D>
inline constexpr bool cuts_freely<CellMix<Cell, S, B, D>> = true;
/// Of a layer whose blocks may be cut.
template <class TimeMixing, class ChannelMixing>
inline constexpr bool cuts_freely<Layer<TimeMixing, ChannelMixing>> =
    cuts_freely<TimeMixing>&& cuts_freely<ChannelMixing>;
/// Of a chain whose layers may be cut.
template <class... L>
inline constexpr bool cuts_freely<Chain<L...>> = (cuts_freely<L> && ...);
/// Of a stack whose layers may be cut.
template <class L, Index N>
inline constexpr bool cuts_freely<Stack<L, N>> = cuts_freely<L>;

/// A body that can run as a cascade: it has layers, all of which may, and its backend has threads, and can compute on the
/// calling one alone.
template <class Body>
concept RunsInCascade = cuts_freely<Body> &&
    requires(const Body& body, typename Body::State& state, const typename Body::backend& be,
             detail::VisitorArchetype call, void (*work)(Index)) {
  body.each_layer(state, call);
  { be.alone() } -> std::same_as<typename Body::backend>;
  be.pool().run(Index{be.threads()}, work);
};

namespace detail {
/// Tiles are short, so it spins; after many spins it yields, because the other thread may have been preempted.
inline void wait_for_tiles(const std::atomic<Index>& done, Index wanted) {
  for (int spins = 0; done.load(std::memory_order_acquire) < wanted; ++spins) {
    if (spins > 4096) std::this_thread::yield();
  }
}

/// Calls run(worker, layer) for every layer, on the threads of `be`: a thread takes the lowest layer that nobody has taken,
/// so that the weights of a layer stay in the caches of one core. A layer may wait for a lower one, which another thread
/// runs.
template <class B, class Run>
void take_layers(const B& be, Index layers, const Run& run) {
  std::atomic<Index> taken = 0;
  be.pool().run(std::min<Index>(be.threads(), layers), [&](Index worker) {
    for (Index mine = taken.fetch_add(1); mine < layers; mine = taken.fetch_add(1)) run(worker, mine);
  });
}

template <class Body>
Index count_layers(const Body& body, typename Body::State& state) {
  Index layers = 0;
  each_layer(body, state, [&](const auto&, auto&) { ++layers; });
  return layers;
}

/// Scratch of forward_of_tokens for a pass of x, whose data is null. A backend that is dry gets its own memory for it.
template <class Body>
Index scratch_of_forward(const Body& body, typename Body::backend& be, Seq<typename Body::compute, Body::Width> x,
                         typename Body::State& state) {
  Index scratch = 0;
  Arena measuring(scratch);
  const DryPass dry(be);
  forward_of_tokens(body, be, measuring, {}, x, state, x);
  return scratch;
}
}  // namespace detail

/// The backends of the threads of a cascade: each computes on the calling thread, with memory of its own.
template <class B>
std::vector<B> cascade_workers(const B& be) {
  std::vector<B> workers;
  workers.reserve(static_cast<std::size_t>(be.threads()));
  for (int thread = 0; thread < be.threads(); ++thread) workers.push_back(be.alone());
  return workers;
}

/// Whether a cascade is faster by a rule of thumb, for models narrower than `width`: twelve layers on two threads gain from
/// 1.4 times upwards with a prompt below a width of 128, in the forward pass of training below 64; see
/// benchmarks/model/cascade.cpp.
inline bool cascade_pays(const ModelSizes& sizes, Index time, Index width) {
  return sizes.depth > 1 && sizes.width < width && time >= 16;
}

/// The tokens of a tile of a prompt: few, so that all threads soon have work; enough rows for fast products.
inline Index cascade_tile_tokens(Index time, int threads) {
  return std::clamp<Index>(time / (4 * Index{threads}), 8, 32);
}

/// Tokens [begin, begin + tokens) of the residual stream x [batch, time, width] of a cascade, where tile lies after tile,
/// each [batch, tokens of the tile, width]. Null stays null.
template <class T, Index W>
Seq<T, W> cascade_tile(const Seq<T, W>& x, Index begin, Index tokens) {
  return {x.data == nullptr ? nullptr : x.data + begin * x.batch * Index(x.width), x.batch,
          std::min(tokens, x.time - begin), x.width};
}

/// Does what forward_of_tokens does, as a cascade. A thread runs all tiles of a layer, each as soon as the layer below
/// has. Allocates nothing, except in a dry pass: then every worker gets memory of its own.
/// Shapes    tokens: [batch * time]   x, y: [batch, time, width], all in tiles of `tile` tokens as cascade_tile says
///           workers: of cascade_workers
template <class Body>
void forward_in_cascade(const Body& body, typename Body::backend& be, std::span<typename Body::backend> workers,
                        Arena ws, std::span<const Token> tokens, Seq<typename Body::compute, Body::Width> x, Index tile,
                        typename Body::State& state, Seq<typename Body::compute, Body::Width> y) {
  using Sequence = Seq<typename Body::compute, Body::Width>;
  using Side = SideStreams<typename Body::compute>;
  const Index tiles = (x.time + tile - 1) / tile, layers = detail::count_layers(body, state);
  Side* const sides = ws.take<Side>(tiles);
  for (Index nth = 0; nth < tiles; ++nth) {
    const Sequence part = cascade_tile(x, nth * tile, tile);
    const auto first = static_cast<std::size_t>(x.batch * nth * tile),
               count = static_cast<std::size_t>(x.batch * part.time);
    const Side side = start_side_streams<Body>(ws, part, be.dry ? tokens : tokens.subspan(first, count));
    if (!ws.measuring()) new (sides + nth) Side(side);
  }
  auto* const done = ws.take<std::atomic<Index>>(layers);  // how many tiles of a layer have run
  Index scratch = 0;                                       // of a tile
  for (auto& worker : workers.first(be.dry ? workers.size() : 1)) {
    scratch = detail::scratch_of_forward(body, worker, {nullptr, x.batch, std::min(tile, x.time), x.width}, state);
  }
  std::byte* const memory = ws.take<std::byte>(std::ssize(workers) * scratch);
  if (be.dry) return;

  for (Index layer = 0; layer < layers; ++layer) new (done + layer) std::atomic<Index>(0);
  const auto run = [&](Index worker, Index layer, const auto& block, auto& block_state) {
    Arena arena(memory + worker * scratch, scratch);
    for (Index nth = 0; nth < tiles; ++nth) {
      if (layer > 0) detail::wait_for_tiles(done[layer - 1], nth + 1);
      const Sequence out = cascade_tile(y, nth * tile, tile);
      forward_beside(block, workers[static_cast<std::size_t>(worker)], arena, sides[nth],
                     layer > 0 ? out : cascade_tile(x, nth * tile, tile), block_state, out);
      done[layer].store(nth + 1, std::memory_order_release);
    }
  };
  detail::take_layers(be, layers, [&](Index worker, Index mine) {
    Index layer = 0;
    each_layer(body, state, [&](const auto& block, auto& block_state) {
      if (layer++ == mine) run(worker, mine, block, block_state);
    });
  });
}

/// The same for a training batch.
inline Index cascade_tile_tokens(Index batch, Index time, int threads) {
  return std::min(time, cascade_tile_tokens(batch * time, threads));
}

namespace detail {
/// What a layer of a training pass reads and writes, and the memory of its tape.
template <class Sequence>
struct LayerPass {
  Sequence in, out;
  std::byte* memory;
  Index bytes;
};

/// Whether a layer keeps nothing but its input.
template <class L, class P>
inline constexpr bool keeps_input_only = false;
template <class L>
requires requires { typename L::template TapeFor<Recompute>; }
inline constexpr bool keeps_input_only<L, Recompute> = true;

/// Rows [first, first + count) of the rows [batch * time], as one sequence. Null stays null.
template <class T, Index W>
Seq<T, W> rows_of(const Seq<T, W>& x, Index first, Index count) {
  return {x.data == nullptr ? nullptr : x.data + first * Index(x.width), 1, count, x.width};
}
}  // namespace detail

/// Does what forward_of_tokens does for training, as a cascade, with the same tape. A tile has tokens of one sequence.
/// Shapes    tokens: [batch * time]   x, y: [batch, time, width]   workers: of cascade_workers
/// Errors    in a dry pass: a tile of a layer takes other memory than all tokens, so the layer does not cut freely
template <class P, class Body>
void forward_in_cascade(const Body& body, typename Body::backend& be, std::span<typename Body::backend> workers,
                        Arena& ws, std::span<const Token> tokens, Seq<typename Body::compute, Body::Width> x,
                        Index tile, typename Body::State& state, Seq<typename Body::compute, Body::Width> y,
                        tape_t<Body, P>& tape) {
  using backend = typename Body::backend;
  using Sequence = Seq<typename Body::compute, Body::Width>;
  using Side = SideStreams<typename Body::compute>;
  using Pass = detail::LayerPass<Sequence>;
  const Index rows = x.batch * x.time, tiles_each = (x.time + tile - 1) / tile, tiles = x.batch * tiles_each;
  const Index layers = detail::count_layers(body, state);

  Side whole = start_side_streams<Body>(ws, x, tokens);
  if constexpr (requires { tape.side; }) tape.side = whole;
  const auto side_of = [&, whole](Index first, Index count) {
    Side part = whole;
    part.embedding = detail::rows_of(whole.embedding, first, count);
    part.first_value = detail::rows_of(whole.first_value, first, count);
    if (!be.dry) part.tokens = tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    return part;
  };
  const auto run_tile = []<class L>(const L& layer, backend& alone, Arena& arena, Side& side, Sequence in,
                                    typename L::State& layer_state, Sequence out) {
    if constexpr (detail::keeps_input_only<L, P>) {
      forward_beside(layer, alone, arena, side, in, layer_state, out);
    } else {
      auto part = make_tape<P>(layer);  // views of the same memory as those of the whole tape
      forward_beside(layer, alone, arena, side, in, layer_state, out, part);
    }
  };

  // A dry pass over all tokens binds the tape.
  Pass* const passes = ws.take<Pass>(layers);
  Index scratch = 0;  // of a tile
  {
    const detail::DryPass dry(be);
    Side side = whole, side_of_tile = side_of(0, tile);
    Sequence in = x;
    Index nth = 0;
    each_layer(body, state, tape, [&]<class L>(const L& layer, auto& layer_state, auto& layer_tape) {
      const Sequence out = nth + 1 == layers ? y : ws.like<typename Body::compute>(x, x.width);
      Index bytes = 0, used = 0;
      {
        Arena measuring(bytes);
        Side again = side;
        forward_beside(layer, be, measuring, again, in, layer_state, out, layer_tape);
        used = measuring.used();
      }
      if constexpr (detail::keeps_input_only<L, P>) bytes = used;
      std::byte* const memory = ws.take<std::byte>(bytes);
      Index beyond = 0;
      Arena kept = memory == nullptr || detail::keeps_input_only<L, P> ? Arena(beyond) : Arena(memory, bytes);
      forward_beside(layer, be, kept, side, in, layer_state, out, layer_tape);
      if (!ws.measuring()) new (passes + nth) Pass{in, out, memory, bytes};
      for (backend& worker : workers.first(ws.measuring() ? workers.size() : 1)) {
        const detail::DryPass dry_worker(worker);
        Index peak = 0;
        Arena arena = detail::keeps_input_only<L, P> ? Arena(peak) : Arena(peak).part(rows, 0);
        Side again = side_of_tile;
        run_tile(layer, worker, arena, again, detail::rows_of(in, 0, tile), layer_state, detail::rows_of(out, 0, tile));
        if constexpr (detail::keeps_input_only<L, P>) {
          scratch = std::max(scratch, peak);
        } else {
          expects(arena.used() == used,
                  "rwkv: in a cascade the tape of a layer takes its memory like x; of this one a tile took ",
                  arena.used(), " bytes, all tokens ", used);
        }
      }
      side_of_tile.provided = side.provided;
      in = out;
      ++nth;
    });
  }

  Arena rest = ws;
  auto* const done = rest.take<std::atomic<Index>>(layers);  // how many tiles of a layer have run
  Side* const sides = rest.take<Side>(tiles);
  std::byte* const memory = rest.take<std::byte>(std::ssize(workers) * scratch);
  if (be.dry) return;

  const auto first_of = [&](Index nth) { return nth / tiles_each * x.time + nth % tiles_each * tile; };
  const auto count_of = [&](Index nth) { return std::min(tile, x.time - nth % tiles_each * tile); };
  for (Index nth = 0; nth < tiles; ++nth) new (sides + nth) Side(side_of(first_of(nth), count_of(nth)));
  for (Index layer = 0; layer < layers; ++layer) new (done + layer) std::atomic<Index>(0);
  const auto run = [&]<class L>(Index worker, Index mine, const L& layer, typename L::State& layer_state) {
    const Pass& pass = passes[mine];
    typename L::State one = layer_state;
    for (Index nth = 0; nth < tiles; ++nth) {
      if (nth % tiles_each == 0) one = state_of(layer, layer_state, nth / tiles_each);
      if (mine > 0) detail::wait_for_tiles(done[mine - 1], nth + 1);
      const Index first = first_of(nth), count = count_of(nth);
      Arena arena = detail::keeps_input_only<L, P> ? Arena(memory + worker * scratch, scratch)
                                                   : Arena(pass.memory, pass.bytes).part(rows, first);
      run_tile(layer, workers[static_cast<std::size_t>(worker)], arena, sides[nth],
               detail::rows_of(pass.in, first, count), one, detail::rows_of(pass.out, first, count));
      done[mine].store(nth + 1, std::memory_order_release);
    }
  };
  detail::take_layers(be, layers, [&](Index worker, Index mine) {
    Index nth = 0;
    each_layer(body, state, [&](const auto& layer, auto& layer_state) {
      if (nth++ == mine) run(worker, mine, layer, layer_state);
    });
  });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
