#pragma once
/// Linear layers.
#include "rwkv/backend/product.hpp"

namespace rwkv::inline RWKV_ABI {

/// The product y = epilogue(x w^T) of a linear layer without bias, for the verb `gemm`, which takes any number of
/// independent ones at a time.
/// Shapes    x: [batch, time, in]   w: [out, in]   y: [batch, time, out]
/// Aliasing  y must not overlap x
template <class X, class W, class T, Index In, Index Out, Index WIn, class Epilogue = Identity>
auto linear(Seq<X, In> x, Mat<W, WIn> w, Seq<T, Out> y, Epilogue epilogue = {}) {
  return mul(y.flat(), x.flat(), transposed(w), epilogue);
}

}  // namespace rwkv::inline RWKV_ABI
