#pragma once
/// Forward-mode dual numbers: a value and its derivative along K directions. A functor on dual numbers also yields its
/// derivative; a whole block with the scalar `Dual<double>` yields a directional derivative.
#include <type_traits>

#include "rwkv/core/math.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
template <class R>
struct scalar_of {
  using type = R;
};
template <class R>
requires requires { typename R::scalar; }
struct scalar_of<R> {
  using type = typename R::scalar;
};
}  // namespace detail

/// value + sum over k of direction[k] * e_k, with e_i e_j = 0. R is a float, a double, or a functor number.
template <class R, int K>
struct Dual {
  /// The number type below all directions.
  using scalar = typename detail::scalar_of<R>::type;
  R value;         ///< the number
  R direction[K];  ///< its derivative in each direction

  Dual() = default;
  /// A constant: every derivative is zero.
  template <class U>
  requires std::is_arithmetic_v<U> RWKV_HD constexpr Dual(U constant) : value(static_cast<R>(constant)) {
    RWKV_UNROLL for (int k = 0; k < K; ++k) direction[k] = R(0);
  }
  /// The variable of direction k at a value.
  RWKV_HD static Dual variable(R value, int k) {
    Dual x;
    x.value = value;
    RWKV_UNROLL for (int i = 0; i < K; ++i) x.direction[i] = R(i == k ? 1 : 0);
    return x;
  }
  /// f(x) from its value and its derivative f'(x).
  RWKV_HD static Dual chain(R value, R slope, const Dual& x) {
    Dual y;
    y.value = value;
    RWKV_UNROLL for (int k = 0; k < K; ++k) y.direction[k] = slope * x.direction[k];
    return y;
  }

  RWKV_HD friend Dual operator+(const Dual& a, const Dual& b) {
    Dual y;
    y.value = a.value + b.value;
    RWKV_UNROLL for (int k = 0; k < K; ++k) y.direction[k] = a.direction[k] + b.direction[k];
    return y;
  }
  RWKV_HD friend Dual operator-(const Dual& a, const Dual& b) { return a + (-b); }
  RWKV_HD friend Dual operator-(const Dual& a) { return chain(-a.value, R(-1), a); }
  RWKV_HD friend Dual operator*(const Dual& a, const Dual& b) {
    Dual y;
    y.value = a.value * b.value;
    RWKV_UNROLL for (int k = 0; k < K; ++k) y.direction[k] = a.direction[k] * b.value + a.value * b.direction[k];
    return y;
  }
  RWKV_HD friend Dual operator/(const Dual& a, const Dual& b) {
    Dual y;
    y.value = a.value / b.value;
    RWKV_UNROLL for (int k = 0; k < K; ++k) { y.direction[k] = (a.direction[k] - y.value * b.direction[k]) / b.value; }
    return y;
  }
  RWKV_HD friend Dual& operator+=(Dual& a, const Dual& b) { return a = a + b; }
  RWKV_HD friend Dual& operator-=(Dual& a, const Dual& b) { return a = a - b; }
  RWKV_HD friend Dual& operator*=(Dual& a, const Dual& b) { return a = a * b; }
  RWKV_HD friend Dual& operator/=(Dual& a, const Dual& b) { return a = a / b; }
  RWKV_HD friend auto operator<(const Dual& a, const Dual& b) { return a.value < b.value; }
  RWKV_HD friend auto operator>(const Dual& a, const Dual& b) { return a.value > b.value; }
};

template <class R, int K>
struct numerics<Dual<R, K>> : Numerics<Dual<R, K>, Dual<R, K>> {};

/// In each lane, `yes` where the mask is set, else `no`.
template <class Mask, class R, int K>
RWKV_HD Dual<R, K> select(Mask which, const Dual<R, K>& yes, const Dual<R, K>& no) {
  Dual<R, K> y;
  y.value = select(which, yes.value, no.value);
  RWKV_UNROLL for (int k = 0; k < K; ++k) y.direction[k] = select(which, yes.direction[k], no.direction[k]);
  return y;
}
template <class R, int K>
RWKV_HD Dual<R, K> exp(const Dual<R, K>& x) {
  using std::exp;
  const R y = exp(x.value);
  return Dual<R, K>::chain(y, y, x);
}
template <class R, int K>
RWKV_HD Dual<R, K> sqrt(const Dual<R, K>& x) {
  using std::sqrt;
  const R y = sqrt(x.value);
  return Dual<R, K>::chain(y, R(0.5) / y, x);
}
template <class R, int K>
RWKV_HD Dual<R, K> detach(const Dual<R, K>& x) {
  return Dual<R, K>::chain(x.value, R(0), x);
}

/// The common scale is detached, so both factors differentiate as exponentials, including the factor that equals 1.
template <FunctorNumber R, int K>
RWKV_HD ExpPair<Dual<R, K>> exp_pair(const Dual<R, K>& a, const Dual<R, K>& b) {
  const ExpPair<R> pair = exp_pair(a.value, b.value);
  return {Dual<R, K>::chain(pair.first, pair.first, a), Dual<R, K>::chain(pair.second, pair.second, b),
          Dual<R, K>::chain(pair.scale, R(0), a)};
}

/// The same for One<Dual>: blocks whose scalar is Dual<double>.
template <class R, int K>
RWKV_HD ExpPair<One<Dual<R, K>>> exp_pair(One<Dual<R, K>> a, One<Dual<R, K>> b) {
  using D = One<Dual<R, K>>;
  const D scale = detach(max(a, b));
  return {exp(a - scale), exp(b - scale), scale};
}

}  // namespace RWKV_ABI
}  // namespace rwkv
