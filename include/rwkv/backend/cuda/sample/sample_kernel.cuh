#pragma once
/// From logits to the next tokens: the choice of text/sampler.hpp as a kernel, a block for each sequence.
///
/// 1. The block finds the most likely token, and logits that are faulty.
/// 2. Top-k and top-p: the block finds the last token to keep, digit by digit of a sort key, with a histogram of the
///    tokens in shared memory for each digit (a radix select).
/// 3. The block draws a token from the weights of those kept, by sums over warps.
/// 4. It updates the counts of penalties.
///
/// The random numbers are those of the host. Histograms hold integers, and floating-point sums have a fixed order,
/// so the choice does not depend on the order in which threads run.
#include <cmath>
#include <cstdint>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// How the tokens of a sequence are drawn: the options of Sampler, under the same names.
struct CudaSampling {
  double temperature = 1;
  int top_k = 0;
  double top_p = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  double penalty_decay = 0.996;
  std::uint64_t seed = 0;
};

namespace gpu {

inline constexpr int sample_threads = 512;
inline constexpr int sample_warps = sample_threads / warp_size;
inline constexpr int sample_buckets = 2048;

/// What sequences remember between tokens, in memory of the device.
struct SampleMemory {
  static constexpr double never = -1, barred = -2;

  double* counts;         // [rows, vocab]: how often a token was picked, decayed; or `never`; or `barred`
  std::uint64_t* draws;   // [rows]
  Index* faults;          // [rows]: 1 + the logit that is not below infinity, 1 + vocab when all are -inf, or 0
  std::uint64_t mass_of;  ///< the weight of the most likely token where weights are integers
};

/// The logits of a sequence after penalties. Tokens are ordered by `key`, the most likely first, and equal keys by id.
template <class T>
struct SampleRow {
  const T* logits;
  const double* counts;
  Index vocab;
  CudaSampling options;
  double largest = 0;

  __device__ double logit(Index i) const {
    const double x = widen<double>(logits[i]), count = counts[i];
    if (count == SampleMemory::never) return x + 0.0;  // -0 becomes +0, so that equal logits have equal keys
    if (count == SampleMemory::barred) return -HUGE_VAL;
    return x - (options.presence_penalty + options.frequency_penalty * count) + 0.0;
  }
  /// A sort key: the larger, the less likely the token.
  __device__ static std::uint64_t key(double logit) {
    const auto bits = detail::bits_as<std::uint64_t>(logit);
    return (bits >> 63) != 0 ? bits : ~(bits | (std::uint64_t{1} << 63));
  }
  __device__ std::uint64_t mass(double logit, std::uint64_t mass_of) const {
    using std::exp;
    return static_cast<std::uint64_t>(exp(logit - largest) * static_cast<double>(mass_of) + 0.5);
  }
};

/// The tokens that agree in the first `known` digits. Digit 0 is the distance from the largest logit in steps of 1/64,
/// the others are digits of the key.
struct SampleBucket {
  static constexpr int digits = 7, digit_bits = 11;

  int known = 0;  ///< how many digits
  int distance = 0;
  std::uint64_t prefix = 0;

  __device__ static int distance_of(double below_largest) {
    return below_largest * 64 < sample_buckets - 1 ? static_cast<int>(below_largest * 64) : sample_buckets - 1;
  }
  /// Bits of the key behind the digit.
  __device__ static int behind(int digit) { return 64 - digit_bits * digit > 0 ? 64 - digit_bits * digit : 0; }

