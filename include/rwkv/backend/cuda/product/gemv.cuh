#pragma once
/// Products of few rows, y = x w^T; several products share a launch. Bound by the weights: each is read once, from
/// global memory into registers, with as many bytes in flight as possible. For each stretch of the depth:
///
/// 1. The block stages the rows of x in shared memory.
/// 2. Every warp, or `split` warps together, multiplies `outs` rows of w, 16 bytes a lane at a time.
///
/// Then each warp adds up its lanes by shuffles, the block adds the warps that share a row in order, and stores y
/// through the epilogue.
#include "rwkv/backend/cuda/product/gemm_operand.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/tuning.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The layout of a row of x in shared memory, in the accumulator type A. A lane reads the numbers that belong to 16
/// bytes of weights of type W; numbers are placed so that the lanes of a warp read neighbouring 16 bytes.
template <class A, class W>
struct StagedRows {
  static constexpr int per = 16 / int{sizeof(W)};                                      ///< weights in 16 bytes
  static constexpr int part = per * int{sizeof(A)} <= 16 ? per : 16 / int{sizeof(A)};  ///< numbers in a read
  static constexpr int parts = per / part;

  /// The number of elements that `depth` numbers take.
  RWKV_HD static constexpr int size(int depth) { return (depth + 32 * per - 1) / (32 * per) * (32 * per); }

  /// The element that holds number k.
  static __device__ __forceinline__ int place(int k) {
    const int piece = k / per, within = k % per;
    return piece / 32 * (32 * per) + within / part * (32 * part) + piece % 32 * part + within % part;
  }
  /// Reads the numbers [piece * per, (piece + 1) * per).
  static __device__ __forceinline__ void read(const SharedElement<A>* x, int piece, A (&numbers)[per]) {
    const SharedElement<A>* from = x + piece / 32 * (32 * per) + piece % 32 * part;
    RWKV_KERNEL_UNROLL for (int i = 0; i < parts; ++i) {
      const auto read = load_shared<A, part>(from + i * 32 * part);
      RWKV_KERNEL_UNROLL for (int j = 0; j < part; ++j) numbers[i * part + j] = read.v[j];
    }
  }
};

/// sums[o][r] += a lane's part of the dot product of row o of the weights and row r of x, over a stretch of `depth`
/// numbers: the lane takes the pieces of 16 bytes number first, first + step, ... Loads of `deep` pieces of each row
/// are in flight at once.
/// x        [rows][x_row] in shared memory, as StagedRows places them, zeros behind `depth`
/// weights  the first number of each row in this stretch
/// aligned  the rows are multiples of 16 bytes
template <int deep, int outs, int rows, class A, class W>
__device__ __forceinline__ void dot_rows(A (&sums)[outs][rows], const W* const (&weights)[outs],
                                         const SharedElement<A>* x, int x_row, int depth, int first, int step,
                                         bool aligned) {
  using Staged = StagedRows<A, W>;
  constexpr int per = Staged::per;
  for (int piece = first; piece * per < depth; piece += deep * step) {
    Piece<W, per> w[deep][outs];
    RWKV_KERNEL_UNROLL for (int d = 0; d < deep; ++d) {
      const int k = (piece + d * step) * per;
      RWKV_KERNEL_UNROLL for (int o = 0; o < outs; ++o) {
        if (aligned && k + per <= depth) {
          w[d][o] = load_piece<per>(weights[o] + k);
        } else {
          RWKV_KERNEL_UNROLL for (int i = 0; i < per; ++i) w[d][o].v[i] = k + i < depth ? weights[o][k + i] : W();
        }
      }
    }
    RWKV_KERNEL_UNROLL for (int d = 0; d < deep; ++d) {
      if ((piece + d * step) * per < depth) {
        RWKV_KERNEL_UNROLL for (int r = 0; r < rows; ++r) {
          A numbers[per];
          Staged::read(x + r * x_row, piece + d * step, numbers);
          RWKV_KERNEL_UNROLL for (int o = 0; o < outs; ++o) {
            RWKV_KERNEL_UNROLL for (int i = 0; i < per; ++i) {
              sums[o][r] += detail::widen_fast<A>(w[d][o].v[i]) * numbers[i];
            }
          }
        }
      }
    }
  }
}

