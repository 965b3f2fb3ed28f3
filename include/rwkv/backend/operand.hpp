#pragma once
/// Operands of row programs and recurrences: a view, and how it is read or written at token (batch b, time t).
#include <span>
#include <type_traits>
#include <utility>

#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace arg {

/// This token's vector.
template <class T, Index W>
struct In {
  Seq<const T, W> x;  ///< [batch, time, width]
  RWKV_HD const T* row(Index b, Index t) const { return x.row(b, t); }
};

/// The previous token's vector: x[t-1], and `before` (from the state) at t = 0.
template <class T, Index W>
struct Prev {
  Seq<const T, W> x;    ///< [batch, time, width]
  Mat<const T> before;  ///< [batch, width]: in front of the first token
  RWKV_HD const T* row(Index b, Index t) const { return t == 0 ? before.row(b) : x.row(b, t - 1); }
};

/// A per-channel parameter, the same for every token.
template <class T, Index W>
struct Chan {
  Vec<const T, W> p;  ///< [width]
  RWKV_HD const T* row(Index, Index) const { return p.data; }
};

/// For row cells: a vector along the head that all lanes of the head read.
template <class Operand>
struct Shared {
  /// In or Chan: the vector.
  Operand operand;
  RWKV_HD auto row(Index b, Index t) const { return operand.row(b, t); }
};

/// An output that is written.
template <class T, Index W>
struct Out {
  Seq<T, W> y;  ///< [batch, time, width]
  RWKV_HD T* row(Index b, Index t) const { return y.row(b, t); }
};

/// An output that is added to.
template <class T, Index W>
struct Add {
  Seq<T, W> y;  ///< [batch, time, width]
  RWKV_HD T* row(Index b, Index t) const { return y.row(b, t); }
};

/// The cotangent of an output; for adjoints.
template <class T, Index W>
struct Cot {
  Seq<const T, W> x;  ///< [batch, time, width]
  RWKV_HD const T* row(Index b, Index t) const { return x.row(b, t); }
};

/// An output that sums over all tokens of all sequences, and adds to the vector: the gradient of a per-channel
/// parameter. Skipped when p.data is null (frozen parameter).
template <class T, Index W>
struct Sum {
  Vec<T, W> p;  ///< [width]
  RWKV_HD T* row(Index, Index) const { return p.data; }
};

/// The adjoint of `prev`. The gradient that token t passes to the previous token is added to dx[t-1]; at t = 0 it is
/// written to `dfirst`, the cotangent of the state before. `dlast`, the cotangent of the state after, is added to
/// dx[time-1].
template <class T, Index W>
struct Back {
  Seq<T, W> y;         ///< [batch, time, width]
  Mat<const T> dlast;  ///< [batch, width]: the cotangent of the state after
  Mat<T> dfirst;       ///< [batch, width]: receives the cotangent of the state before
  RWKV_HD T* row(Index b, Index t) const { return y.row(b, t); }
};

/// Reads the token itself.
template <class T, Index W>
constexpr In<std::remove_const_t<T>, W> in(Seq<T, W> x) {
  return {{x.data, x.batch, x.time, x.width}};
}
/// Reads the token before; `before` stands in front of the first.
template <class T, class U, Index W, Index C>
constexpr Prev<std::remove_const_t<T>, W> prev(Seq<T, W> x, Mat<U, C> before) {
  return {{x.data, x.batch, x.time, x.width}, {before.data, before.rows, Index(before.cols), before.stride}};
}
/// Reads a parameter of each channel.
template <class T, Index W>
constexpr Chan<std::remove_const_t<T>, W> chan(Vec<T, W> p) {
  return {{p.data, p.size}};
}
/// Makes an operand a vector that the lanes of a head share.
template <class Operand>
constexpr Shared<Operand> shared(Operand operand) {
  return {operand};
}
/// Is written at every token.
template <class T, Index W>
constexpr Out<T, W> out(Seq<T, W> y) {
  return {y};
}
/// Is added to at every token.
template <class T, Index W>
constexpr Add<T, W> add(Seq<T, W> y) {
  return {y};
}
/// Reads the cotangent of an output.
template <class T, Index W>
constexpr Cot<std::remove_const_t<T>, W> cot(Seq<T, W> dy) {
  return {{dy.data, dy.batch, dy.time, dy.width}};
}
/// Is a sum over all tokens, added to a gradient of each channel.
template <class T, Index W>
constexpr Sum<T, W> sum(Vec<T, W> dp) {
  return {dp};
}
/// Receives the gradient of a `prev` operand.
template <class T, Index W, class U, Index C, Index M>
constexpr Back<T, W> back(Seq<T, W> dx, Mat<U, C> dlast, Mat<T, M> dfirst) {
  return {dx,
          {dlast.data, dlast.rows, Index(dlast.cols), dlast.stride},
          {dfirst.data, dfirst.rows, Index(dfirst.cols), dfirst.stride}};
}

}  // namespace arg