  __device__ bool holds(double below_largest, std::uint64_t key) const {
    if (known > 0 && distance_of(below_largest) != distance) return false;
    return known <= 1 || key >> behind(known - 1) == prefix;
  }
  __device__ int next_digit(double below_largest, std::uint64_t key) const {
    if (known == 0) return distance_of(below_largest);
    const int bits = behind(known - 1) - behind(known);
    return static_cast<int>(key >> behind(known) & ((std::uint64_t{1} << (known == 1 ? digit_bits : bits)) - 1));
  }
  __device__ void append(int digit) {
    if (known == 0) distance = digit;
    else
      prefix = prefix << (known == 1 ? digit_bits : behind(known - 1) - behind(known)) | static_cast<unsigned>(digit);
    ++known;
  }
};

/// The shared memory of a block.
struct SampleShared {
  detail::SharedElement<unsigned> count[sample_buckets];
  detail::SharedElement<unsigned long long> mass[sample_buckets];
  detail::SharedElement<double> sums[sample_warps];
  detail::SharedElement<Index> places[sample_warps], faults[sample_warps];
  detail::SharedElement<int> digit;
  detail::SharedElement<Index> before, tokens, found;
  detail::SharedElement<unsigned long long> mass_before, key;
};

/// The first i for which weight(0) + ... + weight(i) is above target(sum of all weights), or the last i whose weight is
/// not zero.
/// 1. Each warp sums the weights of its stretch of neighbours.
/// 2. All threads add the warps in order and find the warp whose stretch holds i.
/// 3. That warp goes through its stretch with prefix sums, 32 weights at a time.
template <class Weight, class Target>
__device__ Index find_weight_block(SampleShared& shared, Index vocab, const Weight& weight, const Target& target_of) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  constexpr Index step = Index{sample_warps} * warp_size;
  const Index stretch = (vocab + step - 1) / step * warp_size, begin = stretch * warp;
  const Index end = begin + stretch < vocab ? begin + stretch : vocab;
  double own = 0;
  for (Index i = begin + lane; i < end; i += warp_size) own += weight(i);
  own = sum_warp(own);
  __syncthreads();
  if (lane == 0) shared.sums[warp] = own;
  __syncthreads();
  double all = 0, below = 0, sum = 0;
  for (int w = 0; w < sample_warps; ++w) all += static_cast<double>(shared.sums[w]);
  const double target = target_of(all);
  int chosen = 0;
  bool found = false;
  for (int w = 0; w < sample_warps && !found; ++w) {
    const auto here = static_cast<double>(shared.sums[w]);
    if (here > 0) {
      chosen = w;
      below = sum;
      found = target < sum + here;
    }
    sum += here;
  }
  if (warp == chosen) {
    Index last = begin;
    bool hit = false;
    for (Index first = begin; first < end && !hit; first += warp_size) {
      const double mine = first + lane < end ? weight(first + lane) : 0;
      double upto = mine;
      RWKV_KERNEL_UNROLL for (int lanes = 1; lanes < warp_size; lanes *= 2) {
        const double other = __shfl_up_sync(whole_warp, upto, lanes);
        if (lane >= lanes) upto += other;
      }
      const unsigned above = __ballot_sync(whole_warp, mine > 0 && target < below + upto);
      const unsigned weighs = __ballot_sync(whole_warp, mine > 0);
      hit = above != 0;
      if (hit) last = first + __ffs(static_cast<int>(above)) - 1;
      else if (weighs != 0) last = first + warp_size - 1 - __clz(static_cast<int>(weighs));
      below += __shfl_sync(whole_warp, upto, warp_size - 1);
    }
    if (lane == 0) shared.found = last;
  }
  __syncthreads();
  return shared.found;
}

/// The tokens that top-k and top-p keep: those with a smaller key, and those with an equal key up to the id `last`.
struct SampleCut {
  std::uint64_t key = ~std::uint64_t{0};
  Index last = 0;

  __device__ bool keeps(std::uint64_t other, Index i) const { return other < key || (other == key && i <= last); }
};

