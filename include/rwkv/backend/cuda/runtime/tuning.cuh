#pragma once
/// The tile and block sizes of matrix products, as functions of types and shapes.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// A product on FMA units. A block computes a tile [rows, cols] of the output, `depth` numbers of the sum at a time; a
/// thread computes [thread_rows, thread_cols] of the tile.
struct FmaTile {
  int rows, cols, depth, thread_rows, thread_cols;

  RWKV_HD constexpr int threads() const { return rows / thread_rows * (cols / thread_cols); }
};

/// bytes    of an accumulator
/// large    the output is large enough to occupy a device with large tiles, see fills_with
constexpr FmaTile fma_tile(int bytes, bool large) {
  if (large && bytes <= 4) return {.rows = 128, .cols = 128, .depth = 8, .thread_rows = 8, .thread_cols = 8};
  return {.rows = 64, .cols = 64, .depth = 16, .thread_rows = 4, .thread_cols = 4};
}

/// A product on tensor cores. A block of 8 warps computes a tile [rows, cols] of the output, 32 numbers of the sum at a
/// time; a warp computes [warp_rows, warp_cols] of the tile.
struct MmaTile {
  int rows, cols, warp_rows, warp_cols;

  RWKV_HD constexpr int threads() const { return rows / warp_rows * (cols / warp_cols) * 32; }
};

/// split    a factor has two 16-bit terms, so there is a second set of accumulators (see split.cuh)
/// large    as above
constexpr MmaTile mma_tile(bool split, bool large) {
  if (large && split) return {.rows = 128, .cols = 64, .warp_rows = 32, .warp_cols = 32};
  if (large) return {.rows = 128, .cols = 128, .warp_rows = 64, .warp_cols = 32};
  return {.rows = 64, .cols = 64, .warp_rows = 32, .warp_cols = 16};
}

/// A product of few rows. A block has 8 warps. A warp reads `outs` rows of w at once, with `deep` loads of 16 bytes in
/// flight for each. `staged` numbers of x lie in shared memory.
struct GemvSizes {
  static constexpr int threads = 256;
  int outs, deep, staged;
};

/// rows     of x that a block multiplies at once
/// bytes    of a staged number
/// The blocks of a multiprocessor keep 32 KB of weights or more in flight, as the largest devices need.
RWKV_HD constexpr GemvSizes gemv_sizes(int rows, int bytes) {
  if (rows == 1) return {.outs = 2, .deep = 4, .staged = 64 * 1024 / bytes};
  if (rows <= 4) return {.outs = 2, .deep = 2, .staged = 64 * 1024 / bytes};
  return {.outs = 4, .deep = 1, .staged = 64 * 1024 / bytes};
}

/// The number of warps that share a row of w: more than one where w has fewer rows than a large device has warps.
constexpr int gemv_split(Index outputs, Index depth) {
  int split = 1;
  while (split < 8 && outputs * split < 4096 && depth >= 512 * split) split *= 2;
  return split;
}

/// A product of 5 to 128 rows on tensor cores: a block of 8 warps computes `outs` outputs of each row.
struct SkinnySizes {
  static constexpr int threads = 256, outs = 32;
};

/// Whether an output has enough large tiles to give every multiprocessor of the largest devices one.
constexpr bool fills_with(const int (&tile)[2], Index rows, Index cols) {
  return ((rows + tile[0] - 1) / tile[0]) * ((cols + tile[1] - 1) / tile[1]) >= 128;
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