namespace detail {

/// A `sum` over the tokens that one thread visits, accumulated in a register.
template <class R>
struct Total {
  R* sum;
};

template <class Op>
inline constexpr bool is_output = false;
template <class R>
inline constexpr bool is_output<Total<R>> = true;
template <class T, Index W>
inline constexpr bool is_output<arg::Out<T, W>> = true;
template <class T, Index W>
inline constexpr bool is_output<arg::Add<T, W>> = true;
template <class T, Index W>
inline constexpr bool is_output<arg::Sum<T, W>> = true;
template <class T, Index W>
inline constexpr bool is_output<arg::Back<T, W>> = true;

template <class Op>
inline constexpr bool is_add = false;
template <class T, Index W>
inline constexpr bool is_add<arg::Add<T, W>> = true;
template <class T, Index W>
inline constexpr bool is_add<arg::Sum<T, W>> = true;
template <class T, Index W>
inline constexpr bool is_add<arg::Back<T, W>> = true;

template <class Op>
inline constexpr bool is_sum = false;
template <class R>
inline constexpr bool is_sum<Total<R>> = true;
template <class T, Index W>
inline constexpr bool is_sum<arg::Sum<T, W>> = true;

template <class Op>
inline constexpr bool is_cot = false;
template <class T, Index W>
inline constexpr bool is_cot<arg::Cot<T, W>> = true;

template <class Op>
inline constexpr bool is_prev = false;
template <class T, Index W>
inline constexpr bool is_prev<arg::Prev<T, W>> = true;

template <class Op>
inline constexpr bool is_back = false;
template <class T, Index W>
inline constexpr bool is_back<arg::Back<T, W>> = true;

template <class Op>
inline constexpr bool is_chan = false;
template <class T, Index W>
inline constexpr bool is_chan<arg::Chan<T, W>> = true;

template <class... Op>
consteval bool explain_rows_without_scratch() {
  static_assert((!is_sum<Op> && ...), "rwkv: rows with a sum(...) needs scratch as its first argument");
  return true;
}

/// The first operand that is a cotangent or an output other than a sum. Its batch, time and width are the sizes of the
/// operation.
template <class First, class... Rest>
RWKV_HD constexpr auto written(const First& first, const Rest&... rest) {
  if constexpr (is_cot<First>) return first.x;
  else if constexpr (is_output<First> && !is_sum<First>) return first.y;
  else return written(rest...);
}
/// The computing scalar of an operation.
template <class... Op>
using element_t = std::remove_const_t<typename decltype(written(std::declval<const Op&>()...))::element>;

/// Says that all lanes of a number are in use; a partial pack at the end of a row passes an int instead.
struct AllLanes {};

/// Calls visit(column, lanes) for the columns of a row, R::size at a time. `lanes` is AllLanes, or an int for a partial
/// pack at the end.
template <class R, class Visit>
RWKV_INLINE void each_pack(Index columns, const Visit& visit) {
  Index c = 0;
  for (; c + R::size <= columns; c += R::size) visit(c, AllLanes{});
  if (c < columns) visit(c, static_cast<int>(columns - c));
}

template <class R, class T>
RWKV_HD R load(const T* from, AllLanes) {
  return R::load(from);
}
template <class R, class T>
RWKV_HD R load(const T* from, int lanes) {
  return R::load(from, lanes);
}

template <class R, class T>
RWKV_HD void store(const R& value, T* to, AllLanes) {
  value.store(to);
}
template <class R, class T>
RWKV_HD void store(const R& value, T* to, int lanes) {
  value.store(to, lanes);
}

/// Keeps the lanes in use and sets the others to zero.
template <class R>
RWKV_HD R only(const R& value, AllLanes) {
  return value;
}
template <class R>
RWKV_HD R only(const R& value, int lanes) {
  return first_lanes(value, lanes);
}

/// One operand of a row program at one token and channel: an input is loaded by the constructor, an output is stored by
/// finish().
template <class R, class Op, class Lanes>
struct Slot {
  const Op& op;
  Index b, t, c;
  Lanes lanes;
  R value;

