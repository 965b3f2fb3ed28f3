#pragma once
/// The oracle: every verb as the plainest loop that is right. Also the smallest example of a backend.
#include <new>
#include <span>

#include "rwkv/backend/product.hpp"
#include "rwkv/backend/recur.hpp"
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv::inline RWKV_ABI {

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

  template <class... P>
  void gemm(const P&... products) {
    if (dry) return;
    (multiply(products), ...);
  }

  template <class P, class... Op>
  void rows(const P& program, const Op&... ops) {
    if (dry) return;
    const auto y = detail::written(ops...);
    (detail::check_operand(ops, y.batch, y.time, y.width), ...);
    for (Index b = 0; b < y.batch; ++b) {
      for (Index t = 0; t < y.time; ++t) apply_row<One<element<Op...>>>(program, b, t, ops...);
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

 private:
  template <class... Op>
  using element = typename decltype(detail::written(std::declval<Op>()...))::element;

  template <class T, class W, class Epilogue>
  static void multiply(const Product<T, W, Epilogue>& product) {
    const auto& [y, x, w, epilogue] = product;
    for (Index r = 0; r < y.rows; ++r) {
      for (Index n = 0; n < y.cols; ++n) {
        T sum = T(0);
        for (Index k = 0; k < x.cols; ++k) sum = sum + x(r, k) * widen<T>(w(n, k));
        y(r, n) = epilogue(One<T>(sum)).v;
      }
    }
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

}  // namespace rwkv::inline RWKV_ABI
