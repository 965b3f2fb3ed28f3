#pragma once
/// The adjoint of a recurrence on the CPU: packs of lanes, tiles of packs, and time in chunks.
#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

/// Partial sums over tokens, one set for each tile, added up when all tiles are done.
namespace partial_sums {

/// The operand itself; for a `sum`, a `sum` into `partial` instead.
template <class T, class Op>
RWKV_INLINE auto redirected([[maybe_unused]] T* partial, const Op& op) {
  if constexpr (detail::is_sum<Op>) return op.p.data == nullptr ? op : arg::sum(decltype(op.p){partial, op.p.size});
  else return op;
}

/// Calls body(operands...) with every `sum` redirected to `partial`, which holds `width` numbers for each sum.
template <class T, std::size_t... Nth, class Body, class... Op>
RWKV_INLINE void with(T* partial, std::index_sequence<Nth...>, const Body& body, const Op&... ops) {
  [[maybe_unused]] const Index width = detail::written(ops...).width;
  body(redirected(partial + static_cast<Index>(detail::sums_before<Op...>(Nth)) * width, ops)...);
}

/// Adds `count` sets of partial sums, in order, to the operands.
template <class T, class... Op>
void add(const T* partial, Index count, const Op&... ops) {
  const Index width = detail::written(ops...).width, stride = static_cast<Index>(detail::sum_count<Op...>) * width;
  constexpr Index block = 256;  // channels whose totals fit the L1 cache
  Index nth = 0;
  const auto add = [&](const auto& op) {
    if constexpr (detail::is_sum<std::remove_cvref_t<decltype(op)>>) {
      const T* from = partial + nth++ * width;
      for (Index begin = 0; begin < width && op.p.data != nullptr; begin += block) {
        const Index end = std::min(width, begin + block);
        T totals[block];
        std::fill_n(totals, block, T(0));
        for (Index i = 0; i < count; ++i) {
          for (Index c = begin; c < end; ++c) totals[c - begin] += from[i * stride + c];
        }
        for (Index c = begin; c < end; ++c) op.p.data[c] += totals[c - begin];
      }
    }
  };
  (add(ops), ...);
}

}  // namespace partial_sums