/// One product in a launch of several, without its epilogue.
template <class T, class W>
struct FewRows {
  T* y;
  const T* x;
  const W* w;
  Index y_stride, x_stride, w_stride;
  int rows, outputs, depth;
  int blocks;               ///< that compute it; 0: another launch computes it
  int split;                ///< warps that share the depth of a row of w
  bool aligned, x_aligned;  ///< rows of w, and of x, begin at multiples of 16 bytes
};

/// The products of a launch.
template <class T, class W, int count>
struct FewRowsOf {
  FewRows<T, W> products[count];

  /// Returns the product of a block. `block` becomes its number within the product, `which` the product's index.
  __device__ __forceinline__ FewRows<T, W> of(int& block, int& which) const {
    FewRows<T, W> found = products[0];
    which = 0;
    int before = products[0].blocks;
    int first = 0;
    RWKV_KERNEL_UNROLL for (int i = 1; i < count; ++i) {
      if (block >= before && products[i].blocks > 0) {
        found = products[i];
        which = i;
        first = before;
      }
      before += products[i].blocks;
    }
    block -= first;
    return found;
  }
};

/// Applies epilogue number `which` to a sum.
template <class A, class... Epilogue>
__device__ __forceinline__ A apply_at(int which, A sum, const Epilogue&... epilogues) {
  int i = 0;
  A result = sum;
  ((i++ == which ? static_cast<void>(result = epilogues(One<A>(sum)).v) : static_cast<void>(0)), ...);
  return result;
}

/// A block multiplies `rows` rows of x by `outs` rows of w for each `split` of its warps. Where x has more rows,
/// consecutive blocks take them, so that these find the weights in the cache.
template <int rows, class T, class W, int count, class... Epilogue>
__device__ __forceinline__ void gemv_block(const FewRowsOf<T, W, count>& products, int block,
                                           const Epilogue&... epilogues) {
  using A = accumulator_t<T>;
  using Staged = StagedRows<A, W>;
  constexpr GemvSizes sizes = gemv_sizes(rows, sizeof(A));
  constexpr int outs = sizes.outs, warps = GemvSizes::threads / 32;
  __shared__ SharedElement<A> partial[warps][outs * rows];
  SharedElement<A>* const staged = detail::dynamic_shared<A>();

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int which = 0;
  const FewRows<T, W> p = products.of(block, which);
  const int groups = (p.rows + rows - 1) / rows;
  const int row = block % groups * rows, outs_of_block = warps / p.split * outs;
  const int out = block / groups * outs_of_block;

  const W* weights[outs];
  RWKV_KERNEL_UNROLL for (int o = 0; o < outs; ++o) {
    const int at = out + warp / p.split * outs + o;
    weights[o] = p.w + (at < p.outputs ? at : p.outputs - 1) * p.w_stride;
  }
  A sums[outs][rows] = {};
  const int stretch = sizes.staged / rows;  // a multiple of what 32 lanes read at once
  for (int k = 0; k < p.depth; k += stretch) {
    const int depth = p.depth - k < stretch ? p.depth - k : stretch, x_row = Staged::size(depth);
    if (k > 0) __syncthreads();
    RWKV_KERNEL_UNROLL for (int r = 0; r < rows; ++r) {
      const T* from = p.x + (row + r) * p.x_stride + k;
      const bool there = row + r < p.rows;
      for (int i = thread; i < x_row; i += GemvSizes::threads) {
        staged[r * x_row + Staged::place(i)] = there && i < depth ? widen<A>(from[i]) : A(0);
      }
    }
    __syncthreads();
    dot_rows<sizes.deep>(sums, weights, staged, x_row, depth, warp % p.split * 32 + lane, p.split * 32, p.aligned);
    RWKV_KERNEL_UNROLL for (int o = 0; o < outs; ++o) weights[o] += stretch;
  }
  RWKV_KERNEL_UNROLL for (int o = 0; o < outs; ++o) {
    RWKV_KERNEL_UNROLL for (int r = 0; r < rows; ++r) {
      const A sum = sum_warp(sums[o][r]);
      if (lane == 0) partial[warp][o * rows + r] = sum;
    }
  }
  __syncthreads();
  for (int i = thread; i < outs_of_block * rows; i += GemvSizes::threads) {
    const int r = i / outs_of_block, o = i % outs_of_block;
    if (row + r >= p.rows || out + o >= p.outputs) continue;
    A sum = 0;
    for (int s = 0; s < p.split; ++s) sum += partial[o / outs * p.split + s][o % outs * rows + r];
    p.y[(row + r) * p.y_stride + out + o] = narrow<T>(apply_at(which, sum, epilogues...));
  }
}

