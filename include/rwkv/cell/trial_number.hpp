#pragma once
/// The number that every recurrence is compiled with first. It does what the numbers of the backends do, and meets with a
/// sentence what they cannot do; their own errors are pages of overloads.
#include <concepts>
#include <type_traits>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The result of a comparison.
struct TrialFlag {
  /// Fails to compile.
  template <std::same_as<bool> B>
  RWKV_HD explicit operator B() const {
    static_assert(!std::same_as<B, bool>,
                  "rwkv: a recurrence must not branch on its numbers, since R may hold several at once: instead of if, "
                  "?:, && and std::max there are select(x > 0, yes, no), max and min");
    return false;
  }

  /// Fails to compile.
  template <class Yes, class No>
  requires(std::is_arithmetic_v<Yes>&& std::is_arithmetic_v<No>)  //
      RWKV_HD friend Yes select(TrialFlag, Yes yes, No) {
    static_assert(!std::is_arithmetic_v<Yes>,
                  "rwkv: select between two constants does not say which number they are: one of them must be R, as in "
                  "select(x > 0, R(1), 0)");
    return yes;
  }
};

/// A number that is never computed with. T is double; as a parameter it delays the sentence until a conversion is used.
/// In this namespace, where the operators for constants beside a number are looked for.
template <class T>
struct TrialNumber {
  /// Of one lane.
  using scalar = T;

  TrialNumber() = default;
  /// From a plain constant.
  template <class U>
  requires std::is_arithmetic_v<U> RWKV_HD TrialNumber(U) {}

  /// Fails to compile.
  RWKV_HD operator T() const {
    static_assert(
        !std::same_as<T, double>,
        "rwkv: a recurrence computes with R, which is no float and no double: its variables are R or auto, and "
        "it calls exp(x), not std::exp(x), and no function of the standard library");
    return T();
  }

  RWKV_HD friend TrialNumber operator+(TrialNumber, TrialNumber) { return {}; }
  RWKV_HD friend TrialNumber operator-(TrialNumber, TrialNumber) { return {}; }
  RWKV_HD friend TrialNumber operator*(TrialNumber, TrialNumber) { return {}; }
  RWKV_HD friend TrialNumber operator/(TrialNumber, TrialNumber) { return {}; }
  RWKV_HD friend TrialNumber operator-(TrialNumber) { return {}; }
  RWKV_HD friend TrialNumber& operator+=(TrialNumber& a, TrialNumber) { return a; }
  RWKV_HD friend TrialNumber& operator-=(TrialNumber& a, TrialNumber) { return a; }
  RWKV_HD friend TrialNumber& operator*=(TrialNumber& a, TrialNumber) { return a; }
  RWKV_HD friend TrialNumber& operator/=(TrialNumber& a, TrialNumber) { return a; }
  RWKV_HD friend TrialFlag operator<(TrialNumber, TrialNumber) { return {}; }
  RWKV_HD friend TrialFlag operator>(TrialNumber, TrialNumber) { return {}; }
  /// Fails to compile.
  template <class U>
  RWKV_HD friend bool operator<=(TrialNumber, const U&) {
    return compared_otherwise();
  }
  /// Fails to compile.
  template <class U>
  RWKV_HD friend bool operator>=(TrialNumber, const U&) {
    return compared_otherwise();
  }
  /// Fails to compile.
  template <class U>
  RWKV_HD friend bool operator==(TrialNumber, const U&) {
    return compared_otherwise();
  }
  /// As of the numbers of a backend.
  RWKV_HD friend TrialNumber select(TrialFlag, TrialNumber, TrialNumber) { return {}; }
  /// Of what fails to compile.
  template <std::same_as<bool> B>
  RWKV_HD friend TrialNumber select(B, TrialNumber, TrialNumber) {
    return {};
  }
  /// As of the numbers of a backend.
  RWKV_HD friend TrialNumber detach(TrialNumber) { return {}; }
  /// As of the numbers of a backend.
  RWKV_HD friend TrialNumber exp(TrialNumber) { return {}; }
  /// As of the numbers of a backend.
  RWKV_HD friend TrialNumber sqrt(TrialNumber) { return {}; }

 private:
  RWKV_HD static bool compared_otherwise() {
    static_assert(!std::same_as<T, double>, "rwkv: numbers of a recurrence compare by < and > alone");
    return false;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
