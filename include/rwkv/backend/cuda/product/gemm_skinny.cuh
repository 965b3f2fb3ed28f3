#pragma once
/// Products of 5 to 128 rows, y = x w^T, on tensor cores; several products share a launch. The rows of w are the
/// rows of the matrix instruction, the rows of x its columns. A block computes 32 outputs of up to 8 * eights rows
/// of x:
///
/// 1. The warps of the block share the depth. Every warp loads weights and x from global memory straight into the
///    registers of the matrix instruction, 32 numbers of the depth at a time.
/// 2. The warps store their sums in shared memory.
/// 3. The block adds them in the order of the warps and stores y through the epilogue.
#include "rwkv/backend/cuda/product/fragment.cuh"
#include "rwkv/backend/cuda/product/gemv.cuh"
#include "rwkv/backend/cuda/product/split.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// 8 neighbours from k on in a row of `depth` numbers, with zeros beyond it.
template <class T>
__device__ __forceinline__ Piece<T, 8> load_eight(const T* row, int k, int depth, bool aligned) {
  if (aligned && k + 8 <= depth) return load_piece<8>(row + k);
  Piece<T, 8> piece{};
  RWKV_KERNEL_UNROLL for (int i = 0; i < 8; ++i) {
    if (k + i < depth) piece.v[i] = row[k + i];
  }
  return piece;
}

/// 8 neighbours as words of two numbers, an array for each 16-bit term.
template <class T, int terms, class E>
__device__ __forceinline__ void split_eight(const Piece<E, 8>& piece, unsigned (&words)[terms][4]) {
  RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) {
    unsigned pair[terms];
    split_pair<T>(piece.v[2 * i], piece.v[2 * i + 1], pair);
    RWKV_KERNEL_UNROLL for (int term = 0; term < terms; ++term) words[term][i] = pair[term];
  }
}

