#pragma once
/// The oracle: every verb as the plainest loop that is right. Also the smallest example of a backend.
#include <algorithm>
#include <array>
#include <new>
#include <span>
#include <utility>

#include "rwkv/backend/cross_entropy.hpp"
#include "rwkv/backend/dequantised.hpp"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/recur.hpp"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Naive loops on the CPU, one scalar at a time, one thread. Meant for double.
class Reference {
 public:
  /// While set, verbs return at once: a forward pass then only measures its scratch.
  bool dry = false;

  template <class T>
  T* allocate(Index count) {
    return static_cast<T*>(
        ::operator new (static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{arena_alignment}));
  }
  void free(void* block) { ::operator delete (block, std::align_val_t{arena_alignment}); }
  void sync() {}

  template <class T, class U, Index N, Index M>
  void copy(Mat<T, N> from, Mat<U, M> to) {
    if (dry) return;
    detail::check_copy(from, to);
    for (Index r = 0; r < to.rows; ++r) {
      for (Index c = 0; c < to.cols; ++c) to(r, c) = from(r, c);
    }
  }

  template <class T, Index N>
  void fill(Mat<T, N> to, T value) {
    if (dry) return;
    for (Index r = 0; r < to.rows; ++r) {
      for (Index c = 0; c < to.cols; ++c) to(r, c) = value;
    }
  }

  template <class T, class W, Index N, Index M>
  void gather_rows(Mat<W, M> table, std::span<const Token> rows, Mat<T, N> to) {
    if (dry) return;
    detail::check_gather(table, rows, to);
    for (Index r = 0; r < to.rows; ++r) {
      for (Index c = 0; c < to.cols; ++c) to(r, c) = widen<T>(table(rows[static_cast<std::size_t>(r)], c));
    }
  }

  template <class T, Index N>
  void gather_rows(const StoredMat& table, std::span<const Token> rows, Mat<T, N> to) {
    if (!dry) detail::gather_dequantised(table, rows, to);
  }

  template <class T, class W, Index N, Index M>
  void scatter_add_rows(Arena, Mat<T, N> from, std::span<const Token> rows, Mat<W, M> table) {
    if (dry) return;
    detail::check_gather(table, rows, from);
    for (Index r = 0; r < from.rows; ++r) {
      for (Index c = 0; c < from.cols; ++c) table(rows[static_cast<std::size_t>(r)], c) += from(r, c);
    }
  }

  template <class T>
  void cross_entropy(Mat<T> logits, std::span<const Token> targets, const CrossEntropyWeights& weights,
                     std::span<T> losses) {
    if (dry) return;
    detail::check_cross_entropy(logits, targets, losses);
    for (std::size_t r = 0; r < targets.size(); ++r) {
      losses[r] = cross_entropy_row<One<T>>(logits.row(static_cast<Index>(r)), logits.cols, targets[r], weights);
    }
  }

  template <class T, Index N>
  double sum_of_squares(Arena, Mat<T, N> x) {
    double sum = 0;
    for (Index r = 0; r < x.rows && !dry; ++r) {
      for (Index c = 0; c < x.cols; ++c) sum += static_cast<double>(x(r, c)) * static_cast<double>(x(r, c));
    }
    return sum;
  }

  template <class... P>
  void gemm(const P&... products) {
    if (dry) return;
    (multiply(products), ...);
  }

  template <class P, class... Op>
  void rows(const P& program, const Op&... ops) {
    static_assert(detail::explain_rows_without_scratch<Op...>());
    rows(Arena(nullptr, 0), program, ops...);
  }
  template <class P, class... Op>
  void rows(Arena, const P& program, const Op&... ops) {
    if (dry) return;
    const auto y = detail::written(ops...);
    (detail::check_operand(ops, y.batch, y.time, y.width), ...);
    for (Index b = 0; b < y.batch; ++b) {
      for (Index t = 0; t < y.time; ++t) apply_row<One<detail::element_t<Op...>>>(program, b, t, ops...);
    }
  }

