#pragma once
/// The functions that a functor may call. Argument-dependent lookup on the functor's number type finds the overload;
/// packs and dual numbers have their own.
#include <cmath>
#include <concepts>
#include <type_traits>

#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The value of x with derivative zero; for quantities that cancel in the result, such as a running maximum.
template <std::floating_point T>
RWKV_HD T detach(T x) {
  return x;
}
template <class T>
RWKV_HD One<T> detach(One<T> x) {
  return One<T>(detach(x.v));
}

/// `yes` where `which` holds, else `no`; both are computed.
template <class T>
RWKV_HD One<T> select(Flag which, One<T> yes, One<T> no) {
  return which.set ? yes : no;
}
template <class T>
RWKV_HD One<T> exp(One<T> x) {
  using std::exp;
  return One<T>(exp(x.v));
}
template <class T>
RWKV_HD One<T> sqrt(One<T> x) {
  using std::sqrt;
  return One<T>(sqrt(x.v));
}

/// A number type for functors: `One`, `Pack`, or `Dual` of one of them. A bare float is deliberately excluded, so that
/// a functor that compiles for one of these types compiles for all.
template <class R>
concept FunctorNumber = requires(R a, R b) {
  typename R::scalar;
  R(1);
  a + b;
  a / b;
  select(a < b, a, b);
  exp(a);
  detach(a);
};

/// Plain constants beside a functor number, on either side: `1 - z`, `h *= 0.5`, `x < 0`. They have the number's scalar.
template <class U, class R>
concept ConstantBeside = std::is_arithmetic_v<U> && FunctorNumber<R>;

template <class R, ConstantBeside<R> U>
RWKV_HD R operator+(const R& a, U b) {
  return a + R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator+(U a, const R& b) {
  return R(a) + b;
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator-(const R& a, U b) {
  return a - R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator-(U a, const R& b) {
  return R(a) - b;
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator*(const R& a, U b) {
  return a * R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator*(U a, const R& b) {
  return R(a) * b;
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator/(const R& a, U b) {
  return a / R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R operator/(U a, const R& b) {
  return R(a) / b;
}
template <class R, ConstantBeside<R> U>
RWKV_HD R& operator+=(R& a, U b) {
  return a += R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R& operator-=(R& a, U b) {
  return a -= R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R& operator*=(R& a, U b) {
  return a *= R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD R& operator/=(R& a, U b) {
  return a /= R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD auto operator<(const R& a, U b) {
  return a < R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD auto operator<(U a, const R& b) {
  return R(a) < b;
}
template <class R, ConstantBeside<R> U>
RWKV_HD auto operator>(const R& a, U b) {
  return a > R(b);
}
template <class R, ConstantBeside<R> U>
RWKV_HD auto operator>(U a, const R& b) {
  return R(a) > b;
}

/// The same beside a constant.
template <class Which, class R, ConstantBeside<R> U>
RWKV_HD R select(Which which, const R& yes, U no) {
  return select(which, yes, R(no));
}
/// The same beside a constant.
template <class Which, class R, ConstantBeside<R> U>
RWKV_HD R select(Which which, U yes, const R& no) {
  return select(which, R(yes), no);
}

/// The larger of two numbers; the second when they do not compare (a NaN).
template <FunctorNumber R>
RWKV_HD R max(R a, R b) {
  return select(a > b, a, b);
}
/// The same beside a constant.
template <class R, ConstantBeside<R> U>
RWKV_HD R max(const R& a, U b) {
  return max(a, R(b));
}
/// The same beside a constant.
template <class R, ConstantBeside<R> U>
RWKV_HD R max(U a, const R& b) {
  return max(R(a), b);
}

/// The smaller of two numbers; the second when they do not compare (a NaN).
template <FunctorNumber R>
RWKV_HD R min(R a, R b) {
  return select(a < b, a, b);
}
/// The same beside a constant.
template <class R, ConstantBeside<R> U>
RWKV_HD R min(const R& a, U b) {
  return min(a, R(b));
}
/// The same beside a constant.
template <class R, ConstantBeside<R> U>
RWKV_HD R min(U a, const R& b) {
  return min(R(a), b);
}

/// The logistic function 1 / (1 + exp(-x)); saturates at both ends without a NaN.
template <FunctorNumber R>
RWKV_HD R sigmoid(R x) {
  return R(1) / (R(1) + exp(-x));
}

/// The hyperbolic tangent, 2 sigmoid(2 x) - 1; its error is that of the difference, so near zero it is absolute.
template <FunctorNumber R>
RWKV_HD R tanh(R x) {
  return R(2) * sigmoid(x + x) - R(1);
}

/// Two exponentials under a common scale: exp(a - m) and exp(b - m) with m = detach(max(a, b)).
template <class R>
struct ExpPair {
  R first, second, scale;  ///< e^(a - scale), e^(b - scale), and the larger of a and b
};

/// One of the two factors is exactly 1. So one exponential of a non-positive number suffices, and nothing overflows.
template <FunctorNumber R>
RWKV_HD ExpPair<R> exp_pair(R a, R b) {
  const auto first_larger = a > b;
  const R larger = select(first_larger, a, b);
  const R smaller = select(first_larger, b, a);
  const R fraction = exp(smaller - larger);
  return {select(first_larger, R(1), fraction), select(first_larger, fraction, R(1)), larger};
}

}  // namespace RWKV_ABI
}  // namespace rwkv
