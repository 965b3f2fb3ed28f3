#pragma once
#include "rwkv/block/concept.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/op/norm.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Layer norm with scale and shift. Stateless.
template <class S, class B, class D>
class LayerNorm {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Channels<S, Width> scale, shift;  // [width]

    static constexpr auto fields() {
      return table(field("weight", &Params::scale, shape(Axis::width), start::constant(1), row::live(0.7, 1.3)),
                   field("bias", &Params::shift, shape(Axis::width), start::constant(0), row::live(-0.3, 0.3)));
    }
  };
  struct State {};

  D dims;
  Params params{};
  double epsilon = 1e-5;  ///< added to the variance; the value of every official checkpoint

  explicit LayerNorm(const ModelSizes& sizes, Index = 0) : dims(D::from(sizes)) {
    if (sizes.norm_epsilon > 0) epsilon = sizes.norm_epsilon;
  }

  /// The norm as a row program, for backends that fuse it into a kernel.
  Normalise program() const { return detail::normalise_groups(dims.width, 1, epsilon); }

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(B& be, Seq<const compute, Width> x, Seq<compute, Width> y) const {
    layer_norm(be, x, params.scale, params.shift, epsilon, y);
  }
  void forward(B& be, Arena, Seq<const compute, Width> x, State&, Seq<compute, Width> y) const { forward(be, x, y); }

  /// The adjoint; see layer_norm_back.
  template <class Dx>
  void backward(B& be, Arena ws, Seq<const compute, Width> x, Seq<const compute, Width> dy, Dx dx,
                LayerNorm& grad) const {
    layer_norm_back(be, ws, x, params.scale, epsilon, dy, dx, grad.params.scale, grad.params.shift);
  }

  /// The tape of the norm as a block of its own; y must then not overlap x.
  struct Tape {
    Seq<const compute, Width> x;
  };
  void forward(B& be, Arena&, Seq<const compute, Width> x, State&, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    forward(be, x, y);
  }
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State&, const State&,
                Seq<compute, Width> dx, LayerNorm& grad, State&) const {
    backward(be, ws, tape.x, dy, arg::out(dx), grad);
  }

  void reset(B&, State&) const {}

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }
  template <class Visitor>
  void visit_state(State&, const std::string&, Visitor&&) const {}
};

}  // namespace RWKV_ABI
}  // namespace rwkv
