#pragma once
/// Matrices with their axes exchanged, whatever their numbers are.
#include <cstddef>
#include <cstring>
#include <span>

#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Copies matrices [rows, cols] of elements of `size` bytes, one after the other, as matrices [cols, rows].
/// Aliasing  to must not overlap from; neither need be aligned
inline void transpose_matrices(const std::byte* from, std::size_t size, Index rows, Index cols,
                               std::span<std::byte> to) {
  const auto height = static_cast<std::size_t>(rows), width = static_cast<std::size_t>(cols);
  const std::size_t matrix = height * width * size;
  for (std::size_t begin = 0; begin < to.size(); begin += matrix) {
    for (std::size_t r = 0; r < height; ++r) {
      for (std::size_t c = 0; c < width; ++c) {
        std::memcpy(to.data() + begin + (c * height + r) * size, from + begin + (r * width + c) * size, size);
      }
    }
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
