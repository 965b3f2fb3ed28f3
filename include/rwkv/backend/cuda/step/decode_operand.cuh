#pragma once
/// What the products of a step are multiplied by, and where their sums go.
///
/// A source (PlainRows, NormedRows) makes the rows that a block multiplies, in registers, on their way to shared
/// memory. A destination (StoreSums, AddSums, GateSums) is called by one thread for each finished sum: row `row` of
/// sequence n.
#include <cstdint>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/backend/cuda/step/work.cuh"
#include "rwkv/backend/rows.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The smallest power of two that is not below n.
RWKV_HD constexpr int power_of_two_from(int n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

/// The totals of a row program over the rows x [batch, width], batch at most N, computed by the whole block:
/// 1. Every thread reduces its channels of all rows.
/// 2. Every warp adds up its lanes by shuffles and stores the sums in `partial`.
/// 3. One thread for each row adds the warps in order.
/// totals   [N, count], in shared memory; complete when run_block returns
/// partial  [partial_numbers], in shared memory
template <class R, int N, class Program, class T, class S>
class DecodeTotals {
  using stages = typename Program::stages;

 public:
  static constexpr int count = stages::total;
  static constexpr int partial_numbers = warp_size * work_warps;

  __device__ static void run_block(const Program& program, const T* x, int width, int batch, S* partial, S* totals) {
    run_block(std::make_integer_sequence<int, stages::count>(), program, x, width, batch, partial, totals);
  }

 private:
  template <int... Nth>
  __device__ static void run_block(std::integer_sequence<int, Nth...>, const Program& program, const T* x, int width,
                                   int batch, S* partial, S* totals) {
    (stage_block<Nth>(program, x, width, batch, partial, totals), ...);
  }

  template <int Nth>
  __device__ static void stage_block(const Program& program, const T* x, int width, int batch, S* partial, S* totals) {
    constexpr int first = stages::before(Nth), terms = stages::before(Nth + 1) - first;
    constexpr int numbers = power_of_two_from(N * terms);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
    R earlier[N][first + 1];
    T sums[numbers];
    RWKV_KERNEL_UNROLL for (int n = 0; n < N; ++n) {
      RWKV_KERNEL_UNROLL for (int k = 0; k < first; ++k) earlier[n][k] = R(static_cast<T>(totals[n * count + k]));
    }
    RWKV_KERNEL_UNROLL for (int i = 0; i < numbers; ++i) sums[i] = T(0);
    for (int c = thread * R::size; c < width; c += work_threads * R::size) {
      RWKV_KERNEL_UNROLL for (int n = 0; n < N; ++n) {
        if (n < batch) {
          R term[terms];
          program.reduce(Stage<Nth>{}, static_cast<const R*>(earlier[n]), term, R::load(x + Index{n} * width + c));
          RWKV_KERNEL_UNROLL for (int k = 0; k < terms; ++k) sums[n * terms + k] += sum_lanes(term[k]);
        }
      }
    }
    const T sum = sums_warp<numbers>(sums, lane);
    constexpr int share = warp_size / numbers;
    if (lane % share == 0) partial[warp * numbers + lane / share] = sum;
    __syncthreads();
    if (thread < N) {
      R all[first + terms];
      RWKV_KERNEL_UNROLL for (int k = 0; k < first; ++k) all[k] = R(static_cast<T>(totals[thread * count + k]));
      RWKV_KERNEL_UNROLL for (int k = 0; k < terms; ++k) {
        T total(0);
        for (int w = 0; w < work_warps; ++w) total += static_cast<T>(partial[w * numbers + thread * terms + k]);
        all[first + k] = R(total);
      }
      if constexpr (requires { program.finish(Stage<Nth>{}, all); }) program.finish(Stage<Nth>{}, all);
      RWKV_KERNEL_UNROLL for (int k = 0; k < first + terms; ++k) totals[thread * count + k] = all[k].v[0];
    }
    __syncthreads();
  }
};

/// The mix rule of rows that are normalised but not mixed.
struct NoMix {};

/// Source: the rows x [batch, width] as they are.
template <class T>
struct PlainRows {
  const T* x;
  int width;

  static constexpr int totals = 0;
  template <class R>
  struct Channels {};

  template <class R>
  __device__ Channels<R> channels(int) const {
    return {};
  }
  template <class R, class S>
  __device__ R load(const Channels<R>&, const S*, int n, int c) const {
    return R::load(x + Index{n} * width + c);
  }
};

/// Source: the rows x [batch, width], normalised by a row program and mixed by a rule with the rows of the token
/// before. Also stores the normalised rows in `normed`, unless it is null.
template <class Program, class Rule, class T, class W>
struct NormedRows {
  Program program;
  const T* x;
  int width;
  const W *scale, *bias;
  Mat<const T> before;
  T* normed;
  const W* mix = nullptr;

  static constexpr int totals = Program::stages::total;
  template <class R>
  struct Channels {
    R scale, bias, mix;
  };

  template <class R>
  __device__ Channels<R> channels(int c) const {
    Channels<R> channels;
    channels.scale = R::load(scale + c);
    channels.bias = R::load(bias + c);
    if constexpr (!std::is_same_v<Rule, NoMix>) channels.mix = R::load(mix + c);
    return channels;
  }
  template <class R, class S>
  __device__ R normalise(const Channels<R>& channels, const S* shared_totals, int n, int c) const {
    R all[totals], y;
    RWKV_KERNEL_UNROLL for (int k = 0; k < totals; ++k) all[k] = R(static_cast<T>(shared_totals[n * totals + k]));
    program.map(static_cast<const R*>(all), R::load(x + Index{n} * width + c), channels.scale, channels.bias, y);
    return y;
  }
  template <class R, class S>
  __device__ R load(const Channels<R>& channels, const S* shared_totals, int n, int c) const {
    const R y = normalise(channels, shared_totals, n, c);
    if (normed != nullptr) y.store(normed + Index{n} * width + c);
    if constexpr (std::is_same_v<Rule, NoMix>) return y;
    else return Rule::mix(y, R::load(before.row(n) + c), channels.mix);
  }
};

/// Destination: to[n, row] = sum, or activation(sum) when `activated`.
template <class Activation, class T>
struct StoreSums {
  T* to;
  int width;
  bool activated = false;

  __device__ void operator()(int n, int row, T sum) const {
    const One<T> value(sum);
    to[Index{n} * width + row] = activated ? Activation{}(value).v : sum;
  }
};
/// Destination: y = x + sum.
template <class T>
struct AddSums {
  const T* x;
  T* y;
  int width;

  __device__ void operator()(int n, int row, T sum) const {
    y[Index{n} * width + row] = x[Index{n} * width + row] + sum;
  }
};
/// Destination: y += gate(r, sum).
template <class Gate, class T>
struct GateSums {
  const T* r;
  T* y;
  int width;

  __device__ void operator()(int n, int row, T sum) const {
    One<T> gated;
    Gate{}.map(One<T>(r[Index{n} * width + row]), One<T>(sum), gated);
    y[Index{n} * width + row] += gated.v;
  }
};

/// Copies the tokens [batch, width] into a token-shift state; does nothing when `from` is null. All threads of the grid
/// share the copy: this one takes the numbers begin, begin + step, ...
template <class T>
struct ShiftCopy {
  const T* from = nullptr;
  Mat<T> to{};

  __device__ void run(Index begin, Index step) const {
    if (from == nullptr) return;
    const auto width = static_cast<std::uint32_t>(to.cols), numbers = static_cast<std::uint32_t>(to.rows) * width;
    for (auto i = static_cast<std::uint32_t>(begin); i < numbers; i += static_cast<std::uint32_t>(step)) {
      to(i / width, i % width) = from[i];
    }
  }
};

/// Whether a source may be read by vectors of R.
template <class R, class T>
bool source_aligned(const PlainRows<T>& rows) {
  return is_aligned<R::size>(rows.x, rows.width);
}
template <class R, class Program, class Rule, class T, class W>
bool source_aligned(const NormedRows<Program, Rule, T, W>& rows) {
  constexpr int N = R::size;
  return is_aligned<N>(rows.x, rows.width) && is_aligned<N>(rows.normed, rows.width) &&
         is_aligned<N>(rows.before.data, rows.before.stride) && is_aligned<N>(rows.scale) && is_aligned<N>(rows.bias) &&
         is_aligned<N>(rows.mix);
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