/// Finds the cut, see phase 2 above. `mass_of`: see SampleMemory.
template <class T>
__device__ SampleCut cut_tokens_block(SampleShared& shared, const SampleRow<T>& row, std::uint64_t mass_of) {
  const int thread = static_cast<int>(threadIdx.x);
  const Index vocab = row.vocab, top_k = row.options.top_k;
  const Index limit = top_k == 0 || top_k > vocab ? vocab : top_k;
  const bool by_mass = row.options.top_p < 1;
  if (!by_mass && limit == vocab) return {~std::uint64_t{0}, vocab};

  SampleBucket bucket;
  Index before = 0, tokens = 0;
  unsigned long long mass_before = 0;
  double needed = 0;
  while (bucket.known < SampleBucket::digits && (bucket.known == 0 || tokens > 1)) {
    for (int i = thread; i < sample_buckets; i += sample_threads) {
      shared.count[i] = 0;
      shared.mass[i] = 0;
    }
    __syncthreads();
    for (Index i = thread; i < vocab; i += sample_threads) {
      const double x = row.logit(i);
      const std::uint64_t key = row.key(x);
      if (!bucket.holds(row.largest - x, key)) continue;
      const int digit = bucket.next_digit(row.largest - x, key);
      atomicAdd(&shared.count[digit], 1u);
      if (!by_mass) continue;
      const unsigned long long mass = row.mass(x, mass_of);
      if (mass != 0) atomicAdd(&shared.mass[digit], mass);
    }
    __syncthreads();
    if (thread < warp_size) {
      // Warp 0: each lane sums neighbouring buckets. The lane whose buckets hold the cut then looks for the bucket.
      constexpr int own = sample_buckets / warp_size;
      Index count = 0;
      unsigned long long mass = 0;
      for (int i = 0; i < own; ++i) {
        count += static_cast<unsigned>(shared.count[thread * own + i]);
        mass += static_cast<unsigned long long>(shared.mass[thread * own + i]);
      }
      Index count_to = count;
      unsigned long long mass_to = mass;
      RWKV_KERNEL_UNROLL for (int lanes = 1; lanes < warp_size; lanes *= 2) {
        const Index other = __shfl_up_sync(whole_warp, count_to, lanes);
        const unsigned long long others = __shfl_up_sync(whole_warp, mass_to, lanes);
        if (thread >= lanes) {
          count_to += other;
          mass_to += others;
        }
      }
      if (bucket.known == 0) {
        const unsigned long long all = __shfl_sync(whole_warp, mass_to, warp_size - 1);
        needed = static_cast<double>(all) * row.options.top_p;
      }
      const auto reached = [&](Index tokens_to, unsigned long long total) {
        return tokens_to >= limit || (by_mass && static_cast<double>(total) >= needed);
      };
      const unsigned reach = __ballot_sync(whole_warp, reached(before + count_to, mass_before + mass_to));
      if (thread == __ffs(static_cast<int>(reach)) - 1) {
        Index count_before = before + count_to - count;
        unsigned long long total = mass_before + mass_to - mass;
        int digit = thread * own;
        for (;; ++digit) {
          const auto here = static_cast<unsigned>(shared.count[digit]);
          const auto mass_here = static_cast<unsigned long long>(shared.mass[digit]);
          if (here != 0 && reached(count_before + here, total + mass_here)) break;
          count_before += here;
          total += mass_here;
        }
        shared.digit = digit;
        shared.before = count_before;
        shared.mass_before = total;
        shared.tokens = static_cast<Index>(static_cast<unsigned>(shared.count[digit]));
      }
    }
    __syncthreads();
    bucket.append(shared.digit);
    before = shared.before;
    mass_before = shared.mass_before;
    tokens = shared.tokens;
    __syncthreads();
  }

  // The bucket holds one token, or several of equal key: find the key, and how many of these tokens are kept.
  if (thread == 0) shared.key = ~0ull;
  __syncthreads();
  for (Index i = thread; i < vocab; i += sample_threads) {
    const double x = row.logit(i);
    const unsigned long long key = row.key(x);
    if (bucket.holds(row.largest - x, key)) atomicMin(&shared.key, key);
  }
  __syncthreads();
  const std::uint64_t key = static_cast<unsigned long long>(shared.key);
  if (thread == 0) {
    Index kept = limit - before < tokens ? limit - before : tokens;
    if (by_mass) {
      const auto bits = (key >> 63) != 0 ? key : ~key & ~(std::uint64_t{1} << 63);
      const unsigned long long mass = row.mass(detail::bits_as<double>(bits), mass_of);
      using std::ceil;
      const double few = ceil((needed - static_cast<double>(mass_before)) / static_cast<double>(mass));
      if (mass != 0 && few < static_cast<double>(kept)) kept = few < 1 ? 1 : static_cast<Index>(few);
    }
    shared.tokens = kept;
  }
  __syncthreads();
  const Index kept = shared.tokens;
  if (kept == tokens) return {key, vocab};
  const auto is_tie = [&](Index i) { return row.key(row.logit(i)) == key ? 1.0 : 0.0; };
  return {key, find_weight_block(shared, vocab, is_tie, [&](double) { return static_cast<double>(kept) - 0.5; })};
}

