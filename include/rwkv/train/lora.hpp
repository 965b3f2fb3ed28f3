#pragma once
/// Low-rank adaptation of chosen matrices.
#include <cmath>
#include <cstddef>
#include <span>
#include <string>

#include "rwkv/backend/operand.hpp"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/random.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models"): a matrix is trained as
/// W = W_0 + alpha / rank * B A, with A [rank, in] and B [out, rank] in place of W itself.
struct Lora {
  std::string matrices{};  ///< pattern of their names, such as blocks.*.att.{key,value}.weight; none when empty
  Index rank = 8;          ///< rows of the factor that is applied first
  double alpha = 16;       ///< scale of the product, times the rank

  /// The factor of the low-rank product.
  double scale() const { return alpha / static_cast<double>(rank); }
};

/// y = x + factor * z. A row program; y may be z.
struct AddScaled {
  double factor;  ///< of what is added
  template <class R>
  RWKV_HD void map(R x, R z, R& y) const {
    y = x + R(factor) * z;
  }
};

/// y = factor * x. A row program; y may be x.
struct Scaled {
  double factor;  ///< of the numbers
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = R(factor) * x;
  }
};

/// One adapted matrix. The model always holds the merged W, so it runs and is saved like any other model. The gradients
/// of A and B are computed from the gradient of W.
template <class T>
struct AdaptedMatrix {
  Mat<T> w, dw;   ///< the model's, and its gradient, [out, in]
  Mat<T> base;    ///< W_0, [out, in]
  Mat<T> a, b;    ///< [rank, in], [out, rank]
  Mat<T> da, db;  ///< gradients of a and b
  double scale;   ///< factor of the low-rank product

  /// Computes W from A and B.
  template <class Backend>
  void merge(Backend& be) const {
    be.gemm(mul(w, b, a));
    be.rows(AddScaled{scale}, arg::in(as_tokens(base)), arg::in(as_tokens(w)), arg::out(as_tokens(w)));
  }

  /// Computes the gradients of A and B from the gradient of W.
  template <class Backend>
  void pull_back(Backend& be) const {
    be.gemm(mul(da, transposed(b), dw), mul(db, dw, transposed(a)));
    for (const Mat<T> d : {da, db}) be.rows(Scaled{scale}, arg::in(as_tokens(d)), arg::out(as_tokens(d)));
  }

  /// The usual start: A uniform within 1 / sqrt(in), B zero, so that training begins at W_0.
  template <class Backend>
  void start(Backend& be, Seed seed, const std::string& name) const {
    const Philox numbers{.key = seed.value, .stream = stream_of(name + ".lora_a")};
    const double range = 1 / std::sqrt(static_cast<double>(Index(a.cols)));
    write_numbers(be, std::span<T>(a.data, static_cast<std::size_t>(a.rows * a.cols)),
                  [&](std::size_t i) { return static_cast<T>(range * (2 * numbers.block(i).uniform_double(0) - 1)); });
  }

 private:
  static Seq<T> as_tokens(Mat<T> m) { return {m.data, 1, m.rows, m.cols}; }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
