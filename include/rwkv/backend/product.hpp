#pragma once
/// Matrix products as the verb `gemm` takes them.
#include "rwkv/core/weights.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The epilogue that leaves a product as it is.
struct Identity {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return x;
  }
};

namespace detail {
/// The second factor of a product: a matrix of W, or a StoredMat whose type is known at run time.
template <class W>
using Factor = std::conditional_t<std::is_same_v<W, AnyStorage>, StoredMat, Mat<const W>>;
}  // namespace detail

/// A matrix read with its axes exchanged.
template <class T>
struct Transposed {
  detail::Factor<T> matrix;  ///< [rows, columns], read the other way round
};
/// A matrix, read with rows and columns exchanged.
template <class T, Index C>
constexpr Transposed<std::remove_const_t<T>> transposed(Mat<T, C> m) {
  return {{m.data, m.rows, Index(m.cols), m.stride}};
}
/// The same of weights of any stored type.
constexpr Transposed<AnyStorage> transposed(const StoredMat& m) { return {m}; }

/// An output that is added to.
template <class T>
struct Plus {
  Mat<T> matrix;  ///< [rows, columns]
};
/// An output that a product is added to.
template <class T, Index C>
constexpr Plus<T> plus(Mat<T, C> m) {
  return {{m.data, m.rows, Index(m.cols), m.stride}};
}

/// y = epilogue(x w^T): y [rows, out], x [rows, in], w [out, in], as linear layers are stored. A backend takes the
/// weights of a Product<T, AnyStorage> with with_typed<T>.
template <class T, class W, class Epilogue = Identity>
struct Product {
  /// Of the output and the left factor.
  using scalar = T;
  Mat<T> y;                                 ///< [tokens, out]
  Mat<const T> x;                           ///< [tokens, in]
  detail::Factor<W> w;                      ///< [out, in]
  [[no_unique_address]] Epilogue epilogue;  ///< applied to each number of y
};

/// y = x w or y = x^T w, and with `added` y += the same: the adjoints of a linear layer. y [rows, cols]; w
/// [depth, cols]; x [rows, depth] or, when `transposed`, [depth, rows].
template <class T, class W>
struct PlainProduct {
  /// Of the output and the left factor.
  using scalar = T;
  Mat<T> y;         ///< the output
  Mat<const T> x;   ///< the left factor
  Mat<const W> w;   ///< the right factor
  bool transposed;  ///< whether the left factor is read with rows and columns exchanged
  bool added;       ///< whether the product is added to y

  /// The length of the axis that the factors share.
  constexpr Index depth() const { return w.rows; }
};

namespace detail {
template <class P>
inline constexpr bool is_stored_product = false;
template <class T, class E>
inline constexpr bool is_stored_product<Product<T, AnyStorage, E>> = true;

/// A product whose weights are of type W, for backends that launch a kernel for each type.
template <class W, class T, class E>
constexpr Product<T, W, E> as_type(const Product<T, AnyStorage, E>& product) {
  return {product.y, product.x, product.w.template as<W>(), product.epilogue};
}

/// Checks an output [rows, cols] and the axes that its factors share.
template <class T, Index N>
constexpr void check_product(Mat<T, N> y, Index rows, Index cols, Index x_depth, Index w_depth) {
  const Index got[] = {y.rows, y.cols}, want[] = {rows, cols};
  asserts(got[0] == want[0] && got[1] == want[1], "rwkv: a product has shape ", std::span(want), ", its output ",
          std::span(got));
  asserts(x_depth == w_depth, "rwkv: a product's factors share an axis of ", x_depth, " and ", w_depth);
}
}  // namespace detail

/// y = epilogue(x w^T), a linear layer.
/// Shapes    y: [rows, out]   x: [rows, in]   w: [out, in], also stored in 16 bits
/// Aliasing  y must not overlap x or w
template <class T, class X, class W, Index N, Index K, class Epilogue = Identity>
constexpr Product<T, W, Epilogue> mul(Mat<T, N> y, Mat<X, K> x, Transposed<W> w, Epilogue epilogue = {}) {
  static_assert(std::is_same_v<std::remove_const_t<X>, T>, "rwkv: a product computes in one type; convert x first");
  detail::check_product(y, x.rows, w.matrix.rows, x.cols, w.matrix.cols);
  return {y, x, w.matrix, epilogue};
}

/// dx = dy w, the gradient of a linear layer's input; with plus(dx), dx += dy w.
/// Shapes    dx: [rows, in]   dy: [rows, out]   w: [out, in], also stored in 16 bits
/// Aliasing  dx must not overlap dy or w
template <class T, class Y, class W, Index N, Index K, Index M>
constexpr PlainProduct<T, std::remove_const_t<W>> mul(Mat<T, N> dx, Mat<Y, K> dy, Mat<W, M> w) {
  static_assert(std::is_same_v<std::remove_const_t<Y>, T>, "rwkv: a product computes in one type; convert dy first");
  detail::check_product(dx, dy.rows, w.cols, dy.cols, w.rows);
  return {dx, dy, w, false, false};
}
/// The same, added to dx.
template <class T, class Y, class W, Index K, Index M>
constexpr PlainProduct<T, std::remove_const_t<W>> mul(Plus<T> dx, Mat<Y, K> dy, Mat<W, M> w) {
  auto product = mul(dx.matrix, dy, w);
  product.added = true;
  return product;
}

/// dw = dy^T x, the gradient of a linear layer's weights; with plus(dw), dw += dy^T x.
/// Shapes    dw: [out, in]   dy: [rows, out]   x: [rows, in]
/// Aliasing  dw must not overlap dy or x
template <class T, class Y, class X, Index N, Index M>
constexpr PlainProduct<T, std::remove_const_t<X>> mul(Mat<T, N> dw, Transposed<Y> dy, Mat<X, M> x) {
  static_assert(std::is_same_v<Y, T>, "rwkv: a product computes in one type; convert dy first");
  detail::check_product(dw, dy.matrix.cols, x.cols, dy.matrix.rows, x.rows);
  return {dw, dy.matrix, x, true, false};
}
/// The same, added to dw.
template <class T, class Y, class X, Index M>
constexpr PlainProduct<T, std::remove_const_t<X>> mul(Plus<T> dw, Transposed<Y> dy, Mat<X, M> x) {
  auto product = mul(dw.matrix, dy, x);
  product.added = true;
  return product;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
