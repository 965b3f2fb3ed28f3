#pragma once
/// Matrix products on tensor cores. A block of 8 warps computes a tile of the output; for each 32 numbers of the depth:
///
/// 1. Every thread loads its share of the next stretch of both factors into registers.
/// 2. Every warp multiplies the present stretch from shared memory into its own tile of sums.
/// 3. Every thread stores the next stretch, split into 16-bit terms (split.cuh), into the other of two shared buffers;
///    the block meets at a barrier.
///
/// Then every thread stores its sums through the epilogue.
#include "rwkv/backend/cuda/product/fragment.cuh"
#include "rwkv/backend/cuda/product/split.cuh"
#include "rwkv/backend/cuda/runtime/tuning.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The layout of a stretch [outer, 32] of a factor in shared memory. A row is 4 chunks of 8 neighbours in k: 16
/// words of two numbers. Each 16-bit term has its own array. Chunks are permuted from row to row, to spread banks.
///
/// A thread reads chunk lane % 4 of a row by one access and feeds it to two matrix instructions. That permutes k, in
/// both factors alike.
struct MmaRows {
  static constexpr int depth = 32, words = depth / 2;

  /// The word of row `at` that holds k = 2 * pair and 2 * pair + 1.
  static __device__ __forceinline__ int word(int at, int pair) {
    return at * words + ((pair / 4 ^ at / 4) % 4) * 4 + pair % 4;
  }
};

/// A thread's share of a stretch, on its way from global to shared memory: 8 numbers at a time. These are a chunk of a
/// row, or two k of 4 rows where rows are neighbours in memory.
template <class T, int terms, class F, int outer, int threads>
class MmaStage {
 public:
  static constexpr int words = outer * MmaRows::words;  ///< of one term

  __device__ __forceinline__ void load(const F& factor, int first, int first_k, int thread) {
    RWKV_KERNEL_UNROLL for (int i = 0; i < count; ++i) {
      const Place from = place(thread + i * threads);
      RWKV_KERNEL_UNROLL for (int j = 0; j < pieces; ++j) {
        pieces_[i][j] = factor.template load<8 / pieces>(first + from.at, first_k + from.k + (deep ? 0 : j));
      }
    }
  }
  __device__ __forceinline__ void store(SharedElement<unsigned>* tile, int thread) const {
    RWKV_KERNEL_UNROLL for (int i = 0; i < count; ++i) {
      const Place to = place(thread + i * threads);
      unsigned split[4][terms];
      RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) {
        if constexpr (deep) split_pair<T>(pieces_[i][0].v[2 * j], pieces_[i][0].v[2 * j + 1], split[j]);
        else split_pair<T>(pieces_[i][0].v[j], pieces_[i][pieces - 1].v[j], split[j]);
      }
      RWKV_KERNEL_UNROLL for (int term = 0; term < terms; ++term) {
        if constexpr (deep) {
          Piece<unsigned, 4> chunk;
          RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) chunk.v[j] = split[j][term];
          store_shared(tile + term * words + MmaRows::word(to.at, to.k / 2), chunk);
        } else {
          RWKV_KERNEL_UNROLL for (int j = 0; j < 4; ++j) {
            tile[term * words + MmaRows::word(to.at + j, to.k / 2)] = split[j][term];
          }
        }
      }
    }
  }

 private:
  static constexpr bool deep = F::along == Along::depth;
  static constexpr int pieces = deep ? 1 : 2, count = outer * MmaRows::depth / 8 / threads;
  static_assert(count * threads * 8 == outer * MmaRows::depth);

  struct Place {
    int at, k;
  };
  static __device__ __forceinline__ Place place(int unit) {
    if constexpr (deep) return {unit / 4, unit % 4 * 8};
    else return {unit % (outer / 4) * 4, unit / (outer / 4) * 2};
  }

  Piece<typename F::element, 8 / pieces> pieces_[count][pieces];
};

/// y = x w^T. Sums run in the order of k, 32 at a time. Tensor cores truncate when they accumulate; with split
/// factors a stretch is therefore summed from zero and then added by an FMA unit.
template <bool large, class X, class W, class Y>
struct MmaProduct {
  using Terms = MmaTerms<typename X::element, typename W::element>;
  static constexpr bool split = Terms::x > 1;
  static constexpr MmaTile tile = mma_tile(split, large);
  static constexpr int threads = tile.threads(), resident = 0;  // see work.cuh
  static constexpr std::size_t shared_bytes =
      2 * sizeof(unsigned) * MmaRows::words * (tile.rows * Terms::x + tile.cols * Terms::w);

