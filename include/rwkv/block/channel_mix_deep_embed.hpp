#pragma once
#include "rwkv/backend/dequantised.hpp"
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/cell/concept.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// y = x + S r with the matrix S [value, key] of a head. A row cell whose state, the matrix, does not change.
struct ReadMatrix {
  static constexpr auto inputs = Inputs{"value"};
  static constexpr auto shared = Inputs{"receptance"};
  enum { receptance };

  template <class R, class State, class Head>
  RWKV_HD static R step(State state, const R (&x)[1], const Head& head) {
    const Index size = state.size;
    R y = x[0];
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) y += state[n] * head(receptance, n);
    return y;
  }

  template <class R, class Before, class Head, class State, class Add>
  RWKV_HD static void step_back(Before before, const R (&)[1], const Head& head, R dy, State dstate, R (&dx)[1],
                                const Add& dhead) {
    const Index size = dstate.size;
    RWKV_UNROLL_HEAD for (Index n = 0; n < size; ++n) {
      const R s = before[n];
      dhead(receptance, n, dy * s);
      dstate[n] += dy * head(receptance, n);
    }
    dx[0] = dy;
  }
};

/// y = k (s + bias). A row program.
struct DeepEmbedGate {
  template <class R>
  RWKV_HD void map(R k, R s, R bias, R& y) const {
    y = k * (s + bias);
  }
};