/// Runs the adjoint of a channel cell. A Scan divides time into parallel chunks of about its chunk length; otherwise
/// all of time is one chunk. Each chunk needs the state before it and the cotangent of the state after it. Summaries of
/// the chunks carry the state forwards; linear maps of the chunks carry the cotangent backwards.
///
/// `run(tiles, work, body)` runs body(tile) for all tiles, on several threads.
template <class Run, class Schedule, class C, class T, Index F, Index L, Index M, class... Op>
void recur_back_lanes(const Run& run, Arena scratch, bool dry, [[maybe_unused]] Schedule schedule, C cell,
                      Mat<const T, F> first, Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
  using R = Widest<T>;
  using Lanes = R[C::state_size];
  using Map = StretchBack<R, C::state_size>;
  constexpr auto order = std::index_sequence_for<Op...>();
  constexpr Index lanes_per_tile = 4 * R::size;
  const auto y = detail::written(ops...);
  const Index batch = y.batch, time = y.time, width = y.width;
  constexpr bool scans = std::is_same_v<Schedule, Scan>;
  const Index stretches = (time + back_stretch - 1) / back_stretch;
  Index per_chunk = std::max<Index>(1, stretches);  // whole stretches, so that no chunk starts inside one
  if constexpr (scans) {
    expects(schedule.chunk > 0, "rwkv: a scan needs chunks of at least one token, not ", schedule.chunk);
    per_chunk = (std::min(schedule.chunk, std::max<Index>(1, time)) + back_stretch - 1) / back_stretch;
  }
  const Index chunks = std::max<Index>(1, (stretches + per_chunk - 1) / per_chunk);
  const Index tiles = (width + lanes_per_tile - 1) / lanes_per_tile, packs = (width + R::size - 1) / R::size;
  const Index numbers = C::state_size * width, sums = static_cast<Index>(detail::sum_count<Op...>) * width;

  T* states = scratch.take<T>((stretches + 1) * batch * numbers);  // before each stretch
  T* cotangents = scratch.take<T>(chunks * batch * numbers);       // after each chunk; in the end before it
  T* partial = scratch.take<T>(chunks * batch * sums);
  Map* maps = scratch.take<Map>(chunks > 1 ? chunks * batch * packs : 0);
  if (dry) return;
  const auto state = [&](Index stretch, Index b) { return states + (stretch * batch + b) * numbers; };
  const auto cotangent = [&](Index c, Index b) { return cotangents + (c * batch + b) * numbers; };
  const Index work = batch * time * width * C::state_size;

  // Calls visit(lane, used, pack number) for the packs of a tile.
  const auto each_lane_pack = [&](Index tile, const auto& visit) {
    const Index end = std::min(width, (tile + 1) * lanes_per_tile);
    Index lane = tile * lanes_per_tile;
    for (; lane + R::size <= end; lane += R::size) visit(lane, detail::AllLanes{}, lane / R::size);
    if (lane < end) visit(lane, static_cast<int>(end - lane), lane / R::size);
  };
  const auto begin_of = [&](Index stretch) { return std::min(time, stretch * back_stretch); };
  const auto last_of = [&](Index c) { return std::min(stretches, (c + 1) * per_chunk); };

  /// Stores the state before each stretch of chunk c except its first, which is known.
  const auto mark = [&](Index c, Index b, Index tile) {
    for (Index s = c * per_chunk; s + 1 < last_of(c); ++s) {
      each_lane_pack(tile, [&](Index lane, auto used, Index) {
        Lanes now;
        R x[input_count<C>];
        detail::load_lanes(now, state(s, b) + lane, width, used);
        for (Index t = begin_of(s); t < begin_of(s + 1); ++t) {
          detail::load_inputs<C>(x, order, b, t, lane, used, ops...);
          advance<C>(now, x);
        }
        detail::store_lanes(now, state(s + 1, b) + lane, width, used);
      });
    }
  };
  const auto retreat = [&](Index c, Index b, Index tile) {
    for (Index s = last_of(c); s-- > c * per_chunk;) {
      each_lane_pack(tile, [&](Index lane, auto used, Index) {
        Lanes start, dstate;
        R totals[detail::sum_count<Op...> + 1];
        for (auto& total : totals) total = R(0);
        detail::load_lanes(start, state(s, b) + lane, width, used);
        detail::load_lanes(dstate, cotangent(c, b) + lane, width, used);
        retreat_lanes<R>(cell, b, lane, used, begin_of(s), begin_of(s + 1), start, dstate, totals, ops...);
        detail::store_lanes(dstate, cotangent(c, b) + lane, width, used);
        partial_sums::with(
            partial + (c * batch + b) * sums, order,
            [&](const auto&... to) { detail::add_sums(totals, lane, used, to...); }, ops...);
      });
    }
  };

  std::fill_n(partial, chunks * batch * sums, T(0));
  for (Index b = 0; b < batch; ++b) {
    std::copy_n(first.row(b), numbers, state(0, b));
    std::copy_n(dlast.row(b), numbers, cotangent(chunks - 1, b));
  }
  if (chunks == 1) {
    run(batch * tiles, work, [&](Index tile) {
      mark(0, tile / tiles, tile % tiles);
      retreat(0, tile / tiles, tile % tiles);
    });
  } else if constexpr (scans) {
    // Phase 1, forwards from chunk to chunk: the state before each chunk.
    run(batch * tiles, work, [&](Index job) {
      const Index b = job / tiles;
      each_lane_pack(job % tiles, [&](Index lane, auto used, Index) {
        Lanes now;
        detail::load_lanes(now, first.row(b) + lane, width, used);
        for (Index c = 0; c + 1 < chunks; ++c) {
          C::enter(now, summarise_lanes<R>(cell, b, lane, used, begin_of(c * per_chunk), begin_of((c + 1) * per_chunk),
                                           ops...));
          detail::store_lanes(now, state((c + 1) * per_chunk, b) + lane, width, used);
        }
      });
    });
    // Phase 2, chunks in parallel: the linear map of each chunk. Phase 3 carries the cotangents backwards through the
    // maps; phase 4 runs the chunks in parallel.
    run(chunks * batch * tiles, work, [&](Index job) {
      const Index c = job / (batch * tiles), b = job / tiles % batch, tile = job % tiles;
      mark(c, b, tile);
      each_lane_pack(tile, [&](Index lane, auto used, Index pack) {
        Map map = Map::identity();
        for (Index s = last_of(c); s-- > c * per_chunk;) {
          Lanes start;
          detail::load_lanes(start, state(s, b) + lane, width, used);
          extend_back(cell, map, b, lane, used, begin_of(s), begin_of(s + 1), start, ops...);
        }
        maps[(c * batch + b) * packs + pack] = map;
      });
    });
    for (Index b = 0; b < batch; ++b) {
      for (Index tile = 0; tile < tiles; ++tile) {
        each_lane_pack(tile, [&](Index lane, auto used, Index pack) {
          Lanes dstate;
          detail::load_lanes(dstate, dlast.row(b) + lane, width, used);
          for (Index c = chunks - 1; c > 0; --c) {
            maps[(c * batch + b) * packs + pack](dstate);
            detail::store_lanes(dstate, cotangent(c - 1, b) + lane, width, used);
          }
        });
      }
    }
    run(chunks * batch * tiles, work,
        [&](Index job) { retreat(job / (batch * tiles), job / tiles % batch, job % tiles); });
  }
  for (Index b = 0; b < batch; ++b) std::copy_n(cotangent(0, b), numbers, dfirst.row(b));
  if constexpr (detail::sum_count < Op... >> 0) partial_sums::add(partial, chunks * batch, ops...);
}

