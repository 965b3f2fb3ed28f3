#pragma once
/// Linear layers.
#include "rwkv/backend/product.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The product y = epilogue(x w^T) of a linear layer without bias, as an argument of the verb `gemm`.
/// Shapes    x: [batch, time, in]   w: [out, in]   y: [batch, time, out]
/// Aliasing  y must not overlap x
template <class X, class W, class T, Index In, Index Out, Index WIn, class Epilogue = Identity>
auto linear(Seq<X, In> x, Mat<W, WIn> w, Seq<T, Out> y, Epilogue epilogue = {}) {
  return mul(y.flat(), x.flat(), transposed(w), epilogue);
}

/// Y = epilogue(x w^T) with weights of any stored type.
template <class X, class T, Index In, Index Out, class Epilogue = Identity>
auto linear(Seq<X, In> x, const StoredMat& w, Seq<T, Out> y, Epilogue epilogue = {}) {
  return mul(y.flat(), x.flat(), transposed(w), epilogue);
}

/// The product dx = dy w, the gradient of a linear layer's input.
/// Shapes    dy: [batch, time, out]   w: [out, in]   dx: [batch, time, in]
/// Aliasing  dx must not overlap dy
template <class Y, class W, class T, Index In, Index Out, Index WIn>
auto linear_back(Seq<Y, Out> dy, Mat<W, WIn> w, Seq<T, In> dx) {
  return mul(dx.flat(), dy.flat(), w);
}

/// The product dw += dy^T x, the gradient of a linear layer's weights, summed over all tokens. Skipped when dw.data is
/// null (a frozen parameter).
/// Shapes    dy: [tokens, out]   x: [tokens, in]   dw: [out, in]
template <class Y, class X, class T, Index Out, Index In, Index WIn>
auto linear_back_weights(Mat<Y, Out> dy, Mat<X, In> x, Mat<T, WIn> dw) {
  Mat<Y> outputs = dy;
  Mat<T> weights = dw;
  if (weights.data == nullptr) {
    outputs.cols = 0;
    weights = {nullptr, 0, Index(x.cols), Index(x.cols)};
  }
  return mul(plus(weights), transposed(outputs), x);
}
/// The gradient of the weights, to be added to dw: dy^T x.
template <class Y, class X, class T, Index In, Index Out, Index WIn>
auto linear_back_weights(Seq<Y, Out> dy, Seq<X, In> x, Mat<T, WIn> dw) {
  return linear_back_weights(dy.flat(), x.flat(), dw);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
