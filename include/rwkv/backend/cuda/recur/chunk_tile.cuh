#pragma once
/// Small products of matrices in shared memory, and how a head is cut for them: what the kernels of chunks share.
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/operand.hpp"
#include "rwkv/backend/transition.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Rows are padded with zeros to a multiple of this, so that they are read by vector accesses.
inline constexpr int chunk_pad = 4;
/// Lanes, or components, of a head that a block takes at most.
inline constexpr int chunk_slice = 64;
/// Numbers at the end of a row in shared memory that nobody uses: they spread columns over the banks.
inline constexpr int chunk_spare = 4;
/// Dynamic shared memory of a block at most: two blocks fit on a multiprocessor of compute capability 8.0.
inline constexpr Index chunk_shared_bytes = 81 * 1024;

RWKV_HD constexpr int padded(Index size) { return (static_cast<int>(size) + chunk_pad - 1) / chunk_pad * chunk_pad; }

/// The length of the slices that a head is cut into: equal, and as long as shared memory has room for
/// Layout::numbers(size, slice) numbers.
template <class Layout>
RWKV_HD constexpr int slice_of(int size, int bytes) {
  int slices = (size + chunk_slice - 1) / chunk_slice;
  int slice = padded((size + slices - 1) / slices);
  while (slice > chunk_pad && Layout::numbers(size, slice) * bytes > chunk_shared_bytes) {
    slices *= 2;
    slice = padded((size + slices - 1) / slices);
  }
  return slice;
}

/// Tokens in a chunk: a long head leaves room for fewer.
template <class T>
RWKV_HD constexpr int chunk_tokens(Index size) {
  const Index bytes = padded(size) * static_cast<Index>(sizeof(T));
  return bytes <= 512 ? 16 : bytes <= 1024 ? 8 : 4;
}

/// Calls f(integral_constant<int, chunk_tokens<T>(size)>).
template <class T, Index N, class F>
void with_chunk_tokens(Extent<N> size, const F& f) {
  if constexpr (N != dyn) {
    f(std::integral_constant<int, chunk_tokens<T>(N)>{});
  } else {
    constexpr int fewest = chunk_tokens<T>(max_head_size);
    const int tokens = chunk_tokens<T>(size);
    if (tokens == 16) return f(std::integral_constant<int, 16>{});
    if constexpr (fewest < 8) {
      if (tokens < 8) return f(std::integral_constant<int, fewest>{});
    }
    f(std::integral_constant<int, 8>{});
  }
}

inline void check_chunk(Index chunk) { expects(chunk > 0, "rwkv: a chunk needs at least one token, not ", chunk); }

/// A padded length, a constant where the length is; `fixed` is 0 where it is not.
template <Index N>
struct PaddedSize {
  static constexpr int fixed = padded(N);
  RWKV_HD constexpr PaddedSize(Index) {}
  RWKV_HD constexpr operator int() const { return fixed; }
};
template <>
struct PaddedSize<dyn> {
  static constexpr int fixed = 0;
  int value;
  RWKV_HD constexpr PaddedSize(Index size) : value(padded(size)) {}
  RWKV_HD constexpr operator int() const { return value; }
};

/// Calls visit(integral_constant<TokenPart::Name>, operand) for the inputs of a cell and the cotangent of its output; with
/// `gradients`, for the operands that receive the gradients of the inputs.
template <class C, bool gradients, class Visit, std::size_t... Nth, class... Op>
RWKV_HD void each_part(std::index_sequence<Nth...>, const Visit& visit, const Op&... ops) {
  constexpr std::size_t inputs = 1 + detail::shared_count<C>;
  const auto one = [&](auto nth, const auto& op) {
    constexpr std::size_t n = decltype(nth)::value;
    if constexpr (gradients && n > inputs) {
      visit(std::integral_constant<detail::TokenPart::Name, detail::part_of<C>(n - inputs - 1)>{}, op);
    } else if constexpr (!gradients && (n < inputs || detail::is_cot<std::remove_cvref_t<decltype(op)>>)) {
      visit(std::integral_constant<detail::TokenPart::Name, detail::part_of<C>(n)>{}, op);
    }
  };
  (one(std::integral_constant<std::size_t, Nth>{}, ops), ...);
}

/// Four neighbouring numbers of T, in shared or in global memory.
template <class T, class E>
__device__ __forceinline__ detail::Piece<T, 4> load_four(const E* from) {
  if constexpr (std::is_same_v<E, T>) return detail::load_piece<4>(from);  // without the emulator, shared memory too
  else return detail::load_shared<T, 4>(from);
}

/// sums[i] += the sum over k of x[i * x_step + k] w[k * w_row], in four neighbouring columns of w.
template <int Rows, class T, class X, class W>
__device__ __forceinline__ void multiply_rows(T (&sums)[Rows][4], const X* x, int x_step, const W* w, int w_row,
                                              int terms) {
  for (int k = 0; k < terms; k += 4) {
    detail::Piece<T, 4> xs[Rows], ws[4];
    RWKV_KERNEL_UNROLL for (int i = 0; i < Rows; ++i) xs[i] = load_four<T>(x + i * x_step + k);
    RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) ws[j] = load_four<T>(w + (k + j) * w_row);
    RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) {
      RWKV_KERNEL_UNROLL for (int i = 0; i < Rows; ++i) {
        RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) sums[i][c] += xs[i].v[j] * ws[j].v[c];
      }
    }
  }
}

/// sums[i][j] += x_i . w_j, where x_i begins at x[i * x_step] and w_j at w[j * w_step].
template <class T, class E>
__device__ __forceinline__ void multiply_pairs(T (&sums)[4][4], const E* x, int x_step, const E* w, int w_step,
                                               int terms) {
  for (int k = 0; k < terms; k += 4) {
    detail::Piece<T, 4> xs[4], ws[4];
    RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) xs[i] = load_four<T>(x + i * x_step + k);
    RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) ws[j] = load_four<T>(w + j * w_step + k);
    RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) {
      RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) {
        RWKV_KERNEL_UNROLL for (int n = 0; n < 4; ++n) sums[i][j] += xs[i].v[n] * ws[j].v[n];
      }
    }
  }
}

/// Copies the rows of `Tokens` tokens to shared memory, widened, [token, padded]. row_of(i) is the row of the i-th token
/// in global memory, null outside the sequence. What is not there, outside the sequence or behind `count` numbers, is
/// `missing`.
template <int Tokens, class T, class E, class RowOf>
__device__ __forceinline__ void copy_rows(E* to, int to_row, int padded_count, Index count, T missing,
                                          const RowOf& row_of) {
  const auto threads = static_cast<int>(blockDim.x);
  for (int at = static_cast<int>(threadIdx.x); at < Tokens * padded_count; at += threads) {
    const int i = at / padded_count, n = at % padded_count;
    const auto* const row = row_of(i);
    to[i * to_row + n] = row != nullptr && n < count ? widen<T>(row[n]) : missing;
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
