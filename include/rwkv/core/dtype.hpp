#pragma once
/// The number types of stored tensors, by name at run time.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "rwkv/core/number.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The number types of stored tensors, little-endian.
enum class DType : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

namespace detail {

struct DTypeFacts {
  DType dtype;
  std::size_t size;
  std::string_view name;
};

/// In the order of DType, so that the enumerator is the index.
inline constexpr std::array<DTypeFacts, 10> dtype_facts{{{DType::f64, 8, "F64"},
                                                         {DType::f32, 4, "F32"},
                                                         {DType::f16, 2, "F16"},
                                                         {DType::bf16, 2, "BF16"},
                                                         {DType::i64, 8, "I64"},
                                                         {DType::i32, 4, "I32"},
                                                         {DType::i16, 2, "I16"},
                                                         {DType::i8, 1, "I8"},
                                                         {DType::u8, 1, "U8"},
                                                         {DType::boolean, 1, "BOOL"}}};

}  // namespace detail

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].size; }

/// The name in safetensors files, such as "F32".
constexpr std::string_view name_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].name; }

/// The number type with this safetensors name, empty for a name that the library does not know.
constexpr std::optional<DType> dtype_named(std::string_view name) {
  for (const auto& facts : detail::dtype_facts) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

/// Whether weights may have this type.
constexpr bool is_floating(DType dtype) { return dtype <= DType::bf16; }

/// The number type of a C++ type in a file.
template <class T>
constexpr DType dtype_of() {
  static_assert(
      std::is_same_v<T, double> || std::is_same_v<T, float> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>,
      "rwkv: files hold weights as double, float, f16 or bf16");
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  else if constexpr (std::is_same_v<T, float>) return DType::f32;
  else if constexpr (std::is_same_v<T, f16>) return DType::f16;
  else return DType::bf16;
}

/// Calls f(T{}) with the C++ type of a floating-point dtype, and returns false for any other.
template <class F>
bool with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: f(double{}); return true;
    case DType::f32: f(float{}); return true;
    case DType::f16: f(f16{}); return true;
    case DType::bf16: f(bf16{}); return true;
    default: return false;
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
