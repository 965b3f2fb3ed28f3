#pragma once
/// Matrix products on FMA units, for all types. A block computes a tile of the output; for each stretch of the depth:
///
/// 1. Every thread loads its share of the next stretch of both factors into registers.
/// 2. It multiplies the present stretch from shared memory into its own small tile of sums.
/// 3. It stores the next stretch into the other of two shared buffers, and the block meets at a barrier.
///
/// Then every thread stores its sums through the epilogue.
#include "rwkv/backend/cuda/product/gemm_operand.cuh"
#include "rwkv/backend/cuda/runtime/tuning.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// A thread's share of a stretch [outer, depth] of a factor, on its way from global to shared memory. In shared
/// memory it is [depth][outer], in the accumulator type A.
template <class A, class F, int outer, int depth, int threads>
class FmaStage {
 public:
  static constexpr int row = outer + 4;  ///< elements from one k to the next: keeps alignment, spreads banks

  __device__ __forceinline__ void load(const F& factor, int first, int first_k, int thread) {
    RWKV_KERNEL_UNROLL for (int i = 0; i < count; ++i) {
      const Place to = place(thread + i * threads);
      pieces_[i] = factor.template load<4>(first + to.at, first_k + to.k);
    }
  }
  __device__ __forceinline__ void store(SharedElement<A>* tile, int thread) const {
    RWKV_KERNEL_UNROLL for (int i = 0; i < count; ++i) {
      const Place to = place(thread + i * threads);
      SharedElement<A>* first = tile + to.k * row + to.at;
      if constexpr (F::along == Along::depth) {
        RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) first[j * row] = widen<A>(pieces_[i].v[j]);
      } else {
        Piece<A, 4> wide;
        RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) wide.v[j] = widen<A>(pieces_[i].v[j]);
        store_shared(first, wide);
      }
    }
  }

 private:
  static constexpr int count = outer * depth / 4 / threads;
  static_assert(count * threads * 4 == outer * depth);

  struct Place {
    int at, k;
  };
  static __device__ __forceinline__ Place place(int piece) {
    if constexpr (F::along == Along::depth) return {piece / (depth / 4), piece % (depth / 4) * 4};
    else return {piece % (outer / 4) * 4, piece / (outer / 4)};
  }

  Piece<typename F::element, 4> pieces_[count];
};

/// y = x w^T in the accumulator type of the output. Sums run in the order of k.
template <bool large, class X, class W, class Y>
struct FmaProduct {
  using A = typename Y::scalar;
  static constexpr FmaTile tile = fma_tile(sizeof(A), large);
  static constexpr int threads = tile.threads(), resident = 2;
  static constexpr std::size_t shared_bytes = 0;

  X x;
  W w;
  Y y;

  __device__ __forceinline__ void run_block(unsigned block) const;
};

template <bool large, class X, class W, class Y>
__device__ __forceinline__ void FmaProduct<large, X, W, Y>::run_block(unsigned block) const {
  constexpr int depth = tile.depth;
  constexpr int high = tile.thread_rows / 4, wide = tile.thread_cols / 4;
  constexpr int down = tile.rows / high,
                across = tile.cols / wide;  // from one group of 4 rows or columns of a thread to its next
  FmaStage<A, X, tile.rows, depth, threads> x_stage;
  FmaStage<A, W, tile.cols, depth, threads> w_stage;
  alignas(16) __shared__ SharedElement<A> x_tiles[2][depth * x_stage.row];
  alignas(16) __shared__ SharedElement<A> w_tiles[2][depth * w_stage.row];

  const int thread = static_cast<int>(threadIdx.x);
  const int first_row = thread / (across / 4) * 4, first_col = thread % (across / 4) * 4;
  const TilePlace place =
      TilePlace::of(block, (y.rows + tile.rows - 1) / tile.rows, (y.cols + tile.cols - 1) / tile.cols);
  const int row = place.row * tile.rows, col = place.col * tile.cols;

  A sums[tile.thread_rows][tile.thread_cols] = {};
  if (x.depth > 0) {
    x_stage.load(x, row, 0, thread);
    w_stage.load(w, col, 0, thread);
    x_stage.store(x_tiles[0], thread);
    w_stage.store(w_tiles[0], thread);
  }
  int now = 0;
  for (int k = 0; k < x.depth; k += depth) {
    __syncthreads();
    const bool more = k + depth < x.depth;
    if (more) {
      x_stage.load(x, row, k + depth, thread);
      w_stage.load(w, col, k + depth, thread);
    }
    RWKV_KERNEL_UNROLL for (int d = 0; d < depth; ++d) {
      Piece<A, 4> a[high], b[wide];
      RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
        a[i] = load_shared<A, 4>(x_tiles[now] + d * x_stage.row + first_row + i * down);
      }
      RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
        b[j] = load_shared<A, 4>(w_tiles[now] + d * w_stage.row + first_col + j * across);
      }
      RWKV_KERNEL_UNROLL for (int i = 0; i < tile.thread_rows; ++i) {
        RWKV_KERNEL_UNROLL for (int j = 0; j < tile.thread_cols; ++j) sums[i][j] +=
            a[i / 4].v[i % 4] * b[j / 4].v[j % 4];
      }
    }
    now ^= 1;
    if (more) {
      x_stage.store(x_tiles[now], thread);
      w_stage.store(w_tiles[now], thread);
    }
  }
  RWKV_KERNEL_UNROLL for (int i = 0; i < tile.thread_rows; ++i) {
    RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
      A four[4];
      RWKV_KERNEL_UNROLL for (int l = 0; l < 4; ++l) four[l] = sums[i][j * 4 + l];
      y.store(row + i / 4 * down + first_row + i % 4, col + j * across + first_col, four);
    }
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
