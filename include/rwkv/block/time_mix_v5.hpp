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

/// The time mix of RWKV-5.2, and of 5.1 and 5.0, where a head has one decay and one bonus:
///
///     r = W_r mix_r(x),  k = W_k mix_k(x),  v = W_v mix_v(x),  g = W_g mix_g(x)
///     y = W_o (silu(g) * ln_x(wkv(r, k, v)))
///
/// with mix_j(x)_t = x_t m_j + x_{t-1} (1 - m_j), wkv of WKV5, and ln_x a norm over each head (Peng et al., "Eagle and
/// Finch"). RWKV-5.0 has no g. A head has `head_size` channels, 64 unless the sizes say otherwise.
template <class V, class S, class B, class D>
requires std::derived_from<V, V5>
class TimeMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  /// Whether the output is gated, from 5.1 on.
  static constexpr bool gated = !std::is_same_v<typename V::OutputGate, NoGate>;

  struct Params {
    /// A number for each head, or for each channel.
    using OfHeads = Channels<S, V::per_head ? D::static_heads : Width>;
    OfHeads decay;  ///< [heads, head size] or [heads], stored raw: the decay is exp(-exp(time_decay))
    OfHeads first;  ///< the bonus u of the current token
    Channels<S, Width> mix_k, mix_v, mix_r, mix_g;
    Weights<S, Width> receptance, key, value, output, gate;  // [width, width]
    Channels<S, Width> norm_scale, norm_shift;

    static constexpr auto fields() {
      constexpr Axes mix = shape(Axis::one, Axis::one, Axis::width);
      constexpr Axes head = V::per_head ? shape(Axis::heads) : shape(Axis::heads, Axis::head_size);
      constexpr Axes square = shape(Axis::width, Axis::width);
      constexpr auto unit = row::live(0, 1);
      constexpr auto rows =
          table(field("time_mix_k", &Params::mix_k, mix, start::mix(), unit),
                field("time_mix_v", &Params::mix_v, mix, start::mix(1, 0.3), unit),
                field("time_mix_r", &Params::mix_r, mix, start::mix(0.5), unit),
                field("time_decay", &Params::decay, head, start::decay(-6, 5), row::rate(2), row::live(-5, 1)),
                field(bonus_name(), &Params::first, head, bonus_start()),
                field("receptance.weight", &Params::receptance, square, start::matrix(1)),
                field("key.weight", &Params::key, square, start::matrix(0.1)),
                field("value.weight", &Params::value, square, start::matrix(1)),
                field("output.weight", &Params::output, square, start::matrix(0)),
                field("ln_x.weight", &Params::norm_scale, shape(Axis::width), start::head_norm(), row::live(0.7, 1.3)),
                field("ln_x.bias", &Params::norm_shift, shape(Axis::width), start::constant(0), row::live(-0.3, 0.3)));
      if constexpr (!gated) return rows;
      else
        return std::tuple_cat(rows, table(field("time_mix_g", &Params::mix_g, mix, start::mix(0.5), unit),
                                          field("gate.weight", &Params::gate, square, start::matrix(0.1))));
    }

   private:
    static constexpr const char* bonus_name() {
      if constexpr (V::per_head) return V::bonus_name;
      else return "time_faaaa";
    }
    static constexpr auto bonus_start() {
      if constexpr (!gated) return start::constant(-3);
      else if constexpr (V::per_head) return start::bonus_of_heads();
      else return start::bonus_v5();
    }
  };

  using State = TimeMixState<V, S, B>;

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk, xv, xr, xg, k, v, r, g, wkv, normed, gated;
    Seq<compute, Width> w, u;  // [1, 1, width], the decay, and the bonus where it is stored per head
  };

  D dims;
  Params params{};
  double epsilon = 64e-5;  ///< of ln_x: 1e-5 times 8^2, because the official trainer divides by 8 in front of the norm

  explicit TimeMix(const ModelSizes& sizes, Index = 0) : dims(D::from(detail::with_heads<D>(sizes))) {
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
    take(ws, x, tape);
    const auto& [_, xk, xv, xr, xg, k, v, r, g, wkv, normed, gate_out, w, u] = tape;
    const auto p = arg::prev(x, state.shift);
    const auto mix_k = arg::chan(params.mix_k), mix_v = arg::chan(params.mix_v), mix_r = arg::chan(params.mix_r);

    if constexpr (gated) {
      be.rows(Mix<typename V::Mix>{}, arg::in(x), p, mix_k, mix_v, mix_r, arg::chan(params.mix_g), arg::out(xk),
              arg::out(xv), arg::out(xr), arg::out(xg));
    } else {
      be.rows(Mix<typename V::Mix>{}, arg::in(x), p, mix_k, mix_v, mix_r, arg::out(xk), arg::out(xv), arg::out(xr));
    }
    remember_last(be, x, state.shift);
    const auto keys = linear(xk, params.key, k), values = linear(xv, params.value, v),
               receptances = linear(xr, params.receptance, r);
    if constexpr (gated) be.gemm(keys, values, receptances, linear(xg, params.gate, g));
    else be.gemm(keys, values, receptances);
    vectors_of_channels(be, ws, tape);
    be.recur(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims), state.wkv.numbers, arg::in(v),
             arg::shared(arg::in(r)), arg::shared(decay(tape)), arg::shared(bonus(tape)), arg::shared(arg::in(k)),
             arg::out(wkv));
    group_norm(be, wkv, dims.heads, params.norm_scale, params.norm_shift, epsilon, normed);
    if constexpr (gated) be.rows(typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::out(gate_out));
    be.gemm(linear(gated ? gate_out : normed, params.output, y));
  }

  /// The adjoint, see Block; scratch of eleven sequences, and that of recur_back.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    Tape d;  // the cotangents of what the tape holds
    take(ws, tape.x, d);
    const auto& [x, xk, xv, xr, xg, k, v, r, g, wkv, normed, gate_out, w, u] = tape;
    Params& gradient = grad.params;

    be.gemm(linear_back(dy, params.output, gated ? d.gated : d.normed),
            linear_back_weights(dy, gated ? gate_out : normed, gradient.output));
    if constexpr (gated) {
      rows_back(be, ws, typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::cot(d.gated), arg::out(d.g),
                arg::out(d.normed));
    }
    group_norm_back(be, ws, wkv, dims.heads, params.norm_scale, epsilon, d.normed, arg::out(d.wkv), gradient.norm_scale,
                    gradient.norm_shift);
    be.fill(d.w.flat(), compute(0));
    if constexpr (V::per_head) be.fill(d.u.flat(), compute(0));
    be.recur_back(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims),
                  Mat<const compute>(first.wkv.numbers), Mat<const compute>(dlast.wkv.numbers), dfirst.wkv.numbers,
                  arg::in(v), arg::shared(arg::in(r)), arg::shared(decay(tape)), arg::shared(bonus(tape)),
                  arg::shared(arg::in(k)), arg::cot(d.wkv), arg::out(d.v), arg::out(d.r),
                  arg::sum(Vec<compute, Width>{d.w.data, dims.width}), bonus_gradient(d, gradient), arg::out(d.k));
    vectors_of_channels_back(be, ws, d, gradient);
    be.gemm(linear_back(d.k, params.key, d.xk), linear_back(d.v, params.value, d.xv),
            linear_back(d.r, params.receptance, d.xr), linear_back_weights(d.k, xk, gradient.key),
            linear_back_weights(d.v, xv, gradient.value), linear_back_weights(d.r, xr, gradient.receptance));
    const auto p = arg::prev(x, first.shift);
    const auto back = arg::back(dx, dlast.shift, dfirst.shift);
    const auto mix_k = arg::chan(params.mix_k), mix_v = arg::chan(params.mix_v), mix_r = arg::chan(params.mix_r);
    const auto dmix_k = arg::sum(gradient.mix_k), dmix_v = arg::sum(gradient.mix_v), dmix_r = arg::sum(gradient.mix_r);
    if constexpr (gated) {
      be.gemm(linear_back(d.g, params.gate, d.xg), linear_back_weights(d.g, xg, gradient.gate));
      rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), p, mix_k, mix_v, mix_r, arg::chan(params.mix_g),
                arg::cot(d.xk), arg::cot(d.xv), arg::cot(d.xr), arg::cot(d.xg), arg::out(dx), back, dmix_k, dmix_v,
                dmix_r, arg::sum(gradient.mix_g));
    } else {
      rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), p, mix_k, mix_v, mix_r, arg::cot(d.xk), arg::cot(d.xv),
                arg::cot(d.xr), arg::out(dx), back, dmix_k, dmix_v, dmix_r);
    }
  }

  void reset(B& be, State& state) const { state.reset(be); }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    state.visit(dims, prefix, visitor);
  }

 private:
  void take(Arena& ws, Seq<const compute, Width> x, Tape& tape) const {
    tape.x = x;
    for (auto* sequence : {&tape.xk, &tape.xv, &tape.xr, &tape.k, &tape.v, &tape.r, &tape.wkv, &tape.normed}) {
      *sequence = ws.like<compute>(x, dims.width);
    }
    if constexpr (gated) {
      for (auto* sequence : {&tape.xg, &tape.g, &tape.gated}) *sequence = ws.like<compute>(x, dims.width);
    }
    tape.w = {ws.take<compute>(dims.width), 1, 1, dims.width};
    if constexpr (V::per_head) tape.u = {ws.take<compute>(dims.width), 1, 1, dims.width};
  }

  auto decay(const Tape& tape) const { return arg::chan(Vec<const compute, Width>{tape.w.data, dims.width}); }
  auto bonus(const Tape& tape) const {
    if constexpr (V::per_head) return arg::chan(Vec<const compute, Width>{tape.u.data, dims.width});
    else return arg::chan(params.first);
  }
  auto bonus_gradient(const Tape& d, Params& gradient) const {
    if constexpr (V::per_head) return arg::sum(Vec<compute, Width>{d.u.data, dims.width});
    else return arg::sum(gradient.first);
  }

  /// The decay of every channel, and the bonus if heads have one each.
  void vectors_of_channels(B& be, Arena ws, const Tape& tape) const {
    if constexpr (V::per_head) {
      const Seq<compute> decays = of_heads(ws), bonuses = of_heads(ws);
      const Mat<compute> one = ones(be, ws);
      be.rows(typename V::Decay{}, arg::chan(params.decay), arg::out(decays));
      be.rows(typename V::Bonus{}, arg::chan(params.first), arg::out(bonuses));
      be.gemm(mul(by_head(tape.w), column(decays), transposed(one)),
              mul(by_head(tape.u), column(bonuses), transposed(one)));
    } else {
      be.rows(typename V::Decay{}, arg::chan(params.decay), arg::out(tape.w));
    }
  }
  void vectors_of_channels_back(B& be, Arena ws, const Tape& d, Params& gradient) const {
    if constexpr (V::per_head) {
      const Seq<compute> decays = of_heads(ws), bonuses = of_heads(ws);
      const Mat<compute> one = ones(be, ws);
      be.gemm(mul(column(decays), by_head(d.w), one), mul(column(bonuses), by_head(d.u), one));
      rows_back(be, ws, typename V::Decay{}, arg::chan(params.decay), arg::cot(decays), arg::sum(gradient.decay));
      rows_back(be, ws, typename V::Bonus{}, arg::chan(params.first), arg::cot(bonuses), arg::sum(gradient.first));
    } else {
      rows_back(be, ws, typename V::Decay{}, arg::chan(params.decay), arg::cot(d.w), arg::sum(gradient.decay));
    }
  }

  // A number of each head spreads over its channels by a product with ones, and theirs are summed by one.
  Seq<compute> of_heads(Arena& ws) const { return {ws.take<compute>(dims.heads), 1, 1, Index(dims.heads)}; }
  Mat<compute> ones(B& be, Arena& ws) const {
    const Mat<compute> one = matrix(ws.take<compute>(dims.head_size()), dims.head_size(), 1);
    be.fill(one, compute(1));
    return one;
  }
  Mat<compute> column(Seq<compute> numbers) const { return matrix(numbers.data, dims.heads, 1); }
  Mat<compute> by_head(Seq<compute, Width> channels) const {
    return matrix(channels.data, dims.heads, dims.head_size());
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