/// Tokens between two states that the adjoint of a row cell keeps from its forward pass.
inline constexpr Index head_stretch = 32;
/// Heads whose scratch exists at the same time.
inline constexpr Index heads_together = 64;

/// Calls body(room, b, nth, operands...) for head `nth` of every sequence b, with `bytes` of room for each and every `sum`
/// redirected to a partial sum of its sequence. A tile is a head of a sequence, because the lanes of a head add to the
/// same cotangents.
template <class T, class Run, class Body, class... Op>
void run_heads_back(const Run& run, Arena scratch, bool dry, Index size, Index bytes, const Body& body,
                    const Op&... ops) {
  const auto y = detail::written(ops...);
  const Index batch = y.batch, time = y.time, width = y.width;
  const Index heads = size > 0 ? width / size : 0, tiles = batch * heads, together = std::min(tiles, heads_together);
  const Index sums = static_cast<Index>(detail::sum_count<Op...>) * width;
  std::byte* rooms = scratch.take<std::byte>(together * bytes);
  T* partial = scratch.take<T>(batch * sums);
  if (dry) return;
  std::fill_n(partial, batch * sums, T(0));
  for (Index done = 0; done < tiles; done += together) {
    const Index count = std::min(together, tiles - done);
    run(count, count * time * size * size, [&](Index slot) {
      const Index b = (done + slot) / heads, nth = (done + slot) % heads;
      partial_sums::with(
          partial + b * sums, std::index_sequence_for<Op...>(),
          [&](const auto&... to) { body(rooms + slot * bytes, b, nth, to...); }, ops...);
    });
  }
  if constexpr (detail::sum_count < Op... >> 0) partial_sums::add(partial, batch, ops...);
}

