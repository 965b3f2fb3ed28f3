#pragma once
/// The long short-term memory, as a block.
#include <string>

#include "rwkv/backend/rows.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/linear.hpp"

namespace linear_cost {

using rwkv::Arena;
using rwkv::Index;
using rwkv::Mat;
using rwkv::Seq;
using rwkv::Vec;

/// A token of the LSTM behind its products, as a row program. i, f, g, o come in as the part of x, and go out as gates:
///
///     i, f, o = sigmoid(part of x + part of h),   g = tanh(...),   c = f c + i g,   h = o tanh(c)
struct LstmStep {
  template <class R>
  RWKV_HD void map(R xi, R xf, R xg, R xo, R hi, R hf, R hg, R ho, R before, R& i, R& f, R& g, R& o, R& c, R& h) const {
    i = sigmoid(xi + hi);
    f = sigmoid(xf + hf);
    g = rwkv::Tanh{}(xg + hg);
    o = sigmoid(xo + ho);
    c = f * before + i * g;
    h = o * rwkv::Tanh{}(c);
  }
};

/// Its adjoint: from the cotangents of h, by the output and by the next token, and of c, to those of the sums inside
/// the gates and of c before.
struct LstmStepBack {
  template <class R>
  RWKV_HD void map(R i, R f, R g, R o, R before, R c, R dh_output, R dh_next, R dc_next, R& di, R& df, R& dg, R& d_o,
                   R& dbefore) const {
    const R squashed = rwkv::Tanh{}(c), dh = dh_output + dh_next;
    const R dc = dc_next + dh * o * rwkv::Tanh{}.slope(squashed);
    di = dc * g * rwkv::Sigmoid{}.slope(i);
    df = dc * before * rwkv::Sigmoid{}.slope(f);
    dg = dc * i * rwkv::Tanh{}.slope(g);
    d_o = dh * squashed * rwkv::Sigmoid{}.slope(o);
    dbefore = dc * f;
  }
};

/// A layer of LSTM (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000) and an output projection:
///
///     gates of token t = W x_t + U h_{t-1} + b,   y = W_o h
///
/// with i, f, g, o one after the other in the rows of W and U. It has 9/16 as many hidden units as channels: then its
/// matrices have 4.08 width^2 numbers, as those of attention and RWKV-4 have 4 width^2.
template <class S, class B, class D = rwkv::Dims<>>
class Lstm {
 public:
  using backend = B;
  using compute = rwkv::compute_t<S>;
  using storage = rwkv::storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    rwkv::Weights<S> input;      // W [4 hidden, width]
    rwkv::Weights<S> recurrent;  // U [4 hidden, hidden]
    rwkv::Channels<S> bias;      // [4 hidden]
    rwkv::Weights<S> output;     // [width, hidden]
  };
  struct State {
    Mat<compute> h, c;  // [batch, hidden]
  };
  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute> gates;  // [batch, time, 4 hidden]: i, f, g, o
    Seq<compute> c, h;   // [batch, time, hidden]
  };

  D dims;
  Index hidden;
  Params params{};

  explicit Lstm(const rwkv::ModelSizes& sizes, Index = 0) : dims(D::from(sizes)), hidden(sizes.width * 9 / 16) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      4.08 width^2 multiplications for each token, of which U's 1.27 width^2 token after token; scratch of
  ///           3.4 sequences
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape = {x, ws.like<compute>(x, four()), ws.like<compute>(x, one()), ws.like<compute>(x, one())};
    const auto& [_, gates, c, h] = tape;
    Arena scratch = ws;
    const Mat<compute> by_h = rwkv::matrix(scratch.take<compute>(x.batch * 4 * hidden), x.batch, 4 * hidden);
    be.gemm(linear(x, params.input, gates));
    be.rows(rwkv::Sum{}, rwkv::arg::in(gates), rwkv::arg::chan(params.bias), rwkv::arg::out(gates));
    for (Index t = 0; !be.dry && t < x.time; ++t) {
      be.gemm(mul(by_h, before(t, state.h, h), transposed(params.recurrent)));
      const Mat<compute> at = gates.at(t), c_before = before(t, state.c, c);
      for (Index b = 0; b < x.batch; ++b) {
        be.rows(LstmStep{}, in(at, b, 0), in(at, b, 1), in(at, b, 2), in(at, b, 3), in(by_h, b, 0), in(by_h, b, 1),
                in(by_h, b, 2), in(by_h, b, 3), in(c_before, b), out(at, b, 0), out(at, b, 1), out(at, b, 2),
                out(at, b, 3), out(c.at(t), b), out(h.at(t), b));
      }
    }
    be.copy(h.at(x.time - 1), state.h);
    be.copy(c.at(x.time - 1), state.c);
    be.gemm(linear(h, params.output, y));
  }

  /// The adjoint, see rwkv::Block; scratch of 2.8 sequences and of U.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, Lstm& grad, State& dfirst) const {
    const auto& [x, gates, c, h] = tape;
    const auto dgates = ws.like<compute>(x, four()), dh = ws.like<compute>(x, one());
    const Mat<compute> columns = rwkv::matrix(ws.take<compute>(4 * hidden * hidden), hidden, 4 * hidden);
    be.gemm(linear_back(dy, params.output, dh), linear_back_weights(dy, h, grad.params.output));

    // dfirst holds the cotangents of the state before the token at hand.
    be.copy(dlast.h, dfirst.h);
    be.copy(dlast.c, dfirst.c);
    // A product with the columns of U side by side is as quick as that of a step.
    for (Index row = 0; !be.dry && row < 4 * hidden; ++row) {
      be.copy(Mat<const storage>{params.recurrent.row(row), hidden, 1, 1}, columns_of(columns, row, 1));
    }
    for (Index t = x.time; !be.dry && t-- > 0;) {
      const Mat<compute> at = gates.at(t), dat = dgates.at(t), c_before = before(t, first.c, c);
      for (Index b = 0; b < x.batch; ++b) {
        be.rows(LstmStepBack{}, in(at, b, 0), in(at, b, 1), in(at, b, 2), in(at, b, 3), in(c_before, b), in(c.at(t), b),
                in(dh.at(t), b), in(dfirst.h, b), in(dfirst.c, b), out(dat, b, 0), out(dat, b, 1), out(dat, b, 2),
                out(dat, b, 3), out(dfirst.c, b));
      }
      be.gemm(mul(dfirst.h, dat, transposed(columns)));
    }

    be.gemm(linear_back(dgates, params.input, dx), linear_back_weights(dgates, x, grad.params.input));
    be.rows(ws, rwkv::Copy{}, rwkv::arg::cot(dgates), rwkv::arg::sum(grad.params.bias));
    be.gemm(linear_back_weights(dgates.at(0), first.h, grad.params.recurrent));
    for (Index b = 0; !be.dry && x.time > 1 && b < x.batch; ++b) {
      be.gemm(linear_back_weights(some_tokens(dgates, b, 1), some_tokens(h, b, 0), grad.params.recurrent));
    }
  }

  void reset(B& be, State& state) const {
    be.fill(state.h, compute(0));
    be.fill(state.c, compute(0));
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    const Index width = self.dims.width, units = self.hidden;
    const auto show = [&](const char* name, const rwkv::Shape& shape, const auto& start, auto& view) {
      const auto row = rwkv::field("", 0, {}, start);
      visitor(rwkv::TensorSpec(row.traits, prefix + name, shape), view);
    };
    auto& p = self.params;
    show("input.weight", {{4 * units, width}, 2}, rwkv::start::matrix(1), p.input);
    show("recurrent.weight", {{4 * units, units}, 2}, rwkv::start::matrix(1), p.recurrent);
    show("bias", {{4 * units}, 1}, rwkv::start::constant(0), p.bias);
    show("output.weight", {{width, units}, 2}, rwkv::start::matrix(0), p.output);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "h", hidden, state.h);
    visitor(prefix + "c", hidden, state.c);
  }

 private:
  rwkv::Extent<> one() const { return hidden; }
  rwkv::Extent<> four() const { return 4 * hidden; }

  /// A number of the state before token t, [batch, hidden].
  static Mat<compute> before(Index t, Mat<compute> state, Seq<compute> x) { return t == 0 ? state : x.at(t - 1); }

  /// The hidden units of one gate, or of all there is, for one sequence.
  Seq<compute> part(Mat<compute> x, Index b, Index nth) const { return {x.row(b) + nth * hidden, 1, 1, hidden}; }
  auto in(Mat<compute> x, Index b, Index nth = 0) const { return rwkv::arg::in(part(x, b, nth)); }
  auto out(Mat<compute> x, Index b, Index nth = 0) const { return rwkv::arg::out(part(x, b, nth)); }

  /// All tokens of a sequence but one, from `begin` on: [time - 1, width].
  static Mat<compute> some_tokens(Seq<compute> x, Index b, Index begin) {
    return {x.row(b, begin), x.time - 1, x.width, x.width};
  }
};

}  // namespace linear_cost