/// Where x has more than 8 * eights rows, consecutive blocks take them, so that these find the weights in the cache.
/// As in MmaRows, a lane's 8 neighbours in k feed two matrix instructions.
template <int eights, class T, class W, int count, class... Epilogue>
__device__ __forceinline__ void skinny_block(const FewRowsOf<T, W, count>& products, int block,
                                             const Epilogue&... epilogues) {
  using Terms = MmaTerms<T, W>;
  using Number = typename Terms::number;
  constexpr int outs = SkinnySizes::outs, high = outs / 16, warps = SkinnySizes::threads / 32;
  constexpr int deep = eights == 1 ? 2 : 1,
                row_sums = outs + 1;  // elements from a row of sums to the next, to spread banks
  SharedElement<float>* const partial = detail::dynamic_shared<float>();

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int which = 0;
  const FewRows<T, W> p = products.of(block, which);
  const int groups = (p.rows + 8 * eights - 1) / (8 * eights);
  const int row = block % groups * (8 * eights), out = block / groups * outs;

  const W* weights[2 * high];
  RWKV_KERNEL_UNROLL for (int i = 0; i < 2 * high; ++i) {
    const int at = out + i * 8 + lane / 4;
    weights[i] = p.w + (at < p.outputs ? at : p.outputs - 1) * p.w_stride;
  }
  const T* const x = p.x + (row + lane / 4) * p.x_stride;
  float sums[high][eights][4] = {};
  for (int first = warp * 32; first < p.depth; first += deep * warps * 32) {
    Piece<W, 8> w[deep][2 * high];
    RWKV_KERNEL_UNROLL for (int d = 0; d < deep; ++d) {
      const int k = first + d * warps * 32 + lane % 4 * 8;
      RWKV_KERNEL_UNROLL for (int i = 0; i < 2 * high; ++i) w[d][i] = load_eight(weights[i], k, p.depth, p.aligned);
    }
    RWKV_KERNEL_UNROLL for (int d = 0; d < deep; ++d) {
      const int k = first + d * warps * 32 + lane % 4 * 8;
      unsigned left[2 * high][Terms::w][4];
      RWKV_KERNEL_UNROLL for (int i = 0; i < 2 * high; ++i) split_eight<Number>(w[d][i], left[i]);
      RWKV_KERNEL_UNROLL for (int j = 0; j < eights; ++j) {
        const int depth = row + j * 8 + lane / 4 < p.rows ? p.depth : 0;
        unsigned right[Terms::x][4];
        split_eight<Number>(load_eight(x + j * 8 * p.x_stride, k, depth, p.x_aligned), right);
        float stretch[high][4] = {};
        RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
          RWKV_KERNEL_UNROLL for (int x_term = 0; x_term < Terms::x; ++x_term) {
            RWKV_KERNEL_UNROLL for (int w_term = 0; w_term < Terms::w && x_term + w_term < 2; ++w_term) {
              const auto& upper = left[2 * i][w_term];
              const auto& lower = left[2 * i + 1][w_term];
              RWKV_KERNEL_UNROLL for (int step = 0; step < 4; step += 2) {
                const unsigned a[4] = {upper[step], lower[step], upper[step + 1], lower[step + 1]};
                const unsigned b[2] = {right[x_term][step], right[x_term][step + 1]};
                detail::mma_m16n8k16_warp<Number>(stretch[i], a, b);
              }
            }
          }
          RWKV_KERNEL_UNROLL for (int l = 0; l < 4; ++l) sums[i][j][l] += stretch[i][l];
        }
      }
    }
  }
  RWKV_KERNEL_UNROLL for (int i = 0; i < high; ++i) {
    RWKV_KERNEL_UNROLL for (int j = 0; j < eights; ++j) {
      RWKV_KERNEL_UNROLL for (int l = 0; l < 4; ++l) {
        const detail::FragmentPlace at = detail::place_in_d(lane, l);
        partial[(warp * eights * 8 + j * 8 + at.col) * row_sums + i * 16 + at.row] = sums[i][j][l];
      }
    }
  }
  __syncthreads();
  for (int i = thread; i < outs * eights * 8; i += SkinnySizes::threads) {
    const int r = i / outs, o = i % outs;
    if (row + r >= p.rows || out + o >= p.outputs) continue;
    float sum = 0;
    for (int s = 0; s < warps; ++s) sum += partial[(s * eights * 8 + r) * row_sums + o];
    p.y[(row + r) * p.y_stride + out + o] = narrow<T>(apply_at(which, sum, epilogues...));
  }
}

template <int eights, class T, class W, class... Epilogue>
RWKV_KERNEL void __launch_bounds__(SkinnySizes::threads)
    gemm_skinny_kernel(FewRowsOf<T, W, sizeof...(Epilogue)> products, Epilogue... epilogues) {
  skinny_block<eights>(products, static_cast<int>(blockIdx.x), epilogues...);
}

template <int eights, class T, class W, int count>
FewRowsPlan<T, W, count> plan_skinny(const FewRowsOf<T, W, count>& products) {
  FewRowsPlan<T, W, count> plan{products};
  for (FewRows<T, W>& p : plan.products.products) {
    if (p.blocks == 0) continue;
    p.blocks = static_cast<int>(blocks_for(p.rows, 8 * eights) * blocks_for(p.outputs, SkinnySizes::outs));
    plan.blocks += static_cast<unsigned>(p.blocks);
  }
  plan.shared_bytes = sizeof(float) * (SkinnySizes::threads / 32 * 8) * eights * (SkinnySizes::outs + 1);
  return plan;
}

template <int eights, class T, class W, class... Epilogue>
void launch_skinny(const CudaStream& stream, const FewRowsOf<T, W, sizeof...(Epilogue)>& products,
                   const Epilogue&... epilogues) {
  const auto plan = plan_skinny<eights>(products);
  stream.launch({.grid = {plan.blocks}, .block = {SkinnySizes::threads}, .shared_bytes = plan.shared_bytes},
                gemm_skinny_kernel<eights, T, W, Epilogue...>, plan.products, epilogues...);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
