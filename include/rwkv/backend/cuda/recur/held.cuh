#pragma once
/// Which tokens belong to which sequence, and operands of a recurrence held in registers.
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/recur_back.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The tokens [begin, end) of batch row b.
struct Span {
  Index b, begin, end;
};

/// The n-th of the equal pieces that sequence s is cut into.
struct Place {
  Index s, n;
};

/// Sequences of one length. Their pieces of `per` tokens lie in slots: the first piece of each, then the second.
struct Whole {
  static constexpr bool long_tiles = true;  ///< whether a scan may take them
  Index batch, time;
  RWKV_HD Index count() const { return batch; }
  RWKV_HD Span operator[](Index s) const { return {s, 0, time}; }
  RWKV_HD Index slots(Index per) const { return (time + per - 1) / per * batch; }
  RWKV_HD Index slot(Place place, Index) const { return place.n * batch + place.s; }
  RWKV_HD Place place(Index slot, Index) const { return {slot % batch, slot / batch}; }
};

/// Sequences of any lengths one after the other in batch row 0: sequence s has the tokens [starts[s], starts[s + 1]).
/// Its pieces lie in slots one after the other; some slots stay empty.
template <class I>
struct Packed {
  static constexpr bool long_tiles = false;  ///< finding a tile's place takes the registers
  const I* starts;
  Index sequences, tokens;
  RWKV_HD Index count() const { return sequences; }
  RWKV_HD Span operator[](Index s) const {
    return {0, static_cast<Index>(starts[s]), static_cast<Index>(starts[s + 1])};
  }
  RWKV_HD Index slots(Index per) const { return tokens / per + sequences; }
  RWKV_HD Index slot(Place place, Index per) const {
    return static_cast<Index>(starts[place.s]) / per + place.s + place.n;
  }
  /// The last sequence whose slots begin at this one or before.
  RWKV_HD Place place(Index at, Index per) const {
    Index low = 0, high = sequences;
    while (high - low > 1) {
      const Index middle = (low + high) / 2;
      if (slot({middle, 0}, per) <= at) low = middle;
      else high = middle;
    }
    return {low, at - slot({low, 0}, per)};
  }
};

/// The number type of an operand in memory.
template <class Op>
using stored_t = std::remove_cvref_t<decltype(*std::declval<const Op&>().row(0, 0))>;

/// One operand at a run of tokens, as it lies in memory: a number is widened where it is used, so that the loads of
/// many tokens are under way at a time. A per-channel parameter is held once.
template <std::size_t Nth, class R, int Tokens, class Op, bool Read>
struct Held {};
template <std::size_t Nth, class R, int Tokens, class Op>
struct Held<Nth, R, Tokens, Op, true> {
  static constexpr bool constant = detail::is_chan<Op>;
  using Piece = typename R::template Piece<stored_t<Op>>;
  Piece pieces[constant ? 1 : Tokens];

  RWKV_HD void fetch(int i, const Op& op, Index b, Index t, Index lane) {
    pieces[i] = *reinterpret_cast<const Piece*>(op.row(b, t) + lane);
  }
  RWKV_HD R number(int i) const {
    const Piece& piece = pieces[constant ? 0 : i];
    return R::each([&](int n) { return widen<typename R::scalar>(piece.v[n]); });
  }
};

/// The first `Read` operands at a run of tokens, for R::size neighbouring lanes.
template <class R, int Tokens, std::size_t Read, class Order, class... Op>
struct Run;
template <class R, int Tokens, std::size_t Read, std::size_t... Nth, class... Op>
struct Run<R, Tokens, Read, std::index_sequence<Nth...>, Op...> : Held<Nth, R, Tokens, Op, (Nth < Read)>... {
  static constexpr int length = Tokens;

  /// Loads the per-channel parameters.
  RWKV_HD void begin(Index lane, const Op&... ops) { (fetch_one<Nth, true>(0, 0, 0, lane, ops), ...); }
  /// Loads token i of the run from time t.
  RWKV_HD void fetch(int i, Index b, Index t, Index lane, const Op&... ops) {
    (fetch_one<Nth, false>(i, b, t, lane, ops), ...);
  }
  /// The first numbers of token i.
  template <std::size_t Count>
  RWKV_HD void numbers(int i, R (&x)[Count]) const {
    (number_one<Nth>(i, x), ...);
  }

 private:
  template <std::size_t N, bool Constant, class O>
  RWKV_HD void fetch_one(int i, Index b, Index t, Index lane, const O& op) {
    if constexpr (N < Read && detail::is_chan<O> == Constant) {
      static_cast<Held<N, R, Tokens, O, true>&>(*this).fetch(i, op, b, t, lane);
    }
  }
  template <std::size_t N, std::size_t Count>
  RWKV_HD void number_one(int i, R (&x)[Count]) const {
    if constexpr (N < Count) x[N] = nth<N>(*this, i);
  }
  template <std::size_t N, class O>
  RWKV_HD static R nth(const Held<N, R, Tokens, O, true>& held, int i) {
    return held.number(i);
  }
};
template <class R, int Tokens, std::size_t Read, class... Op>
using run_t = Run<R, Tokens, Read, std::index_sequence_for<Op...>, Op...>;

/// Whether N neighbouring elements of an operand may be loaded as one.
template <int N, class Op>
bool operand_aligned(const Op& op) {
  if constexpr (requires { op.p; }) return has_pieces<N>(op.p.data);
  else if constexpr (requires { op.before; }) {
    return has_pieces<N>(op.x.data) && has_pieces<N>(op.before.data, op.before.stride);
  } else if constexpr (requires { op.x; }) return has_pieces<N>(op.x.data);
  else return has_pieces<N>(op.y.data);
}
template <int N, class T, Index M>
bool operand_aligned(const Mat<T, M>& state) {
  return has_pieces<N>(state.data, state.stride);
}

/// Whether each thread may take N neighbouring channels.
template <int N, class... Op>
bool all_aligned(Index width, const Op&... ops) {
  return width % N == 0 && (operand_aligned<N>(ops) && ...);
}

/// The view with all its sizes dynamic.
template <class T, Index M>
constexpr Mat<T> dynamic(const Mat<T, M>& matrix) {
  return {matrix.data, matrix.rows, Index(matrix.cols), matrix.stride};
}

template <class... Op>
consteval bool explain_packed() {
  static_assert((!detail::is_prev<Op> && ...),
                "rwkv: packed sequences have no token before; give the recurrence in(...)");
  return true;
}

inline void check_one_row(Index batch) { asserts(batch == 1, "rwkv: packed sequences lie in one row, not in ", batch); }

/// Checks the operands of packed sequences: one row of tokens, a state for each sequence.
template <class C, class T, Index M, class... Op>
void check_packed(Index length, const Mat<T, M>& state, const Op&... ops) {
  const auto y = detail::written(ops...);
  check_one_row(y.batch);
  auto one = state;
  one.rows = 1;
  detail::check_recur<C>(length, one, ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