  template <class Schedule, class C, Index N, class T, Index M, class... Op>
  void recur(Arena, Schedule, C cell, Extent<N> length, Mat<T, M> state, const Op&... ops) {
    static_assert(detail::explain_recur<Schedule, C, Op...>());
    if (dry) return;
    detail::check_recur<C>(length, state, ops...);
    const auto y = detail::written(ops...);
    const Index head_lanes = RowCell<C> ? Index(length) : Index(y.width);
    const Index numbers = detail::lane_state_size<C>(length);
    for (Index b = 0; b < y.batch; ++b) {
      for (Index head = 0; head * head_lanes < y.width; ++head) {
        for (Index lane = 0; lane < head_lanes; ++lane) {
          advance_lanes<One<T>, 1>(cell, length, state.row(b) + head * numbers * head_lanes,
                                   LanePlace{b, head, head_lanes, lane}, detail::AllLanes{}, 0, y.time, ops...);
        }
      }
    }
  }

  /// Always the adjoint from dual numbers, never a hand-written one. Keeps the states of the whole sequence.
  template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class... Op>
  void recur_back(Arena scratch, Schedule, C cell, Extent<N> length, Mat<const T, F> first, Mat<const T, L> dlast,
                  Mat<T, M> dfirst, const Op&... ops) {
    static_assert(detail::explain_recur_back<Schedule, C, Op...>());
    if constexpr (RowCell<C>) return recur_back_heads(scratch, cell, length, first, dlast, dfirst, ops...);
    else return recur_back_channels(scratch, cell, first, dlast, dfirst, ops...);
  }

 private:
  /// A row cell, head by head: the states of all lanes before every token, then token after token from the last.
  template <class C, Index N, class T, Index F, Index L, Index M, class... Op>
  void recur_back_heads(Arena scratch, C, Extent<N> length, Mat<const T, F> first, Mat<const T, L> dlast,
                        Mat<T, M> dfirst, const Op&... ops) {
    using R = One<T>;
    constexpr auto order = std::index_sequence_for<Op...>();
    constexpr auto all = detail::AllLanes{};
    constexpr std::size_t own = input_count<C>, vectors = detail::shared_count<C>;
    const auto y = detail::written(ops...);
    const Index size = length, numbers = size * size;
    R* states = scratch.take<R>((y.time + 1) * numbers);  // [time, lane, component]
    R* dstate = scratch.take<R>(numbers);
    R* dshared = scratch.take<R>(static_cast<Index>(vectors) * size);
    if (dry) return;
    detail::check_recur_back<C>(length, first, dlast, dfirst, ops...);
    for (Index b = 0; b < y.batch; ++b) {
      for (Index begin = 0; begin < y.width; begin += size) {
        const auto number = [&](auto* of_sequence, Index lane, Index n) -> auto& {
          return of_sequence[begin * size + n * size + lane];
        };
        for (Index lane = 0; lane < size; ++lane) {
          R x[own];
          for (Index n = 0; n < size; ++n) states[lane * size + n] = R(number(first.row(b), lane, n));
          for (Index n = 0; n < size; ++n) dstate[lane * size + n] = R(number(dlast.row(b), lane, n));
          for (Index t = 0; t < y.time; ++t) {
            R* const now = states + (t + 1) * numbers + lane * size;
            std::copy(now - numbers, now - numbers + size, now);
            detail::load_inputs<C>(x, order, b, t, begin + lane, all, ops...);
            C::step(LaneState<R, N>{now, length}, x, detail::vectors_of_head<R>(begin, b, t, ops...));
          }
        }
        for (Index t = y.time; t-- > 0;) {
          std::fill_n(dshared, static_cast<Index>(vectors) * size, R(0));
          const auto head = detail::vectors_of_head<R>(begin, b, t, ops...);
          for (Index lane = 0; lane < size; ++lane) {
            R x[own], dx[own];
            detail::load_inputs<C>(x, order, b, t, begin + lane, all, ops...);
            derived_step_back<C>(LaneState<const R, N>{states + t * numbers + lane * size, length}, x, head,
                                 detail::load_cotangent<R>(b, t, begin + lane, all, ops...),
                                 LaneState<R, N>{dstate + lane * size, length}, dx,
                                 detail::AddToVectors<R, detail::AllLanes>{dshared, size, all});
            detail::write_gradients<C, 0>(
                order, b, t, begin + lane, all, [&](std::size_t i) { return dx[i]; }, ops...);
          }
          for (Index n = 0; n < size; ++n) {
            detail::write_gradients<C, own>(
                order, b, t, begin + n, all,
                [&](std::size_t i) { return dshared[static_cast<Index>(i - own) * size + n]; }, ops...);
          }
        }
        for (Index lane = 0; lane < size; ++lane) {
          for (Index n = 0; n < size; ++n) number(dfirst.row(b), lane, n) = dstate[lane * size + n].v;
        }
      }
    }
  }