  RWKV_HD Slot(const Op& operand, Index batch, Index time, Index channel, Lanes used)
      : op(operand), b(batch), t(time), c(channel), lanes(used) {
    if constexpr (!is_output<Op>) value = load<R>(op.row(b, t) + c, lanes);
  }
  /// A slot whose value is already loaded.
  RWKV_HD Slot(const Op& operand, Index batch, Index time, Index channel, Lanes used, const R& loaded)
      : op(operand), b(batch), t(time), c(channel), lanes(used), value(loaded) {}

  RWKV_HD void finish() {
    if constexpr (requires { op.sum; }) {
      *op.sum += value;
    } else if constexpr (is_sum<Op>) {
      if (op.p.data != nullptr) store(load<R>(op.p.data + c, lanes) + value, op.p.data + c, lanes);
    } else if constexpr (is_add<Op>) {
      store(load<R>(op.row(b, t) + c, lanes) + value, op.row(b, t) + c, lanes);
    } else if constexpr (is_output<Op>) {
      store(value, op.row(b, t) + c, lanes);
    }
  }
};

/// Checks that an operand covers what the operation writes.
template <class Op>
void check_operand(const Op& op, Index batch, Index time, Index width) {
  if constexpr (requires { op.operand; }) {
    check_operand(op.operand, batch, time, width);
  } else if constexpr (requires { op.p; }) {
    asserts(op.p.size == width || (is_sum<Op> && op.p.data == nullptr), "rwkv: a per-channel operand has ",
            Index(op.p.size), " channels, the output ", width);
  } else {
    const auto& view = [&]() -> const auto& {
      if constexpr (is_output<Op>) return op.y;
      else return op.x;
    }
    ();
    const Index got[] = {view.batch, view.time, view.width}, want[] = {batch, time, width};
    asserts(got[0] == want[0] && got[1] == want[1] && got[2] == want[2], "rwkv: an operand has shape ", std::span(got),
            ", the output ", std::span(want));
    const auto check_shift = [&](const auto& shift) {
      const Index state[] = {shift.rows, shift.cols}, expected[] = {batch, width};
      asserts(state[0] == expected[0] && state[1] == expected[1], "rwkv: a token-shift state has shape ",
              std::span(state), ", the sequence needs ", std::span(expected));
    };
    if constexpr (requires { op.before; }) check_shift(op.before);
    if constexpr (requires { op.dlast; }) {
      check_shift(op.dlast);
      check_shift(op.dfirst);
    }
  }
}

/// Checks that a copy has the shape of its original.
template <class T, class U, Index N, Index M>
void check_copy(const Mat<T, N>& from, const Mat<U, M>& to) {
  const Index got[] = {from.rows, from.cols}, want[] = {to.rows, to.cols};
  asserts(got[0] == want[0] && got[1] == want[1], "rwkv: a copy of shape ", std::span(want), " of a matrix of shape ",
          std::span(got));
}

/// Checks that the rows exist and fit where they go.
template <class W, class T, Index M, Index N>
void check_gather(const Mat<W, M>& table, std::span<const Token> rows, const Mat<T, N>& to) {
  const Index got[] = {std::ssize(rows), table.cols}, want[] = {to.rows, to.cols};
  asserts(got[0] == want[0] && got[1] == want[1], "rwkv: gathered rows have shape ", std::span(got), ", their place ",
          std::span(want));
  for (const Token row : rows) {
    asserts(row >= 0 && row < table.rows, "rwkv: row ", row, " is outside a table of ", table.rows, " rows");
  }
}

/// Checks that every row of logits has a target and a place for its loss.
template <class T>
void check_cross_entropy(const Mat<T>& logits, std::span<const Token> targets, std::span<T> losses) {
  asserts(std::ssize(targets) == logits.rows && std::ssize(losses) == logits.rows, "rwkv: the cross entropy of ",
          logits.rows, " positions has ", targets.size(), " targets and room for ", losses.size(), " losses");
  for (const Token target : targets) {
    asserts(target >= -1 && target < logits.cols, "rwkv: target ", target, " is outside the vocabulary of ",
            Index(logits.cols));
  }
}

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv
