#pragma once
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The channel mix of RWKV-4, 5 and 6:
///
///     y = sigmoid(W_r mix_r(x)) * W_v max(W_k mix_k(x), 0)^2
///
/// with mix_j(x)_t = x_t m_j + x_{t-1} (1 - m_j) (Peng et al., eq. 17 to 19); in RWKV-6 m_j weighs the previous token.
template <class V, class S, class B, class D>
requires std::same_as<typename V::Channel, GatedChannelMix>
class ChannelMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  static constexpr Index Ffn = D::static_ffn;

  struct Params {
    Channels<S, Width> mix_k, mix_r;
    Weights<S, Width> key;         // [ffn, width]
    Weights<S, Width> receptance;  // [width, width]
    Weights<S, Ffn> value;         // [width, ffn]

    static constexpr auto fields() {
      constexpr Axes mix = shape(Axis::one, Axis::one, Axis::width);
      constexpr auto unit = row::live(0, 1);
      constexpr bool previous = weighs_previous<typename V::Mix>;
      constexpr auto first = previous ? start::maa() : start::mix();
      return table(field(previous ? "time_maa_k" : "time_mix_k", &Params::mix_k, mix, first, unit),
                   field(previous ? "time_maa_r" : "time_mix_r", &Params::mix_r, mix, first, unit),
                   field("key.weight", &Params::key, shape(Axis::ffn, Axis::width), start::matrix(1)),
                   field("receptance.weight", &Params::receptance, shape(Axis::width, Axis::width), start::matrix(0)),
                   field("value.weight", &Params::value, shape(Axis::width, Axis::ffn), start::matrix(0)));
    }
  };

  struct State {
    Mat<compute> shift;  // [batch, width], the last x
  };

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk, xr, r, v;
    Seq<compute, Ffn> k;
  };

  D dims;
  Params params{};

  explicit ChannelMix(const ModelSizes& sizes, Index = 0) : dims(D::from(detail::with_ffn<V, D>(sizes))) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      two width x ffn products and one width x width; scratch of four sequences and one of width ffn
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    for (auto* sequence : {&tape.xk, &tape.xr, &tape.r, &tape.v}) *sequence = ws.like<compute>(x, dims.width);
    tape.k = ws.like<compute>(x, dims.ffn);
    const auto& [_, xk, xr, r, v, k] = tape;

    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mix_k),
            arg::chan(params.mix_r), arg::out(xk), arg::out(xr));
    remember_last(be, x, state.shift);
    be.gemm(linear(xk, params.key, k, typename V::Activation{}), linear(xr, params.receptance, r));
    be.gemm(linear(k, params.value, v));
    be.rows(typename V::Gate{}, arg::in(r), arg::in(v), arg::out(y));
  }

  /// The adjoint, see Block; scratch of four sequences and one of width ffn.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, ChannelMix& grad, State& dfirst) const {
    const auto& [x, xk, xr, r, v, k] = tape;
    auto dr = ws.like<compute>(x, dims.width), dv = ws.like<compute>(x, dims.width);
    auto dxk = ws.like<compute>(x, dims.width), dxr = ws.like<compute>(x, dims.width);
    auto dk = ws.like<compute>(x, dims.ffn);

    rows_back(be, ws, typename V::Gate{}, arg::in(r), arg::in(v), arg::cot(dy), arg::out(dr), arg::out(dv));
    be.gemm(linear_back(dv, params.value, dk), linear_back_weights(dv, k, grad.params.value));
    be.rows(EpilogueBack<typename V::Activation>{}, arg::in(k), arg::in(dk), arg::out(dk));
    be.gemm(linear_back(dk, params.key, dxk), linear_back(dr, params.receptance, dxr),
            linear_back_weights(dk, xk, grad.params.key), linear_back_weights(dr, xr, grad.params.receptance));
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(params.mix_k),
              arg::chan(params.mix_r), arg::cot(dxk), arg::cot(dxr), arg::out(dx),
              arg::back(dx, dlast.shift, dfirst.shift), arg::sum(grad.params.mix_k), arg::sum(grad.params.mix_r));
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
};

}  // namespace RWKV_ABI
}  // namespace rwkv
