#pragma once
/// The operands of a recurrence at a few tokens, in the registers of one thread.
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/recur_back.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The type of an operand's numbers in memory.
template <class Op>
using stored_t = std::remove_cvref_t<decltype(*std::declval<const Op&>().row(0, 0))>;

/// One operand at a run of tokens, in its stored type: numbers are widened only when they are used, so that the
/// loads of many tokens can be in flight together. A per-channel parameter is held once.
template <std::size_t Nth, class R, int Tokens, class Op, bool Read>
struct Held {};
template <std::size_t Nth, class R, int Tokens, class Op>
struct Held<Nth, R, Tokens, Op, true> {
  static constexpr bool constant = detail::is_chan<Op>;
  using Stored = typename R::template Stored<stored_t<Op>>;
  Stored stored[constant ? 1 : Tokens];

  RWKV_HD void fetch(int i, const Op& op, Index b, Index t, Index lane) {
    stored[i] = *reinterpret_cast<const Stored*>(op.row(b, t) + lane);
  }
  RWKV_HD R number(int i) const {
    const Stored& numbers = stored[constant ? 0 : i];
    return R::each([&](int n) { return widen<typename R::scalar>(numbers.v[n]); });
  }
};

/// The first `Read` of the operands at a run of tokens, for R::size neighbouring lanes.
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

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
