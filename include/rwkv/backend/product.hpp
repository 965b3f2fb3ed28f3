#pragma once
/// Matrix products as the verb `gemm` takes them.
#include "rwkv/core/view.hpp"

namespace rwkv::inline RWKV_ABI {

/// The epilogue that leaves a product as it is.
struct Identity {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return x;
  }
};

/// A matrix read with its axes exchanged.
template <class T>
struct Transposed {
  Mat<const T> matrix;
};
template <class T, Index C>
constexpr Transposed<std::remove_const_t<T>> transposed(Mat<T, C> m) {
  return {{m.data, m.rows, Index(m.cols), m.stride}};
}

/// y = epilogue(x w^T): y [rows, out], x [rows, in], w [out, in], as linear layers are stored.
template <class T, class W, class Epilogue = Identity>
struct Product {
  Mat<T> y;
  Mat<const T> x;
  Mat<const W> w;
  [[no_unique_address]] Epilogue epilogue;
};

/// Aliasing: y must not overlap x or w.
template <class T, class X, class W, Index N, Index K, class Epilogue = Identity>
constexpr Product<T, W, Epilogue> mul(Mat<T, N> y, Mat<X, K> x, Transposed<W> w, Epilogue epilogue = {}) {
  static_assert(std::is_same_v<std::remove_const_t<X>, T>, "rwkv: a product computes in one type; convert x first");
  const Index got[] = {y.rows, y.cols}, want[] = {x.rows, w.matrix.rows}, inner[] = {x.cols, w.matrix.cols};
  asserts(got[0] == want[0] && got[1] == want[1], "rwkv: a product has shape ", std::span(want), ", its output ",
          std::span(got));
  asserts(inner[0] == inner[1], "rwkv: a product's factors share an axis of ", inner[0], " and ", inner[1]);
  return {y, x, w.matrix, epilogue};
}

}  // namespace rwkv::inline RWKV_ABI
