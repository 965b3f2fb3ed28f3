#pragma once
#include <algorithm>
#include <concepts>
#include <span>

#include "rwkv/block/layer_norm.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/op/linear.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// From the residual stream to logits: ln_out, then a product with the head table, which is never tied to the
/// embedding.
template <class S, class B, class D>
class Head {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Weights<S, Width> table;  // [vocab, width]

    static constexpr auto fields() {
      return rwkv::table(field("head.weight", &Params::table, shape(Axis::vocab, Axis::width), start::head()));
    }
  };

  D dims;
  LayerNorm<S, B, D> ln_out;  ///< the last norm
  Params params{};

  explicit Head(const ModelSizes& sizes) : dims(D::from(sizes)), ln_out(sizes) {}

  /// Shapes    x: [batch, time, width]   logits: [batch, time, vocab]
  /// Aliasing  logits must not overlap x
  void forward(B& be, Arena ws, Seq<const compute, Width> x, Seq<compute> logits) const {
    if constexpr (requires {
                    { be.head_step(*this, x, logits) } -> std::same_as<bool>;
                  }) {
      if (be.head_step(*this, x, logits)) return;
    }
    auto normed = ws.like<compute>(x, dims.width);
    ln_out.forward(be, x, normed);
    be.gemm(linear(normed, params.table, logits));
  }

  /// Computes the cross entropy of every position and runs the backward pass of the head, `chunk` positions at a time,
  /// so that the logits of a long batch are never all in memory.
  /// Shapes    x, dx: [positions, width]   targets, losses: [positions]; a position without target has loss 0
  /// Aliasing  dx may be x
  void loss(B& be, Arena ws, Mat<const compute, Width> x, std::span<const Token> targets,
            const CrossEntropyWeights& weights, Index chunk, std::span<compute> losses, Mat<compute, Width> dx,
            Head& grad) const {
    for (Index begin = 0; begin < x.rows; begin += chunk) {
      Arena scratch = ws;
      const Index count = std::min(chunk, x.rows - begin);
      const auto part = [&](auto sequence) { return sequence.subspan(std::size_t(begin), std::size_t(count)); };
      const Seq<const compute, Width> in{x.row(begin), 1, count, x.cols};
      const Seq<compute, Width> out{dx.row(begin), 1, count, x.cols};
      auto normed = scratch.like<compute>(in, in.width), dnormed = scratch.like<compute>(in, in.width);
      auto logits = scratch.like<compute>(in, dims.vocab);
      ln_out.forward(be, in, normed);
      be.gemm(linear(normed, params.table, logits));
      detail::advance(detail::Unit::layers, 0);
      be.cross_entropy(Mat<compute>(logits.flat()), part(targets), weights, part(losses));
      detail::advance(detail::Unit::layers, 0);
      be.gemm(linear_back(logits, params.table, dnormed), linear_back_weights(logits, normed, grad.params.table));
      ln_out.backward(be, scratch, in, dnormed, arg::out(out), grad.ln_out);
      if (ws.measuring()) break;  // the first chunk is the largest
    }
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    LayerNorm<S, B, D>::visit(self.ln_out, prefix + "ln_out.", visitor);
    visit_fields(self.params, self.dims, prefix, visitor);
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
