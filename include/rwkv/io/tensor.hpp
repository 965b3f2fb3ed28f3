#pragma once
/// Tensors as files hold them: a name, a number type, a shape and bytes.
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/checked.hpp"
#include "rwkv/core/extent.hpp"

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

/// The number type of that safetensors name, if it is one of ours.
constexpr std::optional<DType> dtype_named(std::string_view name) {
  for (const auto& facts : detail::dtype_facts) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

/// One tensor: row-major, contiguous, little-endian. The bytes belong to someone else and need not be aligned.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape;  ///< Outermost dimension first; empty for a single number.
  std::span<const std::byte> bytes;
};

namespace detail {
/// Stands for a visitor where only types matter.
struct TensorVisitor {
  void operator()(const TensorView&) const;
};
}  // namespace detail

/// What hands out named tensors: a file, or memory.
template <class S>
concept TensorSource = requires(const S& source) {
  source.for_each(detail::TensorVisitor{});
};

namespace detail {

/// No file of a known model comes near these limits; they bound what a hostile file can cost.
inline constexpr std::size_t max_tensors = 100'000;
inline constexpr std::size_t max_rank = 8;

/// Elements of a shape. Sizes of 0 do not excuse the others: the product without them must fit too, which keeps every
/// stride computed from the shape in range.
Checked count_elements(std::span<const Index> shape);

/// Bytes of a tensor of that shape; invalid when they do not fit into an Index.
Checked count_bytes(std::span<const Index> shape, DType dtype);

/// What a reader finds in a file.
struct TensorTable {
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

/// The positions of the tensors, sorted by name.
std::vector<std::uint32_t> order_by_name(std::span<const TensorView> tensors);

/// Throws an Error that starts with `file` when two tensors have one name.
void check_names_differ(std::span<const TensorView> tensors, std::string_view file);

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/tensor.ipp"
#endif
