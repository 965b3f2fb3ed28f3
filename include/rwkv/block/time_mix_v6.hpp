#pragma once
#include <array>

#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/heads.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/block/wkv_state.hpp"
#include "rwkv/op/linear.hpp"
#include "rwkv/op/norm.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The time mix of RWKV-6, in which mixes and decay depend on the data:
///
///     z = mix(x, m_x),  h = tanh(z W_1),  x_j = mix(x, m_j + h_j W_2j)           for j = w, k, v, r, g
///     r = W_r x_r,  k = W_k x_k,  v = W_v x_v,  g = W_g x_g,  w = exp(-exp(time_decay + tanh(x_w D_1) D_2))
///     y = W_o (silu(g) * ln_x(wkv(r, w, k, v)))
///
/// with mix(x, m)_t = x_t + (x_{t-1} - x_t) m, h_j the part of h of mix j, wkv of WKV5, and ln_x a norm over each head
/// (Peng et al., "Eagle and Finch", section 4.2). A head has `head_size` channels, 64 unless the sizes say otherwise.
template <class V, class S, class B, class D>
requires std::derived_from<V, V6>
class TimeMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  /// The mixes, in the order of the parts of time_maa_w1 and w2.
  enum : std::size_t { to_w, to_k, to_v, to_r, to_g, mixes };

  struct Params {
    Channels<S, Width> mix_x, mix_w, mix_k, mix_v, mix_r, mix_g;
    Weights<S, Width> mix_1;                                 // [mixes * rank, width]
    Weights<S> mix_2;                                        // [mixes * width, rank]
    Channels<S, Width> decay;                                // [width], stored raw
    Weights<S, Width> decay_1;                               // [rank, width]
    Weights<S> decay_2;                                      // [width, rank]
    Channels<S, Width> first;                                // [heads, head size], the bonus u of the current token
    Weights<S, Width> receptance, key, value, output, gate;  // [width, width]
    Channels<S, Width> norm_scale, norm_shift;

    static constexpr auto fields() {
      constexpr Axes channel = shape(Axis::one, Axis::one, Axis::width);
      constexpr Axes square = shape(Axis::width, Axis::width);
      constexpr auto unit = row::live(0, 1);
      return table(
          field("time_maa_x", &Params::mix_x, channel, start::maa(), unit),
          field("time_maa_w", &Params::mix_w, channel, start::maa(), unit),
          field("time_maa_k", &Params::mix_k, channel, start::maa(), unit),
          field("time_maa_v", &Params::mix_v, channel, start::maa(1, 0.3), unit),
          field("time_maa_r", &Params::mix_r, channel, start::maa(0.5), unit),
          field("time_maa_g", &Params::mix_g, channel, start::maa(0.5), unit),
          field("time_maa_w1", &Params::mix_1, shape(Axis::mix_ranks, Axis::width), row::transposed(),
                start::low_rank(0)),
          field("time_maa_w2", &Params::mix_2, shape(Axis::mixes, Axis::width, Axis::rank_mix), row::transposed(),
                start::low_rank_uniform(0.01)),
          field("time_decay", &Params::decay, channel, start::decay(-6, 5), row::rate(2), row::live(-5, 1)),
          field("time_decay_w1", &Params::decay_1, shape(Axis::rank_w, Axis::width), row::transposed(),
                start::low_rank(0)),
          field("time_decay_w2", &Params::decay_2, shape(Axis::width, Axis::rank_w), row::transposed(),
                start::low_rank_uniform(0.01)),
          field("time_faaaa", &Params::first, shape(Axis::heads, Axis::head_size), start::bonus_v5()),
          field("receptance.weight", &Params::receptance, square, start::matrix(1)),
          field("key.weight", &Params::key, square, start::matrix(0.1)),
          field("value.weight", &Params::value, square, start::matrix(1)),
          field("output.weight", &Params::output, square, start::matrix(0)),
          field("gate.weight", &Params::gate, square, start::matrix(0.1)),
          field("ln_x.weight", &Params::norm_scale, shape(Axis::width), start::head_norm(), row::live(0.7, 1.3)),
          field("ln_x.bias", &Params::norm_shift, shape(Axis::width), start::constant(0), row::live(-0.3, 0.3)));
    }
  };

  using State = TimeMixState<V, S, B>;

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> z;
    Seq<compute> mix_h, decay_h;                      // [batch, time, mixes * rank] and [batch, time, rank]
    std::array<Seq<compute, Width>, mixes> data, xs;  // what data add to the mixes, and the mixed x
    Seq<compute, Width> decay, w, k, v, r, g, wkv, normed, gated;
  };

  D dims;
  Params params{};
  double epsilon = 64e-5;  ///< of ln_x: 1e-5 times 8^2, because the official trainer divides by 8 in front of the norm

  explicit TimeMix(const ModelSizes& sizes, Index = 0) : dims(D::from(completed(sizes))) {
    if (sizes.head_norm_epsilon > 0) epsilon = sizes.head_norm_epsilon;
  }

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      five width x width products, and low-rank ones; scratch of 20 sequences and of the ranks
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    take(ws, x, tape);
    const auto& [_, z, mix_h, decay_h, data, xs, decay, w, k, v, r, g, wkv, normed, gated] = tape;
    const auto p = arg::prev(x, state.shift);

    be.rows(Mix<typename V::Mix>{}, arg::in(x), p, arg::chan(params.mix_x), arg::out(z));
    be.gemm(linear(z, params.mix_1, mix_h, Tanh{}));
    be.gemm(data_product(tape, to_w), data_product(tape, to_k), data_product(tape, to_v), data_product(tape, to_r),
            data_product(tape, to_g));
    be.rows(DataMix<typename V::Mix>{}, arg::in(x), p, arg::chan(params.mix_w), arg::chan(params.mix_k),
            arg::chan(params.mix_v), arg::chan(params.mix_r), arg::chan(params.mix_g), arg::in(data[to_w]),
            arg::in(data[to_k]), arg::in(data[to_v]), arg::in(data[to_r]), arg::in(data[to_g]), arg::out(xs[to_w]),
            arg::out(xs[to_k]), arg::out(xs[to_v]), arg::out(xs[to_r]), arg::out(xs[to_g]));
    remember_last(be, x, state.shift);
    be.gemm(linear(xs[to_k], params.key, k), linear(xs[to_v], params.value, v), linear(xs[to_r], params.receptance, r),
            linear(xs[to_g], params.gate, g), linear(xs[to_w], params.decay_1, decay_h, Tanh{}));
    be.gemm(linear(decay_h, params.decay_2, decay));
    be.rows(typename V::Decay{}, arg::chan(params.decay), arg::in(decay), arg::out(w));
    be.recur(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims), state.wkv.numbers, arg::in(v),
             arg::shared(arg::in(r)), arg::shared(arg::in(w)), arg::shared(arg::chan(params.first)),
             arg::shared(arg::in(k)), arg::out(wkv));
    group_norm(be, wkv, dims.heads, params.norm_scale, params.norm_shift, epsilon, normed);
    be.rows(typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::out(gated));
    be.gemm(linear(gated, params.output, y));
  }

  /// The adjoint, see Block; scratch of 20 sequences, of the ranks, and that of recur_back.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, TimeMix& grad, State& dfirst) const {
    Tape d;  // the cotangents of what the tape holds
    take(ws, tape.x, d);
    const auto& [x, z, mix_h, decay_h, data, xs, decay, w, k, v, r, g, wkv, normed, gated] = tape;
    Params& gradient = grad.params;

    be.gemm(linear_back(dy, params.output, d.gated), linear_back_weights(dy, gated, gradient.output));
    rows_back(be, ws, typename V::OutputGate{}, arg::in(g), arg::in(normed), arg::cot(d.gated), arg::out(d.g),
              arg::out(d.normed));
    group_norm_back(be, ws, wkv, dims.heads, params.norm_scale, epsilon, d.normed, arg::out(d.wkv), gradient.norm_scale,
                    gradient.norm_shift);
    be.recur_back(ws, typename V::Schedule{}, typename V::Cell{}, detail::head_extent(dims),
                  Mat<const compute>(first.wkv.numbers), Mat<const compute>(dlast.wkv.numbers), dfirst.wkv.numbers,
                  arg::in(v), arg::shared(arg::in(r)), arg::shared(arg::in(w)), arg::shared(arg::chan(params.first)),
                  arg::shared(arg::in(k)), arg::cot(d.wkv), arg::out(d.v), arg::out(d.r), arg::out(d.w),
                  arg::sum(gradient.first), arg::out(d.k));
    rows_back(be, ws, typename V::Decay{}, arg::chan(params.decay), arg::in(decay), arg::cot(d.w),
              arg::sum(gradient.decay), arg::out(d.decay));
    be.gemm(linear_back(d.decay, params.decay_2, d.decay_h), linear_back_weights(d.decay, decay_h, gradient.decay_2));
    be.rows(EpilogueBack<Tanh>{}, arg::in(decay_h), arg::in(d.decay_h), arg::out(d.decay_h));
    be.gemm(linear_back(d.k, params.key, d.xs[to_k]), linear_back(d.v, params.value, d.xs[to_v]),
            linear_back(d.r, params.receptance, d.xs[to_r]), linear_back(d.g, params.gate, d.xs[to_g]),
            linear_back(d.decay_h, params.decay_1, d.xs[to_w]), linear_back_weights(d.k, xs[to_k], gradient.key),
            linear_back_weights(d.v, xs[to_v], gradient.value), linear_back_weights(d.r, xs[to_r], gradient.receptance),
            linear_back_weights(d.g, xs[to_g], gradient.gate),
            linear_back_weights(d.decay_h, xs[to_w], gradient.decay_1));
    // z depends on x as well: its cotangent comes by way of what the data add to the mixes.
    const auto p = arg::prev(x, first.shift);
    be.rows(MixCotangents<typename V::Mix>{}, arg::in(x), p, arg::in(d.xs[to_w]), arg::in(d.xs[to_k]),
            arg::in(d.xs[to_v]), arg::in(d.xs[to_r]), arg::in(d.xs[to_g]), arg::out(d.data[to_w]),
            arg::out(d.data[to_k]), arg::out(d.data[to_v]), arg::out(d.data[to_r]), arg::out(d.data[to_g]));
    for (std::size_t j = 0; j < mixes; ++j) {
      be.gemm(mul(part(d.mix_h, j), d.data[j].flat(), part(params.mix_2, j)),
              linear_back_weights(d.data[j].flat(), part(mix_h, j), part(gradient.mix_2, j)));
    }
    be.rows(EpilogueBack<Tanh>{}, arg::in(mix_h), arg::in(d.mix_h), arg::out(d.mix_h));
    be.gemm(linear_back(d.mix_h, params.mix_1, d.z), linear_back_weights(d.mix_h, z, gradient.mix_1));
    rows_back(be, ws, DataMix<typename V::Mix, 1>{}, arg::in(x), p, arg::chan(params.mix_x), arg::chan(params.mix_w),
              arg::chan(params.mix_k), arg::chan(params.mix_v), arg::chan(params.mix_r), arg::chan(params.mix_g),
              arg::in(data[to_w]), arg::in(data[to_k]), arg::in(data[to_v]), arg::in(data[to_r]), arg::in(data[to_g]),
              arg::cot(d.z), arg::cot(d.xs[to_w]), arg::cot(d.xs[to_k]), arg::cot(d.xs[to_v]), arg::cot(d.xs[to_r]),
              arg::cot(d.xs[to_g]), arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift), arg::sum(gradient.mix_x),
              arg::sum(gradient.mix_w), arg::sum(gradient.mix_k), arg::sum(gradient.mix_v), arg::sum(gradient.mix_r),
              arg::sum(gradient.mix_g), arg::out(d.data[to_w]), arg::out(d.data[to_k]), arg::out(d.data[to_v]),
              arg::out(d.data[to_r]), arg::out(d.data[to_g]));
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
  static ModelSizes completed(ModelSizes sizes) {
    const bool large = sizes.width >= 4096;
    sizes.ranks = sizes.ranks.or_else({.mix = large ? 64 : 32, .w = large ? 128 : 64});
    return detail::with_heads<D>(sizes);
  }

  void take(Arena& ws, Seq<const compute, Width> x, Tape& tape) const {
    const auto like_x = [&] { return ws.like<compute>(x, dims.width); };
    tape.x = x;
    tape.z = like_x();
    tape.mix_h = ws.like<compute>(x, Extent<dyn>(dims(Axis::mix_ranks)));
    tape.decay_h = ws.like<compute>(x, Extent<dyn>(dims.ranks.w));
    for (auto& sequence : tape.data) sequence = like_x();
    for (auto& sequence : tape.xs) sequence = like_x();
    for (auto* sequence :
         {&tape.decay, &tape.w, &tape.k, &tape.v, &tape.r, &tape.g, &tape.wkv, &tape.normed, &tape.gated}) {
      *sequence = like_x();
    }
  }

  /// The part of mix j in the columns of h, and in the rows of the second factor.
  Mat<compute> part(Seq<compute> h, std::size_t j) const {
    return columns_of(h.flat(), static_cast<Index>(j) * dims.ranks.mix, dims.ranks.mix);
  }
  auto part(Weights<S> factor, std::size_t j) const {
    return rows_of(factor, static_cast<Index>(j) * dims.width, dims.width);
  }

  /// What the data add to mix j.
  auto data_product(const Tape& tape, std::size_t j) const {
    return mul(tape.data[j].flat(), part(tape.mix_h, j), transposed(part(params.mix_2, j)));
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
