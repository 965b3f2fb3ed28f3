#pragma once
/// Tensors as files hold them: a name, a number type, a shape and bytes.
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
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One tensor: row-major, contiguous, little-endian, in blocks where it is quantised. The bytes belong to someone else and
/// need not be aligned.
struct TensorView {
  std::string name;                  ///< as the file calls it
  DType dtype = DType::f32;          ///< of its numbers
  std::vector<Index> shape;          ///< Outermost dimension first; empty for a single number.
  std::span<const std::byte> bytes;  ///< its numbers, the last axis contiguous
};

/// A tensor that a file lists, but whose numbers the library cannot read. It stands in nobody's way until it is wanted.
struct UnreadableTensor {
  std::string name;                         ///< as the file calls it
  std::optional<std::vector<Index>> shape;  ///< If the file tells it.
  std::string reason;                       ///< Goes on after "cannot be read: ".
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
/// As one of the metadata costs far more memory than its bytes in the file, the others are left out.
inline constexpr std::size_t max_metadata = 1000;

/// Why a tensor of more than max_rank dimensions cannot be read.
std::string too_many_dimensions(std::size_t rank);

/// Elements of a shape. Sizes of 0 do not excuse the others: the product without them must fit too, which keeps every
/// stride computed from the shape in range.
Checked count_elements(std::span<const Index> shape);

/// Whether the elements of that shape can be counted in an Index. One that fails is a lie, readable or not.
bool is_possible(std::span<const Index> shape);

bool same_sizes(std::span<const Index> a, std::span<const Index> b);

/// Bytes of a tensor of that shape; invalid when they do not fit into an Index, or when its rows are no whole blocks of
/// a quantised type.
Checked count_bytes(std::span<const Index> shape, DType dtype);

/// What a reader finds in a file.
struct TensorTable {
  std::vector<TensorView> tensors;
  std::vector<UnreadableTensor> unreadable;
  std::map<std::string, std::string> metadata;
  std::string entry;  ///< of the dictionary that holds the state dict, if it is not the outermost
};

/// The positions of the tensors, sorted by name.
std::vector<std::uint32_t> order_by_name(std::span<const TensorView> tensors);

/// Throws an Error that starts with `file` when two names, of what `kind` says, are equal.
void check_names_differ(std::vector<std::string_view> names, std::string_view file,
                        std::string_view kind = "tensor name");

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/tensor.ipp"
#endif
