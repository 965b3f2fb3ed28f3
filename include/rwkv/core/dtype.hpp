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

/// The number types of stored tensors, little-endian. Those from q4_0 on are quantised: a row is a sequence of blocks of
/// several numbers each, see block_formats.hpp.
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u8,
  boolean,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q4_k,
  q5_k,
  q6_k
};

namespace detail {

struct DTypeFacts {
  DType dtype;
  std::size_t size;
  int length;
  std::string_view name;
};

/// In the order of DType, so that the enumerator is the index.
inline constexpr std::array<DTypeFacts, 18> dtype_facts{{{DType::f64, 8, 1, "F64"},
                                                         {DType::f32, 4, 1, "F32"},
                                                         {DType::f16, 2, 1, "F16"},
                                                         {DType::bf16, 2, 1, "BF16"},
                                                         {DType::i64, 8, 1, "I64"},
                                                         {DType::i32, 4, 1, "I32"},
                                                         {DType::i16, 2, 1, "I16"},
                                                         {DType::i8, 1, 1, "I8"},
                                                         {DType::u8, 1, 1, "U8"},
                                                         {DType::boolean, 1, 1, "BOOL"},
                                                         {DType::q4_0, 18, 32, "Q4_0"},
                                                         {DType::q4_1, 20, 32, "Q4_1"},
                                                         {DType::q5_0, 22, 32, "Q5_0"},
                                                         {DType::q5_1, 24, 32, "Q5_1"},
                                                         {DType::q8_0, 34, 32, "Q8_0"},
                                                         {DType::q4_k, 144, 256, "Q4_K"},
                                                         {DType::q5_k, 176, 256, "Q5_K"},
                                                         {DType::q6_k, 210, 256, "Q6_K"}}};

}  // namespace detail

/// Bytes of one element, or of one block of a quantised type.
constexpr std::size_t size_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].size; }

/// Numbers in one block of a quantised type, 1 for the others.
constexpr int length_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].length; }

/// Whether the numbers are stored in blocks.
constexpr bool is_quantised(DType dtype) { return length_of(dtype) > 1; }

/// What the address of numbers of this type must be a multiple of.
constexpr std::size_t alignment_of(DType dtype) { return is_quantised(dtype) ? 2 : size_of(dtype); }

/// Bytes of `count` numbers, which are whole blocks where the type is quantised.
constexpr std::size_t bytes_of(DType dtype, std::size_t count) {
  return count / static_cast<std::size_t>(length_of(dtype)) * size_of(dtype);
}

/// The name, such as "F32": that of safetensors files, or of ggml for quantised types.
constexpr std::string_view name_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].name; }

/// The number type with this name in safetensors files, empty for a name that the library does not know.
constexpr std::optional<DType> dtype_named(std::string_view name) {
  for (const auto& facts : detail::dtype_facts) {
    if (facts.length == 1 && facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

/// The quantised type with this name of ggml, empty for any other name.
constexpr std::optional<DType> quantised_named(std::string_view name) {
  for (const auto& facts : detail::dtype_facts) {
    if (facts.length > 1 && facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

/// Whether the elements are floating-point numbers, one by one.
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