/// Runs the adjoint of a row cell. In the forward pass it keeps the state in front of every stretch of tokens; in the
/// backward pass it recomputes the states inside a stretch.
template <class Run, class C, Index N, class T, Index F, Index L, Index M, class... Op>
void recur_back_heads(const Run& run, Arena scratch, bool dry, C, Extent<N> length, Mat<const T, F> first,
                      Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
  using R = Widest<T>;
  constexpr auto order = std::index_sequence_for<Op...>();
  constexpr std::size_t own = input_count<C>;
  constexpr Index vectors = detail::shared_count<C>;
  const auto y = detail::written(ops...);
  const Index time = y.time, size = length;
  const Index stretches = std::max<Index>(1, (time + head_stretch - 1) / head_stretch);
  const Index state = (size + R::size - 1) / R::size * size;  // [pack, component]
  const Index room = (stretches + head_stretch + 1) * state + vectors * size;

  const auto retreat = [&](std::byte* memory, Index b, Index nth, const auto&... to) {
    R* const marks = reinterpret_cast<R*>(memory);
    R* const inside = marks + stretches * state;  // the states before the tokens of a stretch
    R* const dstate = inside + head_stretch * state;
    R* const dshared = dstate + state;
    const Index begin = nth * size;
    // Calls visit(place of its state, its first lane, lanes in use) for the packs of lanes.
    const auto each_pack = [&](const auto& visit) {
      Index lane = 0;
      for (; lane + R::size <= size; lane += R::size) visit(lane / R::size * size, lane, detail::AllLanes{});
      if (lane < size) visit(lane / R::size * size, lane, static_cast<int>(size - lane));
    };
    const auto advance = [&](R* now, Index lane, auto used, Index t) {
      R x[own];
      detail::load_inputs<C>(x, order, b, t, begin + lane, used, to...);
      C::step(LaneState<R, N>{now, length}, x, detail::vectors_of_head<R>(begin, b, t, to...));
    };
    const auto end_of = [&](Index stretch) { return std::min(time, (stretch + 1) * head_stretch); };

    each_pack([&](Index place, Index lane, auto used) {
      const Index at = begin * size + lane;
      R* const now = inside + place;
      for (Index n = 0; n < size; ++n) {
        now[n] = detail::load<R>(first.row(b) + at + n * size, used);
        dstate[place + n] = detail::load<R>(dlast.row(b) + at + n * size, used);
      }
      for (Index s = 0; s < stretches; ++s) {
        std::copy_n(now, size, marks + s * state + place);
        for (Index t = s * head_stretch; s + 1 < stretches && t < end_of(s); ++t) advance(now, lane, used, t);
      }
    });
    for (Index s = stretches; s-- > 0;) {
      const Index from = s * head_stretch;
      each_pack([&](Index place, Index lane, auto used) {
        std::copy_n(marks + s * state + place, size, inside + place);
        for (Index t = from; t + 1 < end_of(s); ++t) {
          R* const before = inside + (t - from) * state + place;
          std::copy_n(before, size, before + state);
          advance(before + state, lane, used, t);
        }
      });
      for (Index t = end_of(s); t-- > from;) {
        std::fill_n(dshared, vectors * size, R(0));
        const auto head = detail::vectors_of_head<R>(begin, b, t, to...);
        each_pack([&](Index place, Index lane, auto used) {
          R x[own], dx[own];
          detail::load_inputs<C>(x, order, b, t, begin + lane, used, to...);
          step_back<C>(LaneState<const R, N>{inside + (t - from) * state + place, length}, x, head,
                       detail::load_cotangent<R>(b, t, begin + lane, used, to...),
                       LaneState<R, N>{dstate + place, length}, dx,
                       detail::AddToVectors<R, decltype(used)>{dshared, size, used});
          detail::write_gradients<C, 0>(
              order, b, t, begin + lane, used, [&](std::size_t i) { return dx[i]; }, to...);
        });
        for (Index n = 0; n < size; ++n) {
          const auto gradient = [&](std::size_t i) {
            return One<T>(sum_lanes(dshared[static_cast<Index>(i - own) * size + n]));
          };
          detail::write_gradients<C, own>(order, b, t, begin + n, detail::AllLanes{}, gradient, to...);
        }
      }
    }
    each_pack([&](Index place, Index lane, auto used) {
      for (Index n = 0; n < size; ++n) {
        detail::store(dstate[place + n], dfirst.row(b) + begin * size + lane + n * size, used);
      }
    });
  };

  run_heads_back<T>(run, scratch, dry, size, room * Index{sizeof(R)}, retreat, ops...);
}

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
