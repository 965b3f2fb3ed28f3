#pragma once
/// Heads: equal groups of channels.
#include "rwkv/core/dims.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The sizes with heads of 64 channels, unless they or the static sizes D say otherwise.
template <class D>
constexpr ModelSizes with_heads(ModelSizes sizes) {
  if (sizes.head_size == 0 && D::static_heads == dyn) sizes.head_size = 64;
  return sizes;
}

/// The size of a head, static where width and number of heads are.
template <class D>
constexpr auto head_extent(const D& dims) {
  if constexpr (D::static_head_size == dyn) return Extent<dyn>(dims.head_size());
  else return Extent<D::static_head_size>{};
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
