#pragma once
/// The sizes that kernels are compiled and launched with, as functions of what they depend on.
#include "rwkv/backend/cuda/runtime/platform.cuh"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// A product on FMA units: a block computes a tile [rows, cols] of the output, a stretch of `depth` at a time, a thread
/// [thread_rows, thread_cols] of it.
struct FmaTile {
  int rows, cols, depth, thread_rows, thread_cols;

  RWKV_HD constexpr int threads() const { return rows / thread_rows * (cols / thread_cols); }
};

/// `bytes`: of the number that is added up in. `large`: the output fills a device with large tiles.
constexpr FmaTile fma_tile(int bytes, bool large) {
  if (large && bytes <= 4) return {.rows = 128, .cols = 128, .depth = 8, .thread_rows = 8, .thread_cols = 8};
  return {.rows = 64, .cols = 64, .depth = 16, .thread_rows = 4, .thread_cols = 4};
}

/// A product on tensor cores: a block of 8 warps computes a tile [rows, cols] of the output, 32 of the depth at a time,
/// a warp [warp_rows, warp_cols] of it.
struct MmaTile {
  int rows, cols, warp_rows, warp_cols;

  RWKV_HD constexpr int threads() const { return rows / warp_rows * (cols / warp_cols) * 32; }
};

/// `split`: a factor is the sum of two, and the sums of a stretch are added to others. `large` as above.
constexpr MmaTile mma_tile(bool split, bool large) {
  if (large && split) return {.rows = 128, .cols = 64, .warp_rows = 32, .warp_cols = 32};
  if (large) return {.rows = 128, .cols = 128, .warp_rows = 64, .warp_cols = 32};
  return {.rows = 64, .cols = 64, .warp_rows = 32, .warp_cols = 16};
}

/// A product of few rows: a block of 8 warps, each with `outs` rows of w at once and `deep` loads of 16 bytes of each
/// on their way, and `staged` numbers of x in shared memory.
struct GemvSizes {
  static constexpr int threads = 256;
  int outs, deep, staged;
};

/// `rows` of x at once; `bytes` of a number of them. The blocks of an SM have 32 KB of weights or more on their
/// way, what the largest devices need.
RWKV_HD constexpr GemvSizes gemv_sizes(int rows, int bytes) {
  if (rows == 1) return {.outs = 2, .deep = 4, .staged = 64 * 1024 / bytes};
  if (rows <= 4) return {.outs = 2, .deep = 2, .staged = 64 * 1024 / bytes};
  return {.outs = 4, .deep = 1, .staged = 64 * 1024 / bytes};
}

/// The warps that share a row of w, where there are too few rows to give every warp of a device its own.
constexpr int gemv_split(Index outputs, Index depth) {
  int split = 1;
  while (split < 8 && outputs * split < 4096 && depth >= 512 * split) split *= 2;
  return split;
}

/// A product of some rows on tensor cores: a block of 8 warps computes `outs` outputs of each.
struct SkinnySizes {
  static constexpr int threads = 256, outs = 32;
};

/// Whether an output is large enough for large tiles: they leave none of the largest devices without one.
constexpr bool fills_with(const int (&tile)[2], Index rows, Index cols) {
  return ((rows + tile[0] - 1) / tile[0]) * ((cols + tile[1] - 1) / tile[1]) >= 128;
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