  template <class C, class T, Index F, Index L, Index M, class... Op>
  void recur_back_channels(Arena scratch, C, Mat<const T, F> first, Mat<const T, L> dlast, Mat<T, M> dfirst,
                           const Op&... ops) {
    using R = One<T>;
    constexpr auto states = static_cast<std::size_t>(C::state_size);
    const auto y = detail::written(ops...);
    auto* before = scratch.take<std::array<R, states>>(y.time + 1);
    if (dry) return;
    detail::check_recur_back<C>(C::state_size, first, dlast, dfirst, ops...);
    for (Index b = 0; b < y.batch; ++b) {
      for (Index lane = 0; lane < y.width; ++lane) {
        R state[states], dstate[states], x[input_count<C>], sums[detail::sum_count<Op...> + 1];
        detail::load_lanes(state, first.row(b) + lane, y.width, detail::AllLanes{});
        detail::load_lanes(dstate, dlast.row(b) + lane, y.width, detail::AllLanes{});
        for (Index t = 0; t < y.time; ++t) {
          std::copy(state, state + states, before[t].begin());
          detail::load_inputs<C>(x, std::index_sequence_for<Op...>(), b, t, lane, detail::AllLanes{}, ops...);
          advance<C>(state, x);
        }
        for (auto& sum : sums) sum = R(0);
        for (Index t = y.time; t-- > 0;) {
          std::copy(before[t].begin(), before[t].end(), state);
          retreat_lanes<R>(Derived<C>{}, b, lane, detail::AllLanes{}, t, t + 1, state, dstate, sums, ops...);
        }
        detail::store_lanes(dstate, dfirst.row(b) + lane, y.width, detail::AllLanes{});
        detail::add_sums(sums, lane, detail::AllLanes{}, ops...);
      }
    }
  }

  /// The cell with its hand-written adjoint hidden.
  template <class C>
  struct Derived {
    static constexpr auto inputs = C::inputs;
    static constexpr int state_size = C::state_size;
    template <class R>
    RWKV_HD static void init(R (&state)[state_size]) {
      C::init(state);
    }
    template <class R>
    RWKV_HD static R step(R (&state)[state_size], const R (&x)[input_count<C>]) {
      return C::step(state, x);
    }
  };

  template <class T, class W, class Epilogue>
  static void multiply(const Product<T, W, Epilogue>& product) {
    const auto y = product.y;
    const auto x = product.x;
    if constexpr (std::is_same_v<W, AnyStorage>) {
      if (is_quantised(product.w.dtype)) {
        detail::multiply_dequantised(y, x, product.w, 0, y.cols);
        for (Index r = 0; r < y.rows; ++r) {
          for (Index n = 0; n < y.cols; ++n) y(r, n) = product.epilogue(One<T>(y(r, n))).v;
        }
        return;
      }
    }
    with_typed<T>(product.w, [&](auto w) {
      for (Index r = 0; r < y.rows; ++r) {
        for (Index n = 0; n < y.cols; ++n) {
          T sum = T(0);
          for (Index k = 0; k < x.cols; ++k) sum = sum + x(r, k) * widen<T>(w(n, k));
          y(r, n) = product.epilogue(One<T>(sum)).v;
        }
      }
    });
  }
  template <class T, class W>
  static void multiply(const PlainProduct<T, W>& product) {
    const auto& [y, x, w, transposed, added] = product;
    for (Index r = 0; r < y.rows; ++r) {
      for (Index c = 0; c < y.cols; ++c) {
        T sum = T(0);
        for (Index k = 0; k < w.rows; ++k) sum = sum + (transposed ? x(k, r) : x(r, k)) * widen<T>(w(k, c));
        y(r, c) = added ? y(r, c) + sum : sum;
      }
    }
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
