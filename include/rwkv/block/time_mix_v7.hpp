#pragma once
#include <algorithm>
#include <cmath>

#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/heads.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/block/wkv_state.hpp"
#include "rwkv/op/linear.hpp"
#include "rwkv/op/time_mix_v7.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The time mix of RWKV-7:
///
///     r = W_r x_r,  k = W_k x_k,  u = W_v x_v,  g = sigmoid(x_g G_1) G_2,  with x_j = mix(x, m_j)
///     w = exp(-exp(-1/2) sigmoid(w_0 + tanh(x_w W_1) W_2)),  a = sigmoid(a_0 + x_a A_1 A_2)
///     v = u + (u_first - u) sigmoid(v_0 + x_v V_1 V_2)        u_first: u of the first such layer, whose v is its u
///     c = normalise(k k_k) per head,  k' = k (1 + (a - 1) k_a)
///     y = W_o ((ln_x(wkv(r, w, k', v, -c, c a)) + <r r_k, k'> v) g)
///
/// with mix(x, m)_t = x_t + (x_{t-1} - x_t) m, wkv of WKV7, and ln_x a norm over each head (Peng et al., "RWKV-7 Goose",
/// section 4.1). A head has `head_size` channels, 64 unless the sizes say otherwise.
template <class V, class S, class B, class D>
requires std::derived_from<V, V7>
class TimeMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  static constexpr bool uses_side_streams = true;
  using Side = SideStreams<compute>;

  struct Params {
    Channels<S, Width> mix_r, mix_w, mix_k, mix_v, mix_a, mix_g;
    Channels<S, Width> w0, a0, v0;
    Weights<S, Width> w1, a1, v1, g1;                  // [rank, width]
    Weights<S> w2, a2, v2, g2;                         // [width, rank]
    Channels<S, Width> k_k, k_a, r_k;                  // r_k [heads, head size]
    Weights<S, Width> receptance, key, value, output;  // [width, width]
    Channels<S, Width> norm_scale, norm_shift;

    static constexpr auto fields() {
      constexpr Axes channel = shape(Axis::one, Axis::one, Axis::width);
      constexpr Axes square = shape(Axis::width, Axis::width);
      constexpr auto unit = row::live(0, 1);
      constexpr auto turned = row::transposed();
      constexpr auto later = row::unused_at_first();
      return table(
          field("x_r", &Params::mix_r, channel, start::maa(0.2), unit),
          field("x_w", &Params::mix_w, channel, start::maa(0.9), unit),
          field("x_k", &Params::mix_k, channel, start::maa(0.7), unit),
          field("x_v", &Params::mix_v, channel, start::maa(0.7), unit),
          field("x_a", &Params::mix_a, channel, start::maa(0.9), unit),
          field("x_g", &Params::mix_g, channel, start::maa(0.2), unit),
          field("w0", &Params::w0, channel, start::decay_v7(), row::rate(2), row::live(-6, 1)),
          field("w1", &Params::w1, shape(Axis::rank_w, Axis::width), turned, start::low_rank(0)),
          field("w2", &Params::w2, shape(Axis::width, Axis::rank_w), turned, start::low_rank(0.1)),
          field("a0", &Params::a0, channel, start::in_context_rate_v7()),
          field("a1", &Params::a1, shape(Axis::rank_a, Axis::width), turned, start::low_rank(0)),
          field("a2", &Params::a2, shape(Axis::width, Axis::rank_a), turned, start::low_rank(0.1)),
          field("v0", &Params::v0, channel, later, start::line_v7(0.73, -0.4)),
          field("v1", &Params::v1, shape(Axis::rank_v, Axis::width), later, turned, start::low_rank(0)),
          field("v2", &Params::v2, shape(Axis::width, Axis::rank_v), later, turned, start::low_rank(0.1)),
          field("g1", &Params::g1, shape(Axis::rank_g, Axis::width), turned, start::low_rank(0)),
          field("g2", &Params::g2, shape(Axis::width, Axis::rank_g), turned, start::low_rank(0.1)),
          field("k_k", &Params::k_k, channel, start::line_v7(0.71, -0.1), row::live(0.5, 1.2)),
          field("k_a", &Params::k_a, channel, start::line_v7(1.02, 0), row::live(0.5, 1.2)),
          field("r_k", &Params::r_k, shape(Axis::heads, Axis::head_size), start::constant(-0.04)),
          field("receptance.weight", &Params::receptance, square, start::matrix(1)),
          field("key.weight", &Params::key, square, start::matrix(0.1)),
          field("value.weight", &Params::value, square, start::matrix(1)),
          field("output.weight", &Params::output, square, start::matrix(0)),
          field("ln_x.weight", &Params::norm_scale, shape(Axis::width), start::head_norm(), row::live(0.7, 1.3)),
          field("ln_x.bias", &Params::norm_shift, shape(Axis::width), start::constant(0), row::live(-0.3, 0.3)));
    }
  };

  using State = TimeMixState<V, S, B>;

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xr, xw, xk, xv, xa, xg;
    Seq<compute> w_h, a_h, v_h, g_h;               // [batch, time, rank], behind the first factors
    Seq<compute, Width> r, k, u, g;                // projections
    Seq<compute, Width> w_in, a_in, v_in;          // low-rank products, in front of w, a and the mix of values
    Seq<compute, Width> w, key, v, remove, write;  // what the recurrence reads, with r
    Seq<compute, Width> wkv, gated;
    Seq<compute> first_value;
    bool provides = false;  // whether this layer's value is the first
  };

  D dims;
  Params params{};
  double epsilon = 64e-5;  ///< of ln_x

  explicit TimeMix(const ModelSizes& sizes, Index = 0) : dims(D::from(completed(sizes))) {
    if (sizes.head_norm_epsilon > 0) epsilon = sizes.head_norm_epsilon;
  }

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      four width x width products, and low-rank ones; scratch of 20 sequences, one more without side streams, and of the ranks
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto side = start_side_streams<TimeMix>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(B& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, side, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    auto side = start_side_streams<TimeMix>(ws, x);
    forward(be, ws, side, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               Tape& tape) const {
    take(ws, x, tape);
    tape.first_value = side.first_value;
    tape.provides = !side.provided;
    side.provided = true;
    // The first value is the projection itself.
    if (tape.provides) tape.u = tape.v = {side.first_value.data, x.batch, x.time, dims.width};
    const auto& [_, xr, xw, xk, xv, xa, xg, w_h, a_h, v_h, g_h, r, k, u, g, w_in, a_in, v_in, w, key, v, remove, write,
                 wkv, gated, first_value, provides] = tape;
    const Params& p = params;

    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(p.mix_r), arg::chan(p.mix_w),
            arg::chan(p.mix_k), arg::chan(p.mix_v), arg::chan(p.mix_a), arg::chan(p.mix_g), arg::out(xr), arg::out(xw),
            arg::out(xk), arg::out(xv), arg::out(xa), arg::out(xg));
    remember_last(be, x, state.shift);
    // The layer that provides the first value mixes no value, so its products for that have no rows.
    const auto of_readers = [&](auto sequence) {
      if (tape.provides) sequence.batch = 0;
      return sequence;
    };
    be.gemm(linear(xr, p.receptance, r), linear(xk, p.key, k), linear(xv, p.value, u), linear(xw, p.w1, w_h, Tanh{}),
            linear(xa, p.a1, a_h), linear(xg, p.g1, g_h, Sigmoid{}), linear(of_readers(xv), p.v1, of_readers(v_h)));
    be.gemm(linear(w_h, p.w2, w_in), linear(a_h, p.a2, a_in), linear(g_h, p.g2, g),
            linear(of_readers(v_h), p.v2, of_readers(v_in)));
    if (!provides) {
      be.rows(MixValues{}, arg::in(u), arg::in(first_value), arg::in(v_in), arg::chan(p.v0), arg::out(v));
    }
    be.rows(prepare(), arg::in(k), arg::in(w_in), arg::in(a_in), arg::chan(p.w0), arg::chan(p.a0), arg::chan(p.k_k),
            arg::chan(p.k_a), arg::out(w), arg::out(key), arg::out(remove), arg::out(write));
    be.recur(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims), state.wkv.numbers, arg::in(v),
             arg::shared(arg::in(r)), arg::shared(arg::in(w)), arg::shared(arg::in(key)), arg::shared(arg::in(remove)),
             arg::shared(arg::in(write)), arg::out(wkv));
    be.rows(read_out(), arg::in(wkv), arg::in(r), arg::in(key), arg::in(v), arg::in(g), arg::chan(p.r_k),
            arg::chan(p.norm_scale), arg::chan(p.norm_shift), arg::out(gated));
    be.gemm(linear(gated, p.output, y));
  }

  /// The adjoint, see Block; scratch of 20 sequences, of the ranks, and that of recur_back.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    Side side;
    side.first_value = tape.first_value;
    side = start_side_streams_back<TimeMix>(be, ws, side);
    backward(be, ws, side, dy, tape, first, dlast, dx, grad, dfirst);
  }
  void backward(B& be, Arena ws, Side& side, Seq<const compute, Width> dy, const Tape& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    Tape d;  // the cotangents of what the tape holds
    take(ws, tape.x, d);
    const auto& [x, xr, xw, xk, xv, xa, xg, w_h, a_h, v_h, g_h, r, k, u, g, w_in, a_in, v_in, w, key, v, remove, write,
                 wkv, gated, first_value, provides] = tape;
    const Params& p = params;
    Params& dp = grad.params;

    be.gemm(linear_back(dy, p.output, d.gated), linear_back_weights(dy, gated, dp.output));
    rows_back(be, ws, read_out(), arg::in(wkv), arg::in(r), arg::in(key), arg::in(v), arg::in(g), arg::chan(p.r_k),
              arg::chan(p.norm_scale), arg::chan(p.norm_shift), arg::cot(d.gated), arg::out(d.wkv), arg::out(d.r),
              arg::out(d.key), arg::out(d.v), arg::out(d.g), arg::sum(dp.r_k), arg::sum(dp.norm_scale),
              arg::sum(dp.norm_shift));
    be.recur_back(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims),
                  Mat<const compute>(first.wkv.numbers), Mat<const compute>(dlast.wkv.numbers), dfirst.wkv.numbers,
                  arg::in(v), arg::shared(arg::in(r)), arg::shared(arg::in(w)), arg::shared(arg::in(key)),
                  arg::shared(arg::in(remove)), arg::shared(arg::in(write)), arg::cot(d.wkv), arg::add(d.v),
                  arg::add(d.r), arg::out(d.w), arg::add(d.key), arg::out(d.remove), arg::out(d.write));
    if (provides) {
      be.rows(Sum{}, arg::in(d.v), arg::in(side.dfirst_value), arg::out(d.u));
    } else {
      rows_back(be, ws, MixValues{}, arg::in(u), arg::in(first_value), arg::in(v_in), arg::chan(p.v0), arg::cot(d.v),
                arg::out(d.u), arg::add(side.dfirst_value), arg::out(d.v_in), arg::sum(dp.v0));
    }
    rows_back(be, ws, prepare(), arg::in(k), arg::in(w_in), arg::in(a_in), arg::chan(p.w0), arg::chan(p.a0),
              arg::chan(p.k_k), arg::chan(p.k_a), arg::cot(d.w), arg::cot(d.key), arg::cot(d.remove), arg::cot(d.write),
              arg::out(d.k), arg::out(d.w_in), arg::out(d.a_in), arg::sum(dp.w0), arg::sum(dp.a0), arg::sum(dp.k_k),
              arg::sum(dp.k_a));
    be.gemm(linear_back(d.w_in, p.w2, d.w_h), linear_back(d.a_in, p.a2, d.a_h), linear_back(d.g, p.g2, d.g_h),
            linear_back_weights(d.w_in, w_h, dp.w2), linear_back_weights(d.a_in, a_h, dp.a2),
            linear_back_weights(d.g, g_h, dp.g2));
    be.rows(EpilogueBack<Tanh>{}, arg::in(w_h), arg::in(d.w_h), arg::out(d.w_h));
    be.rows(EpilogueBack<Sigmoid>{}, arg::in(g_h), arg::in(d.g_h), arg::out(d.g_h));
    be.gemm(linear_back(d.r, p.receptance, d.xr), linear_back(d.k, p.key, d.xk), linear_back(d.u, p.value, d.xv),
            linear_back(d.w_h, p.w1, d.xw), linear_back(d.a_h, p.a1, d.xa), linear_back(d.g_h, p.g1, d.xg),
            linear_back_weights(d.r, xr, dp.receptance), linear_back_weights(d.k, xk, dp.key),
            linear_back_weights(d.u, xv, dp.value), linear_back_weights(d.w_h, xw, dp.w1),
            linear_back_weights(d.a_h, xa, dp.a1), linear_back_weights(d.g_h, xg, dp.g1));
    if (!provides) {
      be.gemm(linear_back(d.v_in, p.v2, d.v_h), linear_back_weights(d.v_in, v_h, dp.v2));
      be.gemm(mul(plus(d.xv.flat()), d.v_h.flat(), p.v1), linear_back_weights(d.v_h, xv, dp.v1));
    }
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(p.mix_r),
              arg::chan(p.mix_w), arg::chan(p.mix_k), arg::chan(p.mix_v), arg::chan(p.mix_a), arg::chan(p.mix_g),
              arg::cot(d.xr), arg::cot(d.xw), arg::cot(d.xk), arg::cot(d.xv), arg::cot(d.xa), arg::cot(d.xg),
              arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift), arg::sum(dp.mix_r), arg::sum(dp.mix_w),
              arg::sum(dp.mix_k), arg::sum(dp.mix_v), arg::sum(dp.mix_a), arg::sum(dp.mix_g));
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
  /// Ranks as the official trainer makes them: factors of the root of the width, in whole 32s.
  static ModelSizes completed(ModelSizes sizes) {
    const auto rank = [&](double factor) {
      const double thirty_twos = factor * std::sqrt(static_cast<double>(sizes.width)) / 32;
      return std::max<Index>(32, 32 * static_cast<Index>(std::nearbyint(thirty_twos)));
    };
    sizes.ranks = sizes.ranks.or_else({.w = rank(2.5), .a = rank(2.5), .v = rank(1.7), .g = rank(5)});
    return detail::with_heads<D>(sizes);
  }

  PrepareKeys prepare() const { return PrepareKeys{Index(dims.heads)}; }
  ReadOut read_out() const { return ReadOut{Index(dims.heads), 1.0 / static_cast<double>(dims.head_size()), epsilon}; }

  void take(Arena& ws, Seq<const compute, Width> x, Tape& tape) const {
    tape.x = x;
    for (auto* sequence : {&tape.xr,  &tape.xw, &tape.xk,     &tape.xv,    &tape.xa,   &tape.xg,   &tape.r,
                           &tape.k,   &tape.u,  &tape.g,      &tape.w_in,  &tape.a_in, &tape.v_in, &tape.w,
                           &tape.key, &tape.v,  &tape.remove, &tape.write, &tape.wkv,  &tape.gated}) {
      *sequence = ws.like<compute>(x, dims.width);
    }
    tape.w_h = ws.like<compute>(x, Extent<dyn>(dims.ranks.w));
    tape.a_h = ws.like<compute>(x, Extent<dyn>(dims.ranks.a));
    tape.v_h = ws.like<compute>(x, Extent<dyn>(dims.ranks.v));
    tape.g_h = ws.like<compute>(x, Extent<dyn>(dims.ranks.g));
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
