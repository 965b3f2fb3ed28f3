#pragma once
/// The parts that the operands of a row cell play in its declared transition, for what runs it in chunks of time.
#include "rwkv/cell/concept.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The vectors of a token.
struct TokenPart {
  enum Name { read, decay, write, a, b, bonus, value, cotangent, count };
};

/// The part that an operand of a cell plays: its input is the value, the shared vectors are named by the transition, and
/// the cotangent of the output may follow.
template <class C>
RWKV_HD constexpr TokenPart::Name part_of(std::size_t operand) {
  if (operand == 0) return TokenPart::value;
  const int vector = static_cast<int>(operand) - 1;
  if (vector == C::transition.read) return TokenPart::read;
  if (vector == C::transition.decay) return TokenPart::decay;
  if (vector == C::transition.write) return TokenPart::write;
  if constexpr (declares<C, DiagonalPlusRankOne>) {
    if (vector == C::transition.a) return TokenPart::a;
    if (vector == C::transition.b) return TokenPart::b;
  } else {
    if (vector == C::transition.bonus) return TokenPart::bonus;
  }
  return TokenPart::cotangent;
}

template <class C>
inline constexpr bool is_rank_one = declares<C, DiagonalPlusRankOne>;

template <class C>
inline constexpr bool reads_after_update = C::transition.reads == Reads::after_update;

template <class C>
RWKV_HD constexpr bool has_bonus() {
  if constexpr (declares<C, Diagonal>) return C::transition.bonus != no_vector;
  else return false;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
