#pragma once
/// Non-owning views: a vector, a matrix, a batch of sequences. Row-major, last axis contiguous, trivially copyable.
#include <type_traits>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
template <class From, class To, Index N, Index M>
concept ViewConverts = std::is_convertible_v<From (*)[], To (*)[]> &&(N == M || M == dyn) &&
                       !(std::is_same_v<From, To> && N == M);
}

/// [size]
template <class T, Index N>
struct Vec {
  using element = T;
  T* data = nullptr;
  [[no_unique_address]] Extent<N> size{};  ///< how many

  RWKV_HD constexpr T& operator[](Index i) const { return data[i]; }

  template <class U, Index M>
  requires detail::ViewConverts<T, U, N, M> RWKV_HD constexpr operator Vec<U, M>() const { return {data, Index(size)}; }
};

/// [rows, cols]; consecutive rows are `stride` elements apart.
template <class T, Index C>
struct Mat {
  using element = T;
  T* data = nullptr;
  Index rows = 0;                          ///< how many
  [[no_unique_address]] Extent<C> cols{};  ///< how many
  Index stride = 0;                        ///< from row to row, in numbers

  RWKV_HD constexpr T* row(Index r) const { return data + r * stride; }
  RWKV_HD constexpr T& operator()(Index r, Index c) const { return data[r * stride + c]; }

  template <class U, Index M>
  requires detail::ViewConverts<T, U, C, M> RWKV_HD constexpr operator Mat<U, M>() const {
    return {data, rows, Index(cols), stride};
  }
};

/// [batch, time, width], contiguous.
template <class T, Index W>
struct Seq {
  using element = T;
  T* data = nullptr;
  Index batch = 0;                          ///< sequences
  Index time = 0;                           ///< tokens of each
  [[no_unique_address]] Extent<W> width{};  ///< channels

  RWKV_HD constexpr T* row(Index b, Index t) const { return data + (b * time + t) * Index(width); }
  RWKV_HD constexpr T& operator()(Index b, Index t, Index c) const { return row(b, t)[c]; }

  /// One row per token: [batch * time, width].
  RWKV_HD constexpr Mat<T, W> flat() const { return {data, batch * time, width, Index(width)}; }
  /// The token at time t of every sequence: [batch, width]. Null stays null, so a dry pass may call it.
  RWKV_HD constexpr Mat<T, W> at(Index t) const {
    return {data == nullptr ? nullptr : data + t * Index(width), batch, width, time * Index(width)};
  }

  template <class U, Index M>
  requires detail::ViewConverts<T, U, W, M> RWKV_HD constexpr operator Seq<U, M>() const {
    return {data, batch, time, Index(width)};
  }
};

/// Columns [begin, begin + count) of a matrix. Null stays null.
template <class T, Index C>
constexpr Mat<T> columns_of(Mat<T, C> m, Index begin, Index count) {
  return {m.data == nullptr ? nullptr : m.data + begin, m.rows, count, m.stride};
}

/// A contiguous [rows, cols] matrix over `data`.
template <class T>
constexpr Mat<T> matrix(T* data, Index rows, Index cols) {
  return {data, rows, cols, cols};
}

}  // namespace RWKV_ABI
}  // namespace rwkv
