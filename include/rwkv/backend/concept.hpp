#pragma once
/// What a backend is: memory, seven verbs and `sync`, and five more verbs for training. The layers above are written
/// once, against these verbs.
#include <span>

#include "rwkv/backend/cross_entropy.hpp"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/recur.hpp"
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Stand-ins for the arguments with which the concept checks the verbs.
struct RowProgramArchetype {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = x;
  }
};
struct CellArchetype {
  static constexpr auto inputs = Inputs{"input"};
  static constexpr int state_size = 1;
  template <class R>
  RWKV_HD static void init(R (&state)[1]) {
    state[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&state)[1], const R (&x)[1]) {
    state[0] = state[0] + x[0];
    return state[0];
  }
};

template <class B>
concept HasMemory = requires(B& be, float* block) {
  { be.template allocate<float>(Index{1}) } -> std::same_as<float*>;
  be.free(block);
  be.sync();
  { be.dry } -> std::convertible_to<bool>;
};
template <class B>
concept HasCopies = requires(B& be, Mat<float> m, Mat<const float> from, std::span<const Token> tokens) {
  be.copy(from, m);
  be.fill(m, 0.0f);
  be.gather_rows(from, tokens, m);
};
template <class B>
concept HasGemm = requires(B& be, Mat<float> m) {
  be.gemm(mul(m, m, transposed(m)));
  be.gemm(mul(m, m, m), mul(plus(m), transposed(m), m));
};
template <class B>
concept HasRows = requires(B& be, Seq<float> x) {
  be.rows(RowProgramArchetype{}, arg::in(x), arg::out(x));
};
template <class B>
concept HasRecur = requires(B& be, Arena ws, Seq<float> x, Mat<float> state) {
  be.recur(ws, Auto{}, CellArchetype{}, Extent<1>{}, state, arg::in(x), arg::out(x));
};

template <class B>
concept HasSums = requires(B& be, Arena ws, Seq<float> x, Vec<float> p) {
  be.rows(ws, RowProgramArchetype{}, arg::cot(x), arg::sum(p));
};
template <class B>
concept HasRecurBack = requires(B& be, Arena ws, Seq<float> x, Mat<float> state) {
  be.recur_back(ws, Auto{}, CellArchetype{}, Extent<1>{}, Mat<const float>(state), Mat<const float>(state), state,
                arg::in(x), arg::cot(x), arg::out(x));
};
template <class B>
concept HasScatterAdd = requires(B& be, Arena ws, Mat<float> m, std::span<const Token> tokens) {
  be.scatter_add_rows(ws, m, tokens, m);
};
template <class B>
concept HasCrossEntropy = requires(B& be, Mat<float> logits, std::span<const Token> targets, std::span<float> losses) {
  be.cross_entropy(logits, targets, CrossEntropyWeights{}, losses);
};
template <class B>
concept HasSumOfSquares = requires(B& be, Arena ws, Mat<float> m) {
  { be.sum_of_squares(ws, m) } -> std::same_as<double>;
};

}  // namespace detail

/// A backend: memory aligned to arena_alignment from `allocate<T>(count)`, given back by `free`, and
///
///     copy(from, to)                    to = from; both [rows, cols], not overlapping
///     fill(to, value)                   every element of to [rows, cols]
///     gather_rows(table, tokens, to)    to[i] = widened table[tokens[i]]; table [vocab, width], to [tokens, width]
///     gemm(products...)                 independent products in any mixture, no output overlapping a factor or another
///                                       output: mul(y, x, transposed(w), epilogue), mul(dx, dy, w) and
///                                       mul(dw, transposed(dy), x); plus(dx) and plus(dw) are added to
///     rows(program, operands...)        a row program at every token, inputs before outputs; an output may be an `in`,
///                                       never a `prev`, because tokens run in any order
///     recur(scratch, schedule, cell, length, state, operands...)
///                                       a recurrence through time; state [batch, head * component * lane] is read before
///                                       and replaced after; the output overlaps no input
///     sync()                            returns when all of the above is done
///
/// While the flag `dry` is set, every verb takes its scratch from its arena and returns without touching other memory:
/// a dry pass measures scratch. Shapes that disagree are an Error while RWKV_CHECKED is 1.
///
/// Optional members, which the library uses where a backend has them:
///
///     allocate_host<T>(count), free_host(pointer)
///                                       memory that host and device both reach, for spans of tokens, targets and
///                                       losses. A backend with these members has device memory, which the host must
///                                       not touch (see transfer.hpp)
///     gather_rows(table, tokens, to)    with a StoredMat as the table; a backend with this member takes quantised weights, here
///                                       and in products (see dequantised.hpp). For any other they are widened at load
///     independent()                     the same device with a new queue; each context takes one
///     Recording record(f), replay(recording)
///                                       f() queues work, which is recorded; replay queues it again. A context steps by
///                                       replaying
///     rows_each(tasks)                  many small row programs at once (see flat_rows.hpp)
///     layer_step(scratch, layer, x, state, y), embedding_step(embedding, tokens, y), head_step(head, x, logits)
///                                       fused parts of a model for one token; false where the case is not supported.
///                                       They may prefetch weights before earlier queued work has ended: if you change
///                                       weights through verbs, call sync() first
template <class B>
concept Backend = std::copyable<B> && detail::HasMemory<B> && detail::HasCopies<B> && detail::HasGemm<B> &&
    detail::HasRows<B> && detail::HasRecur<B>;