  X x;
  W w;
  Y y;

  __device__ __forceinline__ void run_block(unsigned block) const;
};

template <bool large, class X, class W, class Y>
__device__ __forceinline__ void MmaProduct<large, X, W, Y>::run_block(unsigned block) const {
  using T = typename Terms::number;
  constexpr int depth = MmaRows::depth;
  constexpr int high = tile.warp_rows / 16, wide = tile.warp_cols / 8;
  MmaStage<T, Terms::x, X, tile.rows, threads> x_stage;
  MmaStage<T, Terms::w, W, tile.cols, threads> w_stage;
  constexpr int x_words = Terms::x * x_stage.words, words = x_words + Terms::w * w_stage.words;
  SharedElement<unsigned>* const tiles = detail::dynamic_shared<unsigned>();

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / (tile.cols / tile.warp_cols) * tile.warp_rows;
  const int warp_col = warp % (tile.cols / tile.warp_cols) * tile.warp_cols;
  const TilePlace place =
      TilePlace::of(block, (y.rows + tile.rows - 1) / tile.rows, (y.cols + tile.cols - 1) / tile.cols);
  const int row = place.row * tile.rows, col = place.col * tile.cols;

  float sums[high][wide][4] = {};
  if (x.depth > 0) {
    x_stage.load(x, row, 0, thread);
    w_stage.load(w, col, 0, thread);
    x_stage.store(tiles, thread);
    w_stage.store(tiles + x_words, thread);
  }
  int now = 0;
  for (int k = 0; k < x.depth; k += depth) {
    __syncthreads();
    const bool more = k + depth < x.depth;
    if (more) {
      x_stage.load(x, row, k + depth, thread);
      w_stage.load(w, col, k + depth, thread);
    }
    const SharedElement<unsigned>* const x_tile = tiles + now * words;
    const SharedElement<unsigned>* const w_tile = x_tile + x_words;
    float stretch[high][wide][4];
    RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
      RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
        RWKV_KERNEL_UNROLL for (int l = 0; l < 4; ++l) stretch[i][j][l] = split ? 0.0f : sums[i][j][l];
      }
    }
    RWKV_KERNEL_UNROLL for (int x_term = 0; x_term < Terms::x; ++x_term) {
      Piece<unsigned, 4> a[high][2];
      RWKV_KERNEL_UNROLL for (int i = 0; i < 2 * high; ++i) {
        const int at = warp_row + i * 8 + lane / 4;
        a[i / 2][i % 2] = load_shared<unsigned, 4>(x_tile + x_term * x_stage.words + MmaRows::word(at, lane % 4 * 4));
      }
      RWKV_KERNEL_UNROLL for (int w_term = 0; w_term < Terms::w && x_term + w_term < 2; ++w_term) {
        RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
          const int at = warp_col + j * 8 + lane / 4;
          const auto b = load_shared<unsigned, 4>(w_tile + w_term * w_stage.words + MmaRows::word(at, lane % 4 * 4));
          RWKV_KERNEL_UNROLL for (int step = 0; step < 4; step += 2) {
            const unsigned right[2] = {b.v[step], b.v[step + 1]};
            RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
              const unsigned left[4] = {a[i][0].v[step], a[i][1].v[step], a[i][0].v[step + 1], a[i][1].v[step + 1]};
              detail::mma_m16n8k16_warp<T>(stretch[i][j], left, right);
            }
          }
        }
      }
    }
    RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
      RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
        RWKV_KERNEL_UNROLL for (int l = 0; l < 4; ++l) sums[i][j][l] =
            split ? sums[i][j][l] + stretch[i][j][l] : stretch[i][j][l];
      }
    }
    now ^= 1;
    if (more) {
      x_stage.store(tiles + now * words, thread);
      w_stage.store(tiles + now * words + x_words, thread);
    }
  }
  RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
    RWKV_KERNEL_UNROLL for (int j = 0; j < wide; ++j) {
      RWKV_KERNEL_UNROLL for (int half = 0; half < 2; ++half) {
        const detail::FragmentPlace at = detail::place_in_d(lane, 2 * half);
        const float pair[2] = {sums[i][j][2 * half], sums[i][j][2 * half + 1]};
        y.store(row + warp_row + i * 16 + at.row, col + warp_col + j * 8 + at.col, pair);
      }
    }
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
