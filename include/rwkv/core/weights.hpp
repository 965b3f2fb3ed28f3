#pragma once
/// The parameters of blocks: views in the storage type of a scalar, or in the type that a file has.
#include <type_traits>
#include <utility>

#include "rwkv/core/dtype.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A matrix of weights [rows, cols] in a number type known at run time: float, bf16 or f16, and double where the model
/// computes in double. Consecutive rows are `stride` elements apart.
struct StoredMat {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;

  /// The matrix in the type it has.
  template <class T>
  Mat<const T> as() const {
    return {static_cast<const T*>(data), rows, cols, stride};
  }
};

template <class S>
inline constexpr bool keeps_stored_types = std::is_same_v<storage_t<S>, AnyStorage>;

/// A matrix of weights of scalar S.
template <class S, Index C = dyn>
using Weights = std::conditional_t<keeps_stored_types<S>, StoredMat, Mat<storage_t<S>, C>>;

/// A per-channel parameter of scalar S. Small, so that it is widened where matrices keep the type of their file.
template <class S, Index N = dyn>
using Channels = Vec<std::conditional_t<keeps_stored_types<S>, compute_t<S>, storage_t<S>>, N>;

/// Calls f(matrix) with a matrix of weights in its own type, for a computation in T. What f does for each type is
/// compiled once for each type, so f is best one call of a function that many share.
template <class T, class W, Index C, class F>
void with_typed(Mat<W, C> weights, F&& f) {
  f(weights);
}
template <class T, class F>
void with_typed(const StoredMat& weights, F&& f) {
  switch (weights.dtype) {
    case DType::bf16: return f(weights.as<bf16>());
    case DType::f16: return f(weights.as<f16>());
    case DType::f32:
      if constexpr (sizeof(T) > sizeof(float)) return f(weights.as<float>());
      break;
    default: break;
  }
  f(weights.as<T>());
}

/// Whether a model that computes in T takes matrices of that type as they are stored.
template <class T>
constexpr bool takes_as_stored(DType dtype) {
  return is_floating(dtype) && size_of(dtype) <= sizeof(T);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
