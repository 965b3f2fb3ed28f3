#pragma once
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/block/wkv_state.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The time mix of RWKV-4:
///
///     r = W_r mix_r(x),  k = W_k mix_k(x),  v = W_v mix_v(x),  y = W_o (sigmoid(r) * wkv(k, v))
///
/// with mix_j(x)_t = x_t m_j + x_{t-1} (1 - m_j) and wkv of WKV4 (Peng et al., eq. 11 to 16).
template <class V, class S, class B, class D>
requires std::derived_from<V, V4>
class TimeMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Channels<S, Width> decay;  // [width], stored raw: the log decay is -exp(time_decay)
    Channels<S, Width> first;  // [width], the bonus u of the current token
    Channels<S, Width> mix_k, mix_v, mix_r;
    Weights<S, Width> key, value, receptance, output;  // [width, width]

    static constexpr auto fields() {
      constexpr Axes channel = shape(Axis::width);
      constexpr Axes mix = shape(Axis::one, Axis::one, Axis::width);
      constexpr Axes square = shape(Axis::width, Axis::width);
      constexpr auto unit = row::live(0, 1);
      return table(field("time_decay", &Params::decay, channel, start::decay(-5, 8), row::rate(2), row::live(-5, 1)),
                   field("time_first", &Params::first, channel, start::bonus_v4(), row::rate(3)),
                   field("time_mix_k", &Params::mix_k, mix, start::mix(), unit),
                   field("time_mix_v", &Params::mix_v, mix, start::mix(1, 0.3), unit),
                   field("time_mix_r", &Params::mix_r, mix, start::mix(0.5), unit),
                   field("key.weight", &Params::key, square, start::matrix(0.1)),
                   field("value.weight", &Params::value, square, start::matrix(1)),
                   field("receptance.weight", &Params::receptance, square, start::matrix(1)),
                   field("output.weight", &Params::output, square, start::matrix(0)));
    }
  };

  using State = TimeMixState<V, S, B>;

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk, xv, xr, k, v, r, wkv, gated;
    Seq<compute, Width> w;  // [1, 1, width], the log decay
  };

  D dims;
  Params params{};

  explicit TimeMix(const ModelSizes& sizes, Index = 0) : dims(D::from(sizes)) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      four width x width products; scratch of eight sequences
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    for (auto* sequence : {&tape.xk, &tape.xv, &tape.xr, &tape.k, &tape.v, &tape.r, &tape.wkv, &tape.gated}) {
      *sequence = ws.like<compute>(x, dims.width);
    }
    tape.w = {ws.take<compute>(dims.width), 1, 1, dims.width};
    const auto& [_, xk, xv, xr, k, v, r, wkv, gated, w] = tape;

    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mix_k),
            arg::chan(params.mix_v), arg::chan(params.mix_r), arg::out(xk), arg::out(xv), arg::out(xr));
    remember_last(be, x, state.shift);
    be.gemm(linear(xk, params.key, k), linear(xv, params.value, v), linear(xr, params.receptance, r));
    be.rows(typename V::Decay{}, arg::chan(params.decay), arg::out(w));
    be.recur(ws, typename V::Schedule{}, typename V::Cell{}, Extent<V::Cell::state_size>{}, state.wkv.numbers,
             arg::chan(log_decay(tape)), arg::chan(params.first), arg::in(k), arg::in(v), arg::out(wkv));
    be.rows(typename V::Gate{}, arg::in(r), arg::in(wkv), arg::out(gated));
    be.gemm(linear(gated, params.output, y));
  }

  /// The adjoint, see Block; scratch of nine sequences.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    const auto& [x, xk, xv, xr, k, v, r, wkv, gated, w] = tape;
    auto dgated = ws.like<compute>(x, dims.width), dwkv = ws.like<compute>(x, dims.width);
    auto dk = ws.like<compute>(x, dims.width), dv = ws.like<compute>(x, dims.width),
         dr = ws.like<compute>(x, dims.width);
    auto dxk = ws.like<compute>(x, dims.width), dxv = ws.like<compute>(x, dims.width),
         dxr = ws.like<compute>(x, dims.width);
    const Seq<compute, Width> dw{ws.take<compute>(dims.width), 1, 1, dims.width};

    be.gemm(linear_back(dy, params.output, dgated), linear_back_weights(dy, gated, grad.params.output));
    rows_back(be, ws, typename V::Gate{}, arg::in(r), arg::in(wkv), arg::cot(dgated), arg::out(dr), arg::out(dwkv));
    be.fill(dw.flat(), compute(0));
    be.recur_back(ws, typename V::Schedule{}, typename V::Cell{}, Extent<V::Cell::state_size>{},
                  Mat<const compute>(first.wkv.numbers), Mat<const compute>(dlast.wkv.numbers), dfirst.wkv.numbers,
                  arg::chan(log_decay(tape)), arg::chan(params.first), arg::in(k), arg::in(v), arg::cot(dwkv),
                  arg::sum(Vec<compute, Width>{dw.data, dims.width}), arg::sum(grad.params.first), arg::out(dk),
                  arg::out(dv));
    rows_back(be, ws, typename V::Decay{}, arg::chan(params.decay), arg::cot(dw), arg::sum(grad.params.decay));
    be.gemm(linear_back(dk, params.key, dxk), linear_back(dv, params.value, dxv),
            linear_back(dr, params.receptance, dxr), linear_back_weights(dk, xk, grad.params.key),
            linear_back_weights(dv, xv, grad.params.value), linear_back_weights(dr, xr, grad.params.receptance));
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(params.mix_k),
              arg::chan(params.mix_v), arg::chan(params.mix_r), arg::cot(dxk), arg::cot(dxv), arg::cot(dxr),
              arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift), arg::sum(grad.params.mix_k),
              arg::sum(grad.params.mix_v), arg::sum(grad.params.mix_r));
  }

  void reset(B& be, State& state) const { state.reset(be); }

  /// For training the initial state; see op/initial_state.hpp.
  void begin_tuning(B& be, State& state) const {
    reset(be, state);
    rwkv::begin_tuning<typename V::Cell>(be, state.wkv.numbers);
  }
  void make_valid(B& be, State& state) const { rwkv::make_valid<typename V::Cell>(be, state.wkv.numbers); }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    state.visit(dims, prefix, visitor);
  }

 private:
  Vec<const compute, Width> log_decay(const Tape& tape) const { return {tape.w.data, dims.width}; }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
