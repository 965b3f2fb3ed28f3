#pragma once
/// The scalars of the library: 16-bit storage types, how a scalar name spreads over a model, and the wrapped scalar
/// `One` that functors are instantiated with.
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
/// std::bit_cast, also callable on a device.
template <class To, class From>
RWKV_HD constexpr To bits_as(From from) {
  return __builtin_bit_cast(To, from);
}
}  // namespace detail

/// bfloat16: the upper half of an IEEE float. Storage only; convert to compute. Rounds to nearest even, keeps NaN
/// quiet.
struct bf16 {
  std::uint16_t bits = 0;  ///< sign, exponent and mantissa

  constexpr bf16() = default;
  /// The nearest number, of two the even one.
  RWKV_HD constexpr explicit bf16(float value) {
    const auto word = detail::bits_as<std::uint32_t>(value);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    bits = static_cast<std::uint16_t>(is_nan ? (word >> 16) | 0x40u : rounded >> 16);
  }
  /// The number, exactly.
  RWKV_HD constexpr explicit operator float() const { return detail::bits_as<float>(std::uint32_t{bits} << 16); }
};

/// IEEE half precision. Storage only; convert to compute. Rounds to nearest even, handles subnormals, keeps NaN quiet.
struct f16 {
  std::uint16_t bits = 0;  ///< sign, exponent and mantissa

  constexpr f16() = default;
  /// The nearest number, of two the even one.
  RWKV_HD constexpr explicit f16(float value) {
    const auto word = detail::bits_as<std::uint32_t>(value);
    const std::uint32_t sign = (word >> 16) & 0x8000u;
    const std::uint32_t magnitude = word & 0x7fffffffu;
    std::uint32_t half = 0;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x47800000u) {  // 65536 and above: no half that large
      half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: let the float adder round at 2^-24
      half = detail::bits_as<std::uint32_t>(detail::bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
    } else {
      half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    bits = static_cast<std::uint16_t>(sign | half);
  }
  /// The number, exactly.
  RWKV_HD constexpr explicit operator float() const {
    const std::uint32_t sign = (std::uint32_t{bits} & 0x8000u) << 16;
    const std::uint32_t magnitude = std::uint32_t{bits} & 0x7fffu;
    std::uint32_t word = 0;
    if (magnitude >= 0x7c00u) {
      word = 0x7f800000u | ((magnitude & 0x3ffu) << 13) | ((magnitude & 0x3ffu) != 0 ? 0x400000u : 0u);
    } else if (magnitude >= 0x400u) {
      word = (magnitude << 13) + 0x38000000u;
    } else {
      word = detail::bits_as<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
    }
    return detail::bits_as<float>(sign | word);
  }
};

/// How one scalar spreads over a model: parameters are stored as `Storage`, arithmetic, activations and recurrent state
/// are `Compute`. Users may pass a bundle of their own wherever a scalar is asked for.
template <class Storage, class Compute>
struct Numerics {
  /// In which matrices are kept.
  using storage = Storage;
  /// In which everything is computed.
  using compute = Compute;
};

/// The storage type of a model whose matrices keep the number types of their file; see AsStored.
struct AnyStorage {};

/// The scalar of a model that computes in Compute and keeps every matrix of a checkpoint in the type it is stored in, so
/// that one model type runs files of float, bf16, f16 and, on backends that take them, quantised numbers, mapped where they
/// lie. Compute is float or double. To run, not to train.
template <std::floating_point Compute>
using AsStored = Numerics<AnyStorage, Compute>;

/// The Numerics bundle of a scalar name. A type without a bundle is not a scalar.
template <class S>
struct numerics {};
template <>
struct numerics<float> : Numerics<float, float> {};
template <>
struct numerics<double> : Numerics<double, double> {};
template <>
struct numerics<bf16> : Numerics<bf16, float> {};
template <>
struct numerics<f16> : Numerics<f16, float> {};
template <class Storage, class Compute>
struct numerics<Numerics<Storage, Compute>> : Numerics<Storage, Compute> {};

/// The number type in which a model of scalar S stores its weights, and the one in which it computes.
template <class S>
using storage_t = typename numerics<S>::storage;
/// The number type that a scalar computes in.
template <class S>
using compute_t = typename numerics<S>::compute;

/// The type in which numbers stored as T are computed and accumulated.
template <class T>
using accumulator_t = std::conditional_t<std::same_as<T, bf16> || std::same_as<T, f16>, float, T>;

/// A type that can parameterise a block: float, double, bf16, f16, a dual number, or a Numerics bundle.
template <class S>
concept Scalar = requires {
  typename numerics<S>::storage;
  typename numerics<S>::compute;
};

/// Fails to compile with a sentence that says which scalars there are.
template <class S>
consteval bool explain_scalar() {
  static_assert(
      Scalar<S>,
      "rwkv: the scalar parameter must be float, double, bf16, f16, Dual<double> or a Numerics<storage, compute> "
      "bundle");
  return Scalar<S>;
}

/// Widens a stored number to a computing one, exactly.
template <class T, class U>
RWKV_HD constexpr T widen(U value) {
  if constexpr (std::same_as<U, bf16> || std::same_as<U, f16>) return static_cast<T>(static_cast<float>(value));
  else return static_cast<T>(value);
}

namespace detail {
/// A float from which a 16-bit number can be rounded as if from the double itself: where the double lies between two
/// floats, the one whose last bit is set ("round to odd"), so that it is no tie where the double was none.
RWKV_HD constexpr float rounded_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  constexpr std::uint64_t infinity = 0x7ff0'0000'0000'0000u;
  const bool is_nan = (bits_as<std::uint64_t>(value) & ~(std::uint64_t{1} << 63)) > infinity;
  if (back == value || is_nan) return nearest;
  auto bits = bits_as<std::uint32_t>(nearest);
  const bool too_large = value < 0 ? back < value : back > value;
  if (too_large) --bits;
  return bits_as<float>(bits | 1u);
}
}  // namespace detail

