#pragma once
/// The layers of a prompt as a cascade, on several threads.
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

#include "rwkv/backend/recur.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/each_layer.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Whether a block may run in a cascade: it has the same bits however a prompt is cut, so no schedule of it cuts time
/// itself, and its forward pass does not throw. A block of one's own says `static constexpr bool cuts_freely = true`.
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
}  // namespace detail

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

/// Does what forward_of_tokens does, as a cascade. A thread takes the lowest layer that nobody has taken, and runs all its
/// tiles, each as soon as the layer below has; so the weights of a layer stay in the caches of one core. Allocates
/// nothing.
/// Shapes    tokens: [batch * time]   x, y: [batch, time, width], all in tiles of `tile` tokens as cascade_tile says
template <class Body>
void forward_in_cascade(const Body& body, typename Body::backend& be, Arena ws, std::span<const Token> tokens,
                        Seq<typename Body::compute, Body::Width> x, Index tile, typename Body::State& state,
                        Seq<typename Body::compute, Body::Width> y) {
  using backend = typename Body::backend;
  using Sequence = Seq<typename Body::compute, Body::Width>;
  using Side = SideStreams<typename Body::compute>;
  const Index tiles = (x.time + tile - 1) / tile;
  Index layers = 0;
  each_layer(body, state, [&](const auto&, auto&) { ++layers; });

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
  {
    backend dry = be.alone();
    dry.dry = true;
    const Sequence none{nullptr, x.batch, std::min(tile, x.time), x.width};
    Arena measuring(scratch);
    forward_of_tokens(body, dry, measuring, {}, none, state, none);
  }
  const Index workers = std::min<Index>(be.threads(), layers);
  std::byte* const memory = ws.take<std::byte>(workers * scratch);
  if (be.dry) return;

  for (Index layer = 0; layer < layers; ++layer) new (done + layer) std::atomic<Index>(0);
  std::atomic<Index> taken = 0;  // layers; a thread waits for a lower one only, which another thread runs
  const auto run = [&](backend& alone, Arena arena, Index layer, const auto& block, auto& block_state) {
    for (Index nth = 0; nth < tiles; ++nth) {
      if (layer > 0) detail::wait_for_tiles(done[layer - 1], nth + 1);
      const Sequence out = cascade_tile(y, nth * tile, tile);
      forward_beside(block, alone, arena, sides[nth], layer > 0 ? out : cascade_tile(x, nth * tile, tile), block_state,
                     out);
      done[layer].store(nth + 1, std::memory_order_release);
    }
  };
  be.pool().run(workers, [&](Index worker) {
    backend alone = be.alone();
    for (Index mine = taken.fetch_add(1); mine < layers; mine = taken.fetch_add(1)) {
      Index layer = 0;
      each_layer(body, state, [&](const auto& block, auto& block_state) {
        if (layer++ == mine) run(alone, Arena(memory + worker * scratch, scratch), mine, block, block_state);
      });
    }
  });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