template <int rows, class T, class W, class... Epilogue>
RWKV_KERNEL void __launch_bounds__(GemvSizes::threads)
    gemv_kernel(FewRowsOf<T, W, sizeof...(Epilogue)> products, Epilogue... epilogues) {
  gemv_block<rows>(products, static_cast<int>(blockIdx.x), epilogues...);
}

/// A product as the kernels of few rows take it. The plan of the launch sets `blocks` and `split`.
template <class T, class W, class Epilogue>
FewRows<T, W> few_rows(const Product<T, W, Epilogue>& p) {
  return {.y = p.y.data,
          .x = p.x.data,
          .w = p.w.data,
          .y_stride = p.y.stride,
          .x_stride = p.x.stride,
          .w_stride = p.w.stride,
          .rows = extent(p.y.rows),
          .outputs = extent(p.y.cols),
          .depth = extent(p.x.cols),
          .blocks = 1,
          .split = 1,
          .aligned = rows_aligned(p.w.data, p.w.rows, p.w.stride),
          .x_aligned = rows_aligned(p.x.data, p.x.rows, p.x.stride)};
}

/// Products of few rows and the shape of their launch.
template <class T, class W, int count>
struct FewRowsPlan {
  FewRowsOf<T, W, count> products;
  unsigned blocks = 0;
  std::size_t shared_bytes = 0;
};

template <int rows, class T, class W, int count>
FewRowsPlan<T, W, count> plan_gemv(const FewRowsOf<T, W, count>& products) {
  using A = accumulator_t<T>;
  constexpr GemvSizes sizes = gemv_sizes(rows, sizeof(A));
  constexpr int warps = GemvSizes::threads / 32;
  FewRowsPlan<T, W, count> plan{products};
  int staged = 0;
  for (FewRows<T, W>& p : plan.products.products) {
    if (p.blocks == 0) continue;
    p.split = gemv_split(p.outputs, p.depth);
    const int outs_of_block = warps / p.split * sizes.outs;
    p.blocks = (p.rows + rows - 1) / rows * ((p.outputs + outs_of_block - 1) / outs_of_block);
    plan.blocks += static_cast<unsigned>(p.blocks);
    const int depth = StagedRows<A, W>::size(p.depth) * rows;
    staged = std::max(staged, std::min(depth, sizes.staged));
  }
  plan.shared_bytes = static_cast<std::size_t>(staged) * sizeof(A);
  return plan;
}

template <int rows, class T, class W, class... Epilogue>
void launch_gemv(const CudaStream& stream, const FewRowsOf<T, W, sizeof...(Epilogue)>& products,
                 const Epilogue&... epilogues) {
  const auto plan = plan_gemv<rows>(products);
  stream.launch({.grid = {plan.blocks}, .block = {GemvSizes::threads}, .shared_bytes = plan.shared_bytes},
                gemv_kernel<rows, T, W, Epilogue...>, plan.products, epilogues...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
