#pragma once
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The channel mix of RWKV-7:
///
///     y = W_v max(W_k mix_k(x), 0)^2
///
/// with mix_k(x)_t = x_t + (x_{t-1} - x_t) m_k (Peng et al., "RWKV-7 Goose", section 4.2).
template <class V, class S, class B, class D>
requires std::same_as<typename V::Channel, PlainChannelMix>
class ChannelMix<V, S, B, D> {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  static constexpr Index Ffn = D::static_ffn;

  struct Params {
    Channels<S, Width> mix_k;
    Weights<S, Width> key;  // [ffn, width]
    Weights<S, Ffn> value;  // [width, ffn]

    static constexpr auto fields() {
      return table(field("x_k", &Params::mix_k, shape(Axis::one, Axis::one, Axis::width), start::channel_mix_v7(),
                         row::live(0, 1)),
                   field("key.weight", &Params::key, shape(Axis::ffn, Axis::width), start::matrix(1)),
                   field("value.weight", &Params::value, shape(Axis::width, Axis::ffn), start::matrix(0)));
    }
  };

  struct State {
    Mat<compute> shift;  // [batch, width], the last x
  };

  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> xk;
    Seq<compute, Ffn> k;
  };

  D dims;
  Params params{};

  explicit ChannelMix(const ModelSizes& sizes, Index = 0) : dims(D::from(detail::with_ffn<V, D>(sizes))) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      two width x ffn products; scratch of one sequence and one of width ffn
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape = {x, ws.like<compute>(x, dims.width), ws.like<compute>(x, dims.ffn)};
    be.rows(Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mix_k), arg::out(tape.xk));
    remember_last(be, x, state.shift);
    be.gemm(linear(tape.xk, params.key, tape.k, typename V::Activation{}));
    be.gemm(linear(tape.k, params.value, y));
  }

  /// The adjoint, see Block; scratch of one sequence and one of width ffn.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, ChannelMix& grad, State& dfirst) const {
    const auto& [x, xk, k] = tape;
    auto dk = ws.like<compute>(x, dims.ffn);
    auto dxk = ws.like<compute>(x, dims.width);
    be.gemm(linear_back(dy, params.value, dk), linear_back_weights(dy, k, grad.params.value));
    be.rows(EpilogueBack<typename V::Activation>{}, arg::in(k), arg::in(dk), arg::out(dk));
    be.gemm(linear_back(dk, params.key, dxk), linear_back_weights(dk, xk, grad.params.key));
    rows_back(be, ws, Mix<typename V::Mix>{}, arg::in(x), arg::prev(x, first.shift), arg::chan(params.mix_k),
              arg::cot(dxk), arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift), arg::sum(grad.params.mix_k));
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
