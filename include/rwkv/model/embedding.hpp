#pragma once
#include <concepts>
#include <span>

#include "rwkv/backend/dequantised.hpp"
#include "rwkv/block/layer_norm.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Looks up each token's row in the embedding table and applies ln0, which official checkpoints store with block 0.
template <class S, class B, class D>
class Embedding {
  static_assert(explain_block_parameters<S, B>());

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    Weights<S, Width> table;  // [vocab, width]

    static constexpr auto fields() {
      return rwkv::table(field("emb.weight", &Params::table, shape(Axis::vocab, Axis::width), start::embedding()));
    }
  };

  D dims;
  Params params{};
  LayerNorm<S, B, D> ln0;  ///< the norm of the embedding

  explicit Embedding(const ModelSizes& sizes) : dims(D::from(sizes)), ln0(sizes) {}

  /// Shapes    tokens: [batch * time], each in [0, vocab)   y: [batch, time, width]
  void forward(B& be, std::span<const Token> tokens, Seq<compute, Width> y) const {
    if constexpr (requires {
                    { be.embedding_step(*this, tokens, y) } -> std::same_as<bool>;
                  }) {
      if (be.embedding_step(*this, tokens, y)) return;
    }
    gather(be, tokens, y);
    ln0.forward(be, y, y);
  }

  /// The same for training: keeps the rows before the norm.
  struct Tape {
    Seq<compute, Width> rows;
  };
  void forward(B& be, Arena& ws, std::span<const Token> tokens, Seq<compute, Width> y, Tape& tape) const {
    tape.rows = ws.like<compute>(y, y.width);
    gather(be, tokens, tape.rows);
    ln0.forward(be, tape.rows, y);
  }

  /// The backward pass: adds to the gradients of the rows that were read. Skipped for the table when its gradient is
  /// null (frozen).
  void backward(B& be, Arena ws, std::span<const Token> tokens, Seq<compute, Width> dy, const Tape& tape,
                Embedding& grad) const {
    auto drows = ws.like<compute>(dy, dy.width);
    ln0.backward(be, ws, tape.rows, dy, arg::out(drows), grad.ln0);
    if (grad.params.table.data != nullptr) be.scatter_add_rows(ws, drows.flat(), tokens, grad.params.table);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
    LayerNorm<S, B, D>::visit(self.ln0, prefix + "blocks.0.ln0.", visitor);
  }

 private:
  void gather(B& be, std::span<const Token> tokens, Seq<compute, Width> rows) const {
    gather_rows(be, params.table, tokens, rows.flat());
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
