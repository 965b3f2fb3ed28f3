#pragma once
/// Overflow-checked integers, for all arithmetic on numbers read from files.
#include <concepts>
#include <cstdint>
#include <limits>
#include <utility>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// An unsigned 64-bit integer that remembers overflow. A result that does not fit is invalid, and so are a negative
/// difference and everything computed from an invalid number. Comparisons with an invalid number are false and
/// conversions throw, so that no check of a file can pass by wrapping around.
class Checked {
 public:
  /// A size; not valid if it is negative.
  template <std::integral T>
  constexpr Checked(T value) : value_(static_cast<std::uint64_t>(value)), valid_(std::in_range<std::uint64_t>(value)) {}

  /// Whether neither it nor what it was made of overflowed.
  constexpr bool valid() const { return valid_; }
  /// Whether it is valid and this.
  constexpr bool equals(std::uint64_t other) const { return valid_ && value_ == other; }
  /// Whether it is valid and at most this.
  constexpr bool at_most(std::uint64_t limit) const { return valid_ && value_ <= limit; }

  /// The smallest multiple of `unit` that is not below this number; invalid for a unit of 0.
  constexpr Checked aligned(std::uint64_t unit) const {
    if (unit == 0) return invalid();
    const std::uint64_t past = value_ % unit;
    return past == 0 ? *this : *this + (unit - past);
  }

  /// The number as a T. Throws an Error of the joined parts when it is invalid or does not fit into a T.
  template <std::integral T, class... Parts>
  constexpr T to(const Parts&... parts) const {
    expects(valid_ && std::in_range<T>(value_), parts...);
    return static_cast<T>(value_);
  }

  friend constexpr Checked operator+(Checked a, Checked b) {
    return Checked(a.value_ + b.value_, a.valid_ && b.valid_ && a.value_ <= max_value - b.value_);
  }
  friend constexpr Checked operator-(Checked a, Checked b) {
    return Checked(a.value_ - b.value_, a.valid_ && b.valid_ && a.value_ >= b.value_);
  }
  friend constexpr Checked operator*(Checked a, Checked b) {
    return Checked(a.value_ * b.value_, a.valid_ && b.valid_ && (b.value_ == 0 || a.value_ <= max_value / b.value_));
  }

 private:
  static constexpr std::uint64_t max_value = std::numeric_limits<std::uint64_t>::max();

  constexpr Checked(std::uint64_t value, bool valid) : value_(value), valid_(valid) {}
  static constexpr Checked invalid() { return Checked(0, false); }

  std::uint64_t value_;
  bool valid_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
