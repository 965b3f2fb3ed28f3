#pragma once
/// What backends on the CPU do with quantised weights, exactly: the numbers of their rows, and products with those numbers.
#include <algorithm>
#include <span>

#include "rwkv/backend/operand.hpp"
#include "rwkv/core/block_formats.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/weights.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A backend that takes quantised weights: it also has gather_rows(table, tokens, to) with a StoredMat as the table.
template <class B>
concept TakesQuantised = requires(B& be, const StoredMat& table, std::span<const Token> tokens, Mat<float> to) {
  be.gather_rows(table, tokens, to);
};

namespace detail {

/// Calls visit(column, numbers, count) for the blocks of row r of quantised weights, from left to right.
template <class Visit>
void each_block(const StoredMat& w, Index r, const Visit& visit) {
  with_block(w.dtype, [&]<class Block>(Block) {
    const auto* blocks = reinterpret_cast<const Block*>(w.row(r));
    float numbers[Block::length];
    for (Index c = 0; c < w.cols; c += Block::length) {
      dequantise(blocks[c / Block::length], numbers);
      visit(c, static_cast<const float*>(numbers), Index{Block::length});
    }
  });
}

/// to[i] = table[rows[i]].
template <class T, Index N>
void gather_dequantised(const StoredMat& table, std::span<const Token> rows, Mat<T, N> to) {
  check_gather(Mat<const float>{nullptr, table.rows, table.cols, 0}, rows, to);
  for (Index r = 0; r < to.rows; ++r) {
    each_block(table, rows[static_cast<std::size_t>(r)],
               [&](Index c, const float* numbers, Index count) { std::copy_n(numbers, count, to.row(r) + c); });
  }
}

/// The outputs [begin, end) of y = x w^T, each the sum of its products from left to right, in T.
template <class T>
void multiply_dequantised(Mat<T> y, Mat<const T> x, const StoredMat& w, Index begin, Index end) {
  for (Index n = begin; n < end; ++n) {
    for (Index r = 0; r < y.rows; ++r) y(r, n) = T(0);
    each_block(w, n, [&](Index c, const float* numbers, Index count) {
      for (Index r = 0; r < y.rows; ++r) {
        T sum = y(r, n);
        for (Index k = 0; k < count; ++k) sum = sum + x(r, c + k) * static_cast<T>(numbers[k]);
        y(r, n) = sum;
      }
    });
  }
}

}  // namespace detail

/// to[i] = the row tokens[i] of a table of weights, widened.
/// Shapes    table: [vocab, width]   tokens: [tokens]   to: [tokens, width]
template <class B, class W, Index C, class T, Index N>
void gather_rows(B& be, Mat<W, C> table, std::span<const Token> tokens, Mat<T, N> to) {
  be.gather_rows(table, tokens, to);
}
/// Sets to[i] to row tokens[i] of the table, widened. table: [vocab, width]; to: [tokens, width].
template <class B, class T, Index N>
void gather_rows(B& be, const StoredMat& table, std::span<const Token> tokens, Mat<T, N> to) {
  if constexpr (TakesQuantised<B>) {
    if (is_quantised(table.dtype)) return be.gather_rows(table, tokens, to);
  }
  with_typed<T>(table, [&](auto typed) { be.gather_rows(typed, tokens, to); });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
