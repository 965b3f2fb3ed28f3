#pragma once
/// Cross entropy, and the sum of squares that clipping needs.
///
/// Cross entropy, a block for each row of logits:
/// 1. Each thread reads every 512th logit and keeps a running softmax.
/// 2. The threads of a warp join theirs by shuffles, the warps of the block theirs through shared memory, in order.
/// 3. Each thread replaces its logits by gradients. Thread 0 stores the loss.
///
/// Sum of squares: blocks sum shares of a matrix, then one block adds the shares of all matrices in order.
#include <cmath>
#include <span>

#include "rwkv/backend/cross_entropy.hpp"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

inline constexpr int loss_threads = 512;
inline constexpr int loss_warps = loss_threads / warp_size;

/// The largest logit, the first place where it is, and the sum of e^(x - largest).
template <class T>
struct Softmax {
  T largest;
  Index place;
  T sum;

  __device__ Softmax joined(const Softmax& other) const {
    using std::exp;
    const bool own = largest > other.largest || (largest == other.largest && place < other.place);
    const T most = own ? largest : other.largest, least = own ? other.largest : largest;
    const T more = own ? sum : other.sum, less = own ? other.sum : sum;
    // An empty part has no largest logit; e^(-inf - -inf) would be a NaN.
    return {most, own ? place : other.place, less == T(0) ? more : more + less * exp(least - most)};
  }
};

/// Computes cross_entropy_row for the row of the block.
template <class T>
RWKV_KERNEL void __launch_bounds__(loss_threads)
    cross_entropy_kernel(Mat<T> logits, const Token* targets, CrossEntropyWeights weights, T* losses) {
  const Index row = blockIdx.x, vocab = logits.cols;
  T* const x = logits.row(row);
  const Token target = targets[row];
  if (target == no_target) {
    for (Index c = threadIdx.x; c < vocab; c += loss_threads) x[c] = T(0);
    if (threadIdx.x == 0) losses[row] = T(0);
    return;
  }
  using std::exp, std::log;
  constexpr T lowest = static_cast<T>(-HUGE_VAL);
  Softmax<T> own{lowest, vocab, T(0)};
  for (Index c = threadIdx.x; c < vocab; c += loss_threads) {
    // A NaN, or an infinity, makes the sum a NaN, and with it the loss.
    own = own.joined({x[c], c, T(1)});
  }
  RWKV_UNROLL for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) {
    const Softmax<T> other{__shfl_xor_sync(whole_warp, own.largest, lanes),
                           __shfl_xor_sync(whole_warp, own.place, lanes), __shfl_xor_sync(whole_warp, own.sum, lanes)};
    own = own.joined(other);
  }
  __shared__ detail::SharedElement<T> largest[loss_warps], sums[loss_warps];
  __shared__ detail::SharedElement<Index> places[loss_warps];
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  if (threadIdx.x % warp_size == 0) {
    largest[warp] = own.largest;
    sums[warp] = own.sum;
    places[warp] = own.place;
  }
  const T wanted = x[target];
  __syncthreads();
  Softmax<T> all{largest[0], places[0], sums[0]};
  for (int w = 1; w < loss_warps; ++w) all = all.joined({largest[w], places[w], sums[w]});
  const T scale = static_cast<T>(weights.scale), factor = scale / all.sum;
  for (Index c = threadIdx.x; c < vocab; c += loss_threads) {
    T gradient = exp(x[c] - all.largest) * factor;
    if (c == target) gradient -= scale;
    if (c == all.place) gradient += static_cast<T>(weights.l2_wrap) * all.largest;
    x[c] = gradient;
  }
  if (threadIdx.x == 0) losses[row] = log(all.sum) + (all.largest - wanted);
}

template <class T>
void cross_entropy(const CudaStream& stream, Mat<T> logits, const Token* targets, const CrossEntropyWeights& weights,
                   T* losses) {
  stream.launch({dim3(static_cast<unsigned>(logits.rows)), dim3(loss_threads)}, cross_entropy_kernel<T>, logits,
                targets, weights, losses);
}

/// The number of blocks that sum the squares of a matrix. Its size alone decides, and so the order of additions.
inline constexpr int squares_threads = 256;
inline Index squares_blocks(Index numbers) {
  const Index blocks = (numbers + squares_threads * 16 - 1) / (squares_threads * 16);
  return blocks < 1 ? 1 : blocks > 1024 ? 1024 : blocks;
}

/// partial[block] = the sum of squares of the block's share, in double.
template <class T>
RWKV_KERNEL void squares_kernel(Mat<const T> x, double* partial) {
  __shared__ detail::SharedElement<double> shared[squares_threads / warp_size];
  double sum[1] = {0};
  const Index numbers = x.rows * x.cols, step = Index{gridDim.x} * squares_threads;
  for (Index i = Index{blockIdx.x} * squares_threads + threadIdx.x; i < numbers; i += step) {
    const auto number =
        static_cast<double>(widen<accumulator_t<T>>(x.stride == x.cols ? x.data[i] : x(i / x.cols, i % x.cols)));
    sum[0] += number * number;
  }
  sum_block(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum[0];
}

/// *sum = the sum of the shares. One block.
template <int = 0>
RWKV_KERNEL void add_squares_kernel(const double* partial, Index count, double* sum) {
  __shared__ detail::SharedElement<double> shared[squares_threads / warp_size];
  double total[1] = {0};
  for (Index i = threadIdx.x; i < count; i += squares_threads) total[0] += partial[i];
  sum_block(total, shared);
  if (threadIdx.x == 0) *sum = total[0];
}

/// *sum = the sum of squares of all matrices. `partial` has room for the squares_blocks of each. Both are in memory of
/// the device.
template <class T>
void sum_of_squares(const CudaStream& stream, std::span<const Mat<const T>> matrices, double* partial, double* sum) {
  Index blocks = 0;
  for (const Mat<const T>& x : matrices) {
    const Index own = squares_blocks(x.rows * x.cols);
    stream.launch({dim3(static_cast<unsigned>(own)), dim3(squares_threads)}, squares_kernel<T>, x, partial + blocks);
    blocks += own;
  }
  stream.launch({dim3(1), dim3(squares_threads)}, add_squares_kernel<>, static_cast<const double*>(partial), blocks,
                sum);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
