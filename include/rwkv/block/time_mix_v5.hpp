#pragma once
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/heads.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/block/wkv_state.hpp"
#include "rwkv/op/linear.hpp"
#include "rwkv/op/norm.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The time mix of RWKV-5.2:
///
///     r = W_r mix_r(x),  k = W_k mix_k(x),  v = W_v mix_v(x),  g = W_g mix_g(x)
///     y = W_o (silu(g) * ln_x(wkv(r, k, v)))
///
/// with mix_j(x)_t = x_t m_j + x_{t-1} (1 - m_j), wkv of WKV5, and ln_x a norm over each head (Peng et al., "Eagle and
/// Finch"). A head has `head_size` channels, 64 unless the sizes say otherwise.
template <class V, class S, class B, class D>
requires std::derived_from<V, V5>
class TimeMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Channels<S, Width> decay;  // [heads, head size], stored raw: the decay is exp(-exp(time_decay))
    Channels<S, Width> first;  // [heads, head size], the bonus u of the current token
    Channels<S, Width> mix_k, mix_v, mix_r, mix_g;
    Weights<S, Width> receptance, key, value, output, gate;  // [width, width]
    Channels<S, Width> norm_scale, norm_shift;

    static constexpr auto fields() {
      constexpr Axes mix = shape(Axis::one, Axis::one, Axis::width);
      constexpr Axes head = shape(Axis::heads, Axis::head_size);
      constexpr Axes square = shape(Axis::width, Axis::width);
      constexpr auto unit = row::live(0, 1);
      return table(
          field("time_mix_k", &Params::mix_k, mix, start::mix(), unit),
          field("time_mix_v", &Params::mix_v, mix, start::mix(1, 0.3), unit),
          field("time_mix_r", &Params::mix_r, mix, start::mix(0.5), unit),
          field("time_mix_g", &Params::mix_g, mix, start::mix(0.5), unit),
          field("time_decay", &Params::decay, head, start::decay(-6, 5), row::rate(2), row::live(-5, 1)),
          field("time_faaaa", &Params::first, head, start::bonus_v5()),
          field("receptance.weight", &Params::receptance, square, start::matrix(1)),
          field("key.weight", &Params::key, square, start::matrix(0.1)),
          field("value.weight", &Params::value, square, start::matrix(1)),
          field("output.weight", &Params::output, square, start::matrix(0)),
          field("gate.weight", &Params::gate, square, start::matrix(0.1)),
          field("ln_x.weight", &Params::norm_scale, shape(Axis::width), start::head_norm(), row::live(0.7, 1.3)),
          field("ln_x.bias", &Params::norm_shift, shape(Axis::width), start::constant(0), row::live(-0.3, 0.3)));
    }
  };

  struct State {
    Mat<compute> shift;  // [batch, width], the last x
    WKVState<V, S, B> wkv;
  };

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk, xv, xr, xg, k, v, r, g, wkv, normed, gated;
    Seq<compute, Width> w;  // [1, 1, width], the decay
  };

  D dims;
  Params params{};
  double epsilon = 64e-5;  ///< of ln_x: 1e-5 times 8^2, because the official trainer divides by 8 in front of the norm

  explicit TimeMix(const ModelSizes& sizes, Index = 0) : dims(D::from(detail::with_heads(sizes))) {
    if (sizes.head_norm_epsilon > 0) epsilon = sizes.head_norm_epsilon;
  }

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      five width x width products; scratch of eleven sequences
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    for (auto* sequence : {&tape.xk, &tape.xv, &tape.xr, &tape.xg, &tape.k, &tape.v, &tape.r, &tape.g, &tape.wkv,
                           &tape.normed, &tape.gated}) {
      *sequence = ws.like<compute>(x, dims.width);
    }
    tape.w = {ws.take<compute>(dims.width), 1, 1, dims.width};
    const auto& [_, xk, xv, xr, xg, k, v, r, g, wkv, normed, gated, w] = tape;

    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mix_k),
            arg::chan(params.mix_v), arg::chan(params.mix_r), arg::chan(params.mix_g), arg::out(xk), arg::out(xv),
            arg::out(xr), arg::out(xg));
    remember_last(be, x, state.shift);
    be.gemm(linear(xk, params.key, k), linear(xv, params.value, v), linear(xr, params.receptance, r),
            linear(xg, params.gate, g));
    be.rows(typename V::Decay{}, arg::chan(params.decay), arg::out(w));
    be.recur(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims), state.wkv.numbers, arg::in(v),
             arg::shared(arg::in(r)), arg::shared(arg::chan(decay(tape))), arg::shared(arg::chan(params.first)),
             arg::shared(arg::in(k)), arg::out(wkv));
    group_norm(be, wkv, dims.heads, params.norm_scale, params.norm_shift, epsilon, normed);
    be.rows(typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::out(gated));
    be.gemm(linear(gated, params.output, y));
  }

  /// The adjoint, see Block; scratch of eleven sequences.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    const auto& [x, xk, xv, xr, xg, k, v, r, g, wkv, normed, gated, w] = tape;
    const auto like_x = [&] { return ws.like<compute>(tape.x, dims.width); };
    auto dgated = like_x(), dg = like_x(), dnormed = like_x(), dwkv = like_x(), dk = like_x(), dv = like_x(),
         dr = like_x(), dxk = like_x(), dxv = like_x(), dxr = like_x(), dxg = like_x();
    const Seq<compute, Width> dw{ws.take<compute>(dims.width), 1, 1, dims.width};

    be.gemm(linear_back(dy, params.output, dgated), linear_back_weights(dy, gated, grad.params.output));
    rows_back(be, ws, typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::cot(dgated), arg::out(dg),
              arg::out(dnormed));
    group_norm_back(be, ws, wkv, dims.heads, params.norm_scale, epsilon, dnormed, arg::out(dwkv),
                    grad.params.norm_scale, grad.params.norm_shift);
    be.fill(dw.flat(), compute(0));
    be.recur_back(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims),
                  Mat<const compute>(first.wkv.numbers), Mat<const compute>(dlast.wkv.numbers), dfirst.wkv.numbers,
                  arg::in(v), arg::shared(arg::in(r)), arg::shared(arg::chan(decay(tape))),
                  arg::shared(arg::chan(params.first)), arg::shared(arg::in(k)), arg::cot(dwkv), arg::out(dv),
                  arg::out(dr), arg::sum(Vec<compute, Width>{dw.data, dims.width}), arg::sum(grad.params.first),
                  arg::out(dk));
    rows_back(be, ws, typename V::Decay{}, arg::chan(params.decay), arg::cot(dw), arg::sum(grad.params.decay));
    be.gemm(linear_back(dk, params.key, dxk), linear_back(dv, params.value, dxv),
            linear_back(dr, params.receptance, dxr), linear_back(dg, params.gate, dxg),
            linear_back_weights(dk, xk, grad.params.key), linear_back_weights(dv, xv, grad.params.value),
            linear_back_weights(dr, xr, grad.params.receptance), linear_back_weights(dg, xg, grad.params.gate));
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(params.mix_k),
              arg::chan(params.mix_v), arg::chan(params.mix_r), arg::chan(params.mix_g), arg::cot(dxk), arg::cot(dxv),
              arg::cot(dxr), arg::cot(dxg), arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift),
              arg::sum(grad.params.mix_k), arg::sum(grad.params.mix_v), arg::sum(grad.params.mix_r),
              arg::sum(grad.params.mix_g));
  }

  void reset(B& be, State& state) const {
    be.fill(state.shift, compute(0));
    state.wkv.reset(be);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(dims.width), state.shift);
    visitor(prefix + "wkv", state.wkv.per_lane(dims.head_size()) * dims.width, state.wkv.numbers);
  }

 private:
  Vec<const compute, Width> decay(const Tape& tape) const { return {tape.w.data, dims.width}; }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
