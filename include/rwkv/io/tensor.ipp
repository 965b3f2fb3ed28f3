#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

RWKV_BODY std::string too_many_dimensions(std::size_t rank) {
  return join("it has ", rank, " dimensions, more than ", max_rank, "; reshape it before saving");
}

RWKV_BODY Checked count_elements(std::span<const Index> shape) {
  Checked product = 1;
  bool empty = false;
  for (const Index size : shape) {
    if (size == 0) empty = true;
    else product = product * size;
  }
  const bool fits = product.at_most(static_cast<std::uint64_t>(std::numeric_limits<Index>::max()));
  return empty && fits ? Checked(0) : product;
}

RWKV_BODY bool same_sizes(std::span<const Index> a, std::span<const Index> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

RWKV_BODY bool is_possible(std::span<const Index> shape) {
  return count_elements(shape).at_most(static_cast<std::uint64_t>(std::numeric_limits<Index>::max()));
}

RWKV_BODY Checked count_bytes(std::span<const Index> shape, DType dtype) {
  const auto length = static_cast<Index>(length_of(dtype));
  if (length > 1 && (shape.empty() || shape.back() % length != 0)) return Checked(-1);
  const Checked elements = count_elements(shape);
  if (!elements.valid()) return elements;
  const Checked bytes = Checked(elements.to<std::uint64_t>() / static_cast<std::uint64_t>(length)) * size_of(dtype);
  return bytes.at_most(static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) ? bytes : Checked(-1);
}

RWKV_BODY std::vector<std::uint32_t> order_by_name(std::span<const TensorView> tensors) {
  std::vector<std::uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return tensors[a].name < tensors[b].name; });
  return order;
}

RWKV_BODY void check_names_differ(std::vector<std::string_view> names, std::string_view file, std::string_view kind) {
  std::sort(names.begin(), names.end());
  const auto same = std::adjacent_find(names.begin(), names.end());
  if (same != names.end()) fail(file, ": the ", kind, " ", in_quotes(*same), " occurs twice");
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
