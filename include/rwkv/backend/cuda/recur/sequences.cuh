#pragma once
/// Which tokens belong to which sequence: sequences of one length, or packed ones of different lengths.
///
/// Kernels cut a sequence into parts of equal length (tiles of a scan, runs between kept states). Every part has a
/// slot: a number for its place in scratch memory.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/backend/recur_back.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The tokens [begin, end) of batch row b.
struct Span {
  Index b, begin, end;
};

/// Part n of sequence s.
struct Place {
  Index s, n;
};

/// Sequences of one length, in parts of `per` tokens. Slots: the first part of every sequence, then the second parts.
struct Whole {
  static constexpr bool long_tiles = true;  ///< a scan may take long tiles
  Index batch, time;
  RWKV_HD Index count() const { return batch; }
  RWKV_HD Span operator[](Index s) const { return {s, 0, time}; }
  RWKV_HD Index slots(Index per) const { return (time + per - 1) / per * batch; }
  RWKV_HD Index slot(Place place, Index) const { return place.n * batch + place.s; }
  RWKV_HD Place place(Index slot, Index) const { return {slot % batch, slot / batch}; }
};

/// Packed sequences, one after the other in batch row 0: sequence s has the tokens [starts[s], starts[s + 1]).
/// Slots: the parts of a sequence follow each other; some slots stay empty.
template <class I>
struct Packed {
  static constexpr bool long_tiles = false;  ///< to find the place of a tile takes the registers
  const I* starts;
  Index sequences, tokens;
  RWKV_HD Index count() const { return sequences; }
  RWKV_HD Span operator[](Index s) const {
    return {0, static_cast<Index>(starts[s]), static_cast<Index>(starts[s + 1])};
  }
  RWKV_HD Index slots(Index per) const { return tokens / per + sequences; }
  RWKV_HD Index slot(Place place, Index per) const {
    return static_cast<Index>(starts[place.s]) / per + place.s + place.n;
  }
  /// Binary search for the last sequence whose first slot is not behind `at`.
  RWKV_HD Place place(Index at, Index per) const {
    Index low = 0, high = sequences;
    while (high - low > 1) {
      const Index middle = (low + high) / 2;
      if (slot({middle, 0}, per) <= at) low = middle;
      else high = middle;
    }
    return {low, at - slot({low, 0}, per)};
  }
};

/// The same view with all sizes dynamic.
template <class T, Index M>
constexpr Mat<T> dynamic(const Mat<T, M>& matrix) {
  return {matrix.data, matrix.rows, Index(matrix.cols), matrix.stride};
}

template <class... Op>
consteval bool explain_packed() {
  static_assert((!detail::is_prev<Op> && ...),
                "rwkv: packed sequences have no token before; give the recurrence in(...)");
  return true;
}

inline void check_one_row(Index batch) { asserts(batch == 1, "rwkv: packed sequences lie in one row, not in ", batch); }

/// Checks the operands of packed sequences: one row of tokens, a state for each sequence.
template <class C, class T, Index M, class... Op>
void check_packed(Index length, const Mat<T, M>& state, const Op&... ops) {
  const auto y = detail::written(ops...);
  check_one_row(y.batch);
  auto one = state;
  one.rows = 1;
  detail::check_recur<C>(length, one, ops...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
