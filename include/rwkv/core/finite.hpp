#pragma once
/// Whether a number is finite, NaN or in a range, asked of its bits: flags that let a compiler assume that there is no
/// NaN (clang's -fno-honor-nans) remove comparisons that look for one.
#include <cstdint>

#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Whether it is neither infinite nor a NaN.
RWKV_HD constexpr bool is_finite(float x) { return (detail::bits_as<std::uint32_t>(x) & 0x7f800000u) != 0x7f800000u; }
/// Whether it is neither infinite nor a NaN.
RWKV_HD constexpr bool is_finite(double x) {
  constexpr std::uint64_t exponent = 0x7ff0'0000'0000'0000u;
  return (detail::bits_as<std::uint64_t>(x) & exponent) != exponent;
}
/// Whether it is neither infinite nor a NaN.
RWKV_HD constexpr bool is_finite(bf16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }
/// Whether it is neither infinite nor a NaN.
RWKV_HD constexpr bool is_finite(f16 x) { return (x.bits & 0x7c00u) != 0x7c00u; }

/// Whether it is a NaN.
RWKV_HD constexpr bool is_nan(float x) { return (detail::bits_as<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u; }
/// Whether it is a NaN.
RWKV_HD constexpr bool is_nan(double x) {
  return (detail::bits_as<std::uint64_t>(x) & 0x7fff'ffff'ffff'ffffu) > 0x7ff0'0000'0000'0000u;
}

/// Whether low <= x <= high; false for a NaN, also where a compiler turns !(x >= low) into x < low.
RWKV_HD constexpr bool is_between(double x, double low, double high) { return !is_nan(x) && low <= x && x <= high; }

}  // namespace RWKV_ABI
}  // namespace rwkv