/// Picks a token for every row of logits. A row with a fault keeps its token and its memory.
template <class T>
RWKV_KERNEL void __launch_bounds__(sample_threads, 1)
    sample_kernel(Mat<const T> logits, const CudaSampling* options, SampleMemory memory, Token* tokens) {
  __shared__ SampleShared shared;
  __shared__ CudaSampling own_options;
  detail::let_successor_begin();
  detail::wait_for_predecessor();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
  const Index r = blockIdx.x, vocab = logits.cols;
  double* const counts = memory.counts + r * vocab;
  // One thread reads the options for all: the host may change them, and the threads of a block must agree.
  if (thread == 0) own_options = options[r];
  __syncthreads();
  SampleRow<T> row{logits.row(r), counts, vocab, own_options};

  // The most likely token, the first that is not below infinity, and whether any is possible.
  constexpr double infinity = HUGE_VAL;
  double largest = -infinity;
  Index place = vocab, fault = vocab + 1;
  for (Index i = thread; i < vocab; i += sample_threads) {
    const auto raw = widen<double>(row.logits[i]);
    if (!(raw < infinity) && counts[i] != SampleMemory::barred) fault = i < fault ? i : fault;
    const double x = row.logit(i);
    if (x > largest) {
      largest = x;
      place = i;
    }
  }
  const auto join = [&](double other, Index other_place, Index other_fault) {
    const bool better = other > largest || (other == largest && other_place < place);
    largest = better ? other : largest;
    place = better ? other_place : place;
    fault = other_fault < fault ? other_fault : fault;
  };
  RWKV_KERNEL_UNROLL for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) {
    join(__shfl_xor_sync(whole_warp, largest, lanes), __shfl_xor_sync(whole_warp, place, lanes),
         __shfl_xor_sync(whole_warp, fault, lanes));
  }
  if (lane == 0) {
    shared.sums[warp] = largest;
    shared.places[warp] = place;
    shared.faults[warp] = fault;
  }
  __syncthreads();
  for (int w = 0; w < sample_warps; ++w) join(shared.sums[w], shared.places[w], shared.faults[w]);
  if (fault < vocab || place == vocab) {
    if (thread == 0) memory.faults[r] = 1 + (fault < vocab ? fault : vocab);
    return;
  }
  row.largest = largest;

  Index token = place;
  const bool greedy = row.options.temperature == 0 || row.options.top_p == 0 || row.options.top_k == 1;
  if (!greedy) {
    const SampleCut cut = cut_tokens_block(shared, row, memory.mass_of);
    const double part = Philox{.key = row.options.seed}.block(memory.draws[r]).uniform_double(0);
    const auto weight = [&](Index i) {
      using std::exp;
      const double x = row.logit(i);
      return cut.keeps(row.key(x), i) ? exp((x - largest) / row.options.temperature) : 0.0;
    };
    token = find_weight_block(shared, vocab, weight, [&](double all) { return all * part; });
  }
  __syncthreads();
  for (Index i = thread; i < vocab; i += sample_threads) {
    double count = counts[i];
    if (count >= 0) count *= row.options.penalty_decay;
    if (i == token) count = (count < 0 ? 0 : count) + 1;
    counts[i] = count;
  }
  if (thread == 0) {
    tokens[r] = static_cast<Token>(token);
    ++memory.draws[r];
  }
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
