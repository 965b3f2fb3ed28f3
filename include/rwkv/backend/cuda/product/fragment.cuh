#pragma once
/// The register layout of the matrix instruction m16n8k16, d [16, 8] += a [16, 16] b [16, 8]: which element of a matrix
/// is which element of a lane. A register of a or b holds two elements, the first in its lower half.
#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

struct FragmentPlace {
  int row, col;
};

/// Element 0..7 of a, which is element % 2 of register element / 2.
RWKV_HD constexpr FragmentPlace place_in_a(int lane, int element) {
  return {lane / 4 + element / 2 % 2 * 8, lane % 4 * 2 + element % 2 + element / 4 * 8};
}
/// Element 0..3 of b.
RWKV_HD constexpr FragmentPlace place_in_b(int lane, int element) {
  return {lane % 4 * 2 + element % 2 + element / 2 * 8, lane / 4};
}
/// Element 0..3 of d, a register each.
RWKV_HD constexpr FragmentPlace place_in_d(int lane, int element) {
  return {lane / 4 + element / 2 * 8, lane % 4 * 2 + element % 2};
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