/// Rounds a computed number to a stored one, once.
template <class U, class T>
RWKV_HD constexpr U narrow(T value) {
  if constexpr ((std::same_as<U, bf16> || std::same_as<U, f16>)&&std::same_as<T, double>) {
    return U(detail::rounded_to_odd(value));
  } else if constexpr (std::same_as<U, bf16> || std::same_as<U, f16>) {
    return U(static_cast<float>(value));
  } else {
    return static_cast<U>(value);
  }
}

/// The result of comparing two `One`s. Deliberately not a bool: a functor must use select(), so that the same code also
/// runs on packs.
struct Flag {
  bool set;  ///< the truth
};

/// One scalar in a wrapper: the functor number of a CUDA thread and of the reference backend. With the wrapper,
/// argument-dependent lookup and the rules for functor authors are the same as for packs and dual numbers.
template <class T>
struct One {
  /// Of one lane.
  using scalar = T;
  /// Lanes.
  static constexpr int size = 1;
  T v;  ///< the number

  One() = default;
  /// From a plain constant.
  template <class U>
  requires std::convertible_to<U, T> RWKV_HD constexpr explicit(!std::is_arithmetic_v<U>) One(U value)
      : v(static_cast<T>(value)) {}

  /// A number from memory, converted.
  template <class U>
  RWKV_HD static One load(const U* from) {
    return One(widen<T>(*from));
  }
  /// The same, where only the first of several lanes would be read.
  template <class U>
  RWKV_HD static One load(const U* from, int) {
    return load(from);
  }
  /// A number to memory, converted.
  template <class U>
  RWKV_HD void store(U* to) const {
    *to = narrow<U>(v);
  }
  /// The same, where only the first of several lanes would be written.
  template <class U>
  RWKV_HD void store(U* to, int) const {
    store(to);
  }

  RWKV_HD friend One operator+(One a, One b) { return One(a.v + b.v); }
  RWKV_HD friend One operator-(One a, One b) { return One(a.v - b.v); }
  RWKV_HD friend One operator*(One a, One b) { return One(a.v * b.v); }
  RWKV_HD friend One operator/(One a, One b) { return One(a.v / b.v); }
  RWKV_HD friend One operator-(One a) { return One(-a.v); }
  RWKV_HD friend One& operator+=(One& a, One b) { return a = a + b; }
  RWKV_HD friend One& operator-=(One& a, One b) { return a = a - b; }
  RWKV_HD friend One& operator*=(One& a, One b) { return a = a * b; }
  RWKV_HD friend One& operator/=(One& a, One b) { return a = a / b; }
  RWKV_HD friend Flag operator<(One a, One b) { return Flag{a.v < b.v}; }
  RWKV_HD friend Flag operator>(One a, One b) { return Flag{a.v > b.v}; }
};

/// The sum over the lanes of a number; a One has a single lane.
template <class T>
RWKV_HD T sum_lanes(One<T> x) {
  return x.v;
}
/// Keeps the first `lanes` lanes and sets the others to zero.
template <class T>
RWKV_HD One<T> first_lanes(One<T> x, int) {
  return x;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
