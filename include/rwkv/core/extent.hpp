#pragma once
/// Sizes that are static (part of a type) or dynamic (a number), under one interface.
#include <cstddef>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Sizes, positions and counts: signed, so that differences and loops that run down need no care.
using Index = std::ptrdiff_t;

/// A size known only at run time.
inline constexpr Index dyn = -1;

/// A size: part of the type when N >= 0 (and then empty), stored when N is dyn.
template <Index N = dyn>
struct Extent {
  static_assert(N >= 0, "rwkv: a static extent must not be negative; use rwkv::dyn for a run-time size");
  constexpr Extent() = default;
  /// The size is that of the type, whatever is given.
  RWKV_HD constexpr Extent(Index) {}
  /// The size.
  RWKV_HD constexpr operator Index() const { return N; }
};

/// A size that is known at run time.
template <>
struct Extent<dyn> {
  constexpr Extent() = default;
  /// Of this size.
  RWKV_HD constexpr Extent(Index size) : value(size) {}
  /// The size.
  RWKV_HD constexpr operator Index() const { return value; }
  Index value = 0;  ///< the size
};

}  // namespace RWKV_ABI
}  // namespace rwkv