/// Fails to compile with a sentence that says why B is not a backend.
template <class B>
consteval bool explain_backend() {
  static_assert(std::copyable<B>, "rwkv: a backend must be copyable: copies are handles to one device");
  static_assert(detail::HasMemory<B>,
                "rwkv: a backend must have allocate<T>(count), free(pointer), sync() and a flag bool dry");
  static_assert(detail::HasCopies<B>,
                "rwkv: a backend must have copy(from, to), fill(to, value) and gather_rows(table, "
                "tokens, to)");
  static_assert(
      detail::HasGemm<B>,
      "rwkv: a backend must have gemm(products...) for mul(y, x, transposed(w), epilogue), mul(dx, dy, w) and "
      "mul(dw, transposed(dy), x), the latter two also with plus(output)");
  static_assert(detail::HasRows<B>, "rwkv: a backend must have rows(program, operands...)");
  static_assert(detail::HasRecur<B>,
                "rwkv: a backend must have recur(scratch, schedule, cell, length, state, operands...)");
  return Backend<B>;
}

/// A backend that can train:
///
///     rows(scratch, program, operands...)
///                                       as rows, also with outputs `sum`; the adjoint of a row program is a row
///                                       program
///     recur_back(scratch, schedule, cell, length, first, dlast, dfirst, operands...)
///                                       the adjoint of recur from the state `first`. Operands: those of recur, with
///                                       `cot` in the place of the output, then one output for each input and each
///                                       shared vector. dlast is the cotangent of the final state; dfirst, of the shape
///                                       of the state, receives the cotangent of `first`. dfirst must not be dlast, and
///                                       no output may overlap an input or the cot
///     scatter_add_rows(scratch, from, tokens, table)
///                                       table[tokens[i]] += from[i] in the order of i; from [tokens, width], table
///                                       [vocab, width]
///     cross_entropy(logits, targets, weights, losses)
///                                       every row of logits [rows, vocab] becomes the gradient of its cross entropy,
///                                       as in cross_entropy_row; losses [rows], in memory of the host
///     sum_of_squares(scratch, x)        the sum over all elements of x [rows, cols], returned as a double
///
/// The order of every sum depends on sizes alone.
template <class B>
concept TrainingBackend = Backend<B> && detail::HasSums<B> && detail::HasRecurBack<B> && detail::HasScatterAdd<B> &&
    detail::HasCrossEntropy<B> && detail::HasSumOfSquares<B>;

/// Fails to compile with a sentence that says why B cannot train.
template <class B>
consteval bool explain_training_backend() {
  static_assert(explain_backend<B>());
  static_assert(detail::HasSums<B>,
                "rwkv: to train on, a backend must have rows(scratch, program, operands...), also with sum(...)");
  static_assert(detail::HasRecurBack<B>,
                "rwkv: to train on, a backend must have recur_back(scratch, schedule, cell, length, first, dlast, "
                "dfirst, operands...)");
  static_assert(detail::HasScatterAdd<B>,
                "rwkv: to train on, a backend must have scatter_add_rows(scratch, from, tokens, table)");
  static_assert(detail::HasCrossEntropy<B>,
                "rwkv: to train on, a backend must have cross_entropy(logits, targets, weights, losses)");
  static_assert(detail::HasSumOfSquares<B>, "rwkv: to train on, a backend must have double sum_of_squares(scratch, x)");
  return TrainingBackend<B>;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
