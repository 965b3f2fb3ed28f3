#pragma once
#include "rwkv/block/layer_norm.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv::inline RWKV_ABI {

/// From the residual stream to logits: ln_out, then one product with a table of its own (never tied to the embedding).
template <class S, class B, class D>
class Head {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Mat<storage, Width> table;  // [vocab, width]

    static constexpr auto fields() {
      return rwkv::table(field("head.weight", &Params::table, shape(Axis::vocab, Axis::width), Role::head));
    }
  };

  D dims;
  LayerNorm<S, B, D> ln_out;
  Params params{};

  explicit Head(const ModelSizes& sizes) : dims(D::from(sizes)), ln_out(sizes) {}

  /// Shapes    x: [batch, time, width]   logits: [batch, time, vocab]
  /// Aliasing  logits must not overlap x
  void forward(B& be, Arena ws, Seq<const compute, Width> x, Seq<compute> logits) const {
    auto normed = ws.like<compute>(x, dims.width);
    ln_out.forward(be, x, normed);
    be.gemm(linear(normed, params.table, logits));
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    LayerNorm<S, B, D>::visit(self.ln_out, prefix + "ln_out.", visitor);
    visit_fields(self.params, self.dims, prefix, visitor);
  }
};

}  // namespace rwkv::inline RWKV_ABI