/// The channel mix of RWKV-7a, with DeepEmbed: every token scales the hidden units by a matrix E of its own.
///
///     y = W_v (max(W_k mix_k(x), 0)^2 (x S_1 E S_2 + s_0)),    E = S(token) + S_x e
///
/// with mix_k(x)_t = x_t + (x_{t-1} - x_t) m_k, and e the embedding of the token behind ln0 (BlinkDL/RWKV-LM,
/// rwkv_v7a_demo.py). E has ranks.s x ranks.s numbers, 32 x 32 unless the sizes say otherwise.
///
/// The official program adds S_x e to the rows of all tokens when it loads. Here it is computed for the tokens that occur, so
/// that a mapped table stays in its file, and that training has both parts.
///
/// The official start of these parameters is not published. Here S_1 starts as zero and s_0 as one, so that training starts
/// as RWKV-7.
template <class V, class S, class B, class D>
requires std::same_as<typename V::Channel, DeepEmbedChannelMix>
class ChannelMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  static constexpr Index Ffn = D::static_ffn;
  static constexpr bool uses_side_streams = true;
  static constexpr bool reads_tokens = true;
  using Side = SideStreams<compute>;

  struct Params {
    Channels<S, Width> mix_k;
    Weights<S, Width> key;      // [ffn, width]
    Weights<S, Ffn> value;      // [width, ffn]
    Weights<S> s_emb;           // [vocab, rank * rank]
    Weights<S, Width> s_emb_x;  // [rank * rank, width]
    Channels<S, Ffn> s0;
    Weights<S, Width> s1;  // [rank, width]
    Weights<S> s2;         // [ffn, rank]

    static constexpr auto fields() {
      constexpr auto turned = row::transposed();
      return table(field("x_k", &Params::mix_k, shape(Axis::one, Axis::one, Axis::width), start::channel_mix_v7(),
                         row::live(0, 1)),
                   field("key.weight", &Params::key, shape(Axis::ffn, Axis::width), start::matrix(1)),
                   field("value.weight", &Params::value, shape(Axis::width, Axis::ffn), start::matrix(0)),
                   field("s_emb.weight", &Params::s_emb, shape(Axis::vocab, Axis::token_matrix), start::embedding()),
                   field("s_emb_x.weight", &Params::s_emb_x, shape(Axis::token_matrix, Axis::width), start::matrix(1)),
                   field("s0", &Params::s0, shape(Axis::ffn), start::constant(1), row::live(0.5, 1.5)),
                   field("s1", &Params::s1, shape(Axis::rank_s, Axis::width), turned, start::low_rank(0)),
                   field("s2", &Params::s2, shape(Axis::ffn, Axis::rank_s), turned, start::low_rank(0.1)));
    }
  };

  struct State {
    Mat<compute> shift;  // [batch, width], the last x
  };

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk;
    Seq<compute, Ffn> k, s, gated;
    Seq<compute> matrix;       // E, [batch, time, rank * rank]
    Seq<compute> ask, answer;  // x S_1 and x S_1 E, [batch, time, rank]
    Side side;
  };

  D dims;
  Params params{};

  explicit ChannelMix(const ModelSizes& sizes, Index = 0) : dims(D::from(completed(sizes))) {}

  /// Shapes    x, y: [batch, time, width]; side.tokens: [batch * time]
  /// Aliasing  y must not overlap x
  /// Cost      two width x ffn products, one width x rank^2, and low-rank ones; scratch of one sequence, three of `ffn`
  ///           numbers a token, two of rank^2 and three of rank
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto side = start_side_streams<ChannelMix>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(B& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, side, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    auto side = start_side_streams<ChannelMix>(ws, x);
    forward(be, ws, side, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               Tape& tape) const {
    take(ws, x, tape);
    tape.side = side;
    const auto& [_, xk, k, s, gated, matrix, ask, answer, streams] = tape;
    const Params& p = params;
    Arena scratch = ws;
    const auto of_embedding = scratch.like<compute>(x, matrix.width), nothing = scratch.like<compute>(x, rank());

    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(p.mix_k), arg::out(xk));
    remember_last(be, x, state.shift);
    gather_rows(be, p.s_emb, side.tokens, matrix.flat());
    be.gemm(linear(xk, p.key, k, typename V::Activation{}), linear(x, p.s1, ask),
            linear(streams.embedding, p.s_emb_x, of_embedding));
    be.rows(Copy{}, arg::in(of_embedding), arg::add(matrix));
    be.fill(nothing.flat(), compute(0));  // nothing is added to what the matrix gives
    be.recur(scratch, Sequential{}, ReadMatrix{}, rank(), matrix.flat(), arg::in(each(nothing)),
             arg::shared(arg::in(each(ask))), arg::out(each(answer)));
    be.gemm(linear(answer, p.s2, s));
    be.rows(DeepEmbedGate{}, arg::in(k), arg::in(s), arg::chan(p.s0), arg::out(gated));
    be.gemm(linear(gated, p.value, y));
  }

  /// The adjoint, see Block; scratch of one sequence, three of width ffn, two of width rank^2, four of width rank, and that of
  /// recur_back.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, ChannelMix& grad, State& dfirst) const {
    auto side = start_side_streams_back<ChannelMix>(be, ws, tape.side);
    backward(be, ws, side, dy, tape, first, dlast, dx, grad, dfirst);
    end_side_streams_back<ChannelMix>(be, side, dx);
  }
  void backward(B& be, Arena ws, Side& side, Seq<const compute, Width> dy, const Tape& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, ChannelMix& grad, State& dfirst) const {
    Tape d;  // the cotangents of what the tape holds
    take(ws, tape.x, d);
    const auto& [x, xk, k, s, gated, matrix, ask, answer, streams] = tape;
    const Params& p = params;
    Params& dp = grad.params;
    const auto nothing = ws.like<compute>(x, rank()), dnothing = ws.like<compute>(x, rank());
    const auto dlast_matrix = ws.like<compute>(x, matrix.width);  // zero: E is read once

    be.gemm(linear_back(dy, p.value, d.gated), linear_back_weights(dy, gated, dp.value));
    rows_back(be, ws, DeepEmbedGate{}, arg::in(k), arg::in(s), arg::chan(p.s0), arg::cot(d.gated), arg::out(d.k),
              arg::out(d.s), arg::sum(dp.s0));
    be.rows(EpilogueBack<typename V::Activation>{}, arg::in(k), arg::in(d.k), arg::out(d.k));
    be.gemm(linear_back(d.k, p.key, d.xk), linear_back_weights(d.k, xk, dp.key), linear_back(d.s, p.s2, d.answer),
            linear_back_weights(d.s, answer, dp.s2));
    for (auto zero : {nothing.flat(), dlast_matrix.flat()}) be.fill(zero, compute(0));
    be.recur_back(ws, Sequential{}, ReadMatrix{}, rank(), Mat<const compute>(matrix.flat()),
                  Mat<const compute>(dlast_matrix.flat()), d.matrix.flat(), arg::in(each(nothing)),
                  arg::shared(arg::in(each(ask))), arg::cot(each(d.answer)), arg::out(each(dnothing)),
                  arg::out(each(d.ask)));
    if (dp.s_emb.data != nullptr) be.scatter_add_rows(ws, d.matrix.flat(), streams.tokens, dp.s_emb);
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(p.mix_k), arg::cot(d.xk),
              arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift), arg::sum(dp.mix_k));
    be.gemm(mul(plus(dx.flat()), d.ask.flat(), p.s1), linear_back_weights(d.ask, x, dp.s1),
            mul(plus(side.dembedding.flat()), d.matrix.flat(), p.s_emb_x),
            linear_back_weights(d.matrix, streams.embedding, dp.s_emb_x));
  }

  void reset(B& be, State& state) const { be.fill(state.shift, compute(0)); }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(dims.width), state.shift);
  }

 private:
  static ModelSizes completed(ModelSizes sizes) {
    expects(sizes.vocab > 0, "rwkv: DeepEmbed has a matrix for every token, so its sizes need a vocabulary");
    sizes.ranks = sizes.ranks.or_else({.s = 32});
    return detail::with_ffn<V, D>(sizes);
  }

  Extent<dyn> rank() const { return Extent<dyn>(dims.ranks.s); }

  /// Every token as a sequence of its own: each has its own matrix.
  static Seq<compute> each(Seq<compute> x) { return {x.data, x.batch * x.time, 1, x.width}; }

  void take(Arena& ws, Seq<const compute, Width> x, Tape& tape) const {
    tape.x = x;
    tape.xk = ws.like<compute>(x, dims.width);
    for (auto* sequence : {&tape.k, &tape.s, &tape.gated}) *sequence = ws.like<compute>(x, dims.ffn);
    tape.matrix = ws.like<compute>(x, Extent<dyn>(dims(Axis::token_matrix)));
    for (auto* sequence : {&tape.ask, &tape.answer}) *sequence = ws.like<compute>(x, rank());
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
