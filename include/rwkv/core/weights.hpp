#pragma once
/// The parameters of blocks: views in the storage type of a scalar, or in the type that a file has.
#include <cstddef>
#include <type_traits>
#include <utility>

#include "rwkv/core/dtype.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A matrix of weights [rows, cols] in a number type known at run time: float, bf16 or f16, double where the model
/// computes in double, or a quantised type, where every row is a sequence of whole blocks (see block_formats.hpp).
/// Consecutive rows are `stride` elements apart.
struct StoredMat {
  const void* data = nullptr;  ///< the first row; null without memory
  DType dtype = DType::f32;    ///< of all numbers
  Index rows = 0;              ///< how many
  Index cols = 0;              ///< numbers of a row
  Index stride = 0;            ///< from row to row, in numbers

  /// The matrix as a typed view; T must be the C++ type of `dtype`.
  template <class T>
  Mat<const T> as() const {
    return {static_cast<const T*>(data), rows, cols, stride};
  }
  /// The bytes of row r.
  const std::byte* row(Index r) const {
    return static_cast<const std::byte*>(data) + r * (stride / length_of(dtype)) * Index(size_of(dtype));
  }
};

/// Whether S is an AsStored scalar.
template <class S>
inline constexpr bool keeps_stored_types = std::is_same_v<storage_t<S>, AnyStorage>;

/// A matrix of weights of scalar S.
template <class S, Index C = dyn>
using Weights = std::conditional_t<keeps_stored_types<S>, StoredMat, Mat<storage_t<S>, C>>;

/// A per-channel parameter of scalar S. It is small, so a model AsStored widens it to the computing type at load.
template <class S, Index N = dyn>
using Channels = Vec<std::conditional_t<keeps_stored_types<S>, compute_t<S>, storage_t<S>>, N>;

/// Rows [begin, begin + count) of a matrix of weights.
template <class W, Index C>
constexpr Mat<W, C> rows_of(Mat<W, C> weights, Index begin, Index count) {
  if (weights.data != nullptr) weights.data += begin * weights.stride;
  weights.rows = count;
  return weights;
}
/// Rows [begin, begin + count). Null stays null.
inline StoredMat rows_of(StoredMat weights, Index begin, Index count) {
  if (weights.data != nullptr) weights.data = weights.row(begin);
  weights.rows = count;
  return weights;
}

/// Calls f(typed matrix) with a matrix of weights that are not quantised, for a computation in T. The body of f is compiled
/// once for each possible type, so keep it to one call of a shared function.
template <class T, class W, Index C, class F>
void with_typed(Mat<W, C> weights, F&& f) {
  f(weights);
}
/// Calls f(matrix) with the weights as a Mat of their type, which must not be quantised.
template <class T, class F>
void with_typed(const StoredMat& weights, F&& f) {
  switch (weights.dtype) {
    case DType::bf16: return f(weights.as<bf16>());
    case DType::f16: return f(weights.as<f16>());
    case DType::f32:
      if constexpr (sizeof(T) > sizeof(float)) return f(weights.as<float>());
      break;
    default:
      asserts(!is_quantised(weights.dtype), "rwkv: weights of type ", name_of(weights.dtype), " have no C++ type");
  }
  f(weights.as<T>());
}

}  // namespace RWKV_ABI
}  // namespace rwkv
