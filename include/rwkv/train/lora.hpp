#pragma once
/// Chosen matrices trained through factors: low-rank adaptation and MiSS.
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

/// MiSS (Kang, Yin, "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure"): inputs whose numbers
/// leave the same remainder share a factor, so that a matrix has one small factor D [out, rank] in place of two:
///
///     y[t, o] = sum over k of W_0[o, k] x[t, k] + alpha / rank sum over j of D[o, j] S[t, j]
///     S[t, j] = sum of x[t, k] over all k = j mod rank
///
/// which is W[o, k] = W_0[o, k] + alpha / rank D[o, k mod rank]. D starts at zero.
struct Miss {
  std::string matrices{};  ///< pattern of their names; none when empty
  Index rank = 16;         ///< columns of D, at most the inputs of a matrix
  double alpha = 16;       ///< scale of D, times the rank

  /// The factor of D.
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
/// of A and B are computed from the gradient of W. MiSS is the case of an A that stays: A[j, k] is 1 where k = j mod rank and
/// else 0, and B is D.
template <class T>
struct AdaptedMatrix {
  Mat<T> w, dw;   ///< the model's, and its gradient, [out, in]
  Mat<T> base;    ///< W_0, [out, in]
  Mat<T> a, b;    ///< [rank, in], [out, rank]
  Mat<T> da, db;  ///< gradients of a and b; da is null where A stays
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
    be.gemm(mul(db, dw, transposed(a)));
    be.rows(Scaled{scale}, arg::in(as_tokens(db)), arg::out(as_tokens(db)));
    if (da.data == nullptr) return;
    be.gemm(mul(da, transposed(b), dw));
    be.rows(Scaled{scale}, arg::in(as_tokens(da)), arg::out(as_tokens(da)));
  }

  /// The usual start: A uniform within 1 / sqrt(in), B zero, so that training begins at W_0. Of MiSS B alone, which is zero.
  template <class Backend>
  void start(Backend& be, Seed seed, const std::string& name) const {
    if (da.data == nullptr) return;
    const Philox numbers{.key = seed.value, .stream = stream_of(name + ".lora_a")};
    const double range = 1 / std::sqrt(static_cast<double>(Index(a.cols)));
    write_numbers(be, std::span<T>(a.data, static_cast<std::size_t>(a.rows * a.cols)),
                  [&](std::size_t i) { return static_cast<T>(range * (2 * numbers.block(i).uniform_double(0) - 1)); });
  }

 private:
  static Seq<T> as_tokens(Mat<T> m) { return {m.data, 1, m.rows, m.cols}; }
};

/// Fills the A of MiSS for matrices of up to `width` inputs: [rank, width].
template <class Backend, class T>
void fill_miss(Backend& be, std::span<T> a, Index width) {
  const auto rank = a.size() / static_cast<std::size_t>(width);
  write_numbers(be, a, [&](std::size_t i) {
    const std::size_t row = i / static_cast<std::size_t>(width), column = i % static_cast<std::size_t>(width);
    return static_cast<T>(column % rank == row ? 1 : 0);
  });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
