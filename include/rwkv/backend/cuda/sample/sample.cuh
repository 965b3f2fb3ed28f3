#pragma once
/// From logits on the device to the next tokens, without the host: the choice of text/sampler.hpp, one block for each
/// sequence. Random numbers are those of the host; sums do not depend on the order of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/fwd.hpp"

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

/// What sequences remember between tokens, and what went wrong.
struct SampleMemory {
  static constexpr double never = -1;

  double* counts;         // [rows, vocab]: how often a token was picked, decayed; or `never`
  std::uint64_t* draws;   // [rows]
  Index* faults;          // [rows]: 1 + the logit that is not below infinity, 1 + vocab when all are -inf, or 0
  std::uint64_t mass_of;  ///< what the most likely token weighs where weights are whole numbers
};

/// The logits of a sequence after the penalties, and the order of its tokens: the most likely first, equal ones by id.
template <class T>
struct SampleRow {
  const T* logits;
  const double* counts;
  Index vocab;
  CudaSampling options;
  double largest = 0;

  __device__ double logit(Index i) const {
    const double x = widen<double>(logits[i]), count = counts[i];
    if (count == SampleMemory::never) return x + 0.0;  // one zero
    return x - (options.presence_penalty + options.frequency_penalty * count) + 0.0;
  }
  /// Ascends as tokens get less likely.
  __device__ static std::uint64_t key(double logit) {
    const auto bits = detail::bits_as<std::uint64_t>(logit);
    return (bits >> 63) != 0 ? bits : ~(bits | (std::uint64_t{1} << 63));
  }
  __device__ std::uint64_t mass(double logit, std::uint64_t mass_of) const {
    using std::exp;
    return static_cast<std::uint64_t>(exp(logit - largest) * static_cast<double>(mass_of) + 0.5);
  }
};

/// A bucket of tokens, found digit by digit: first the distance from the largest logit in steps of 1/64, then the
/// digits of the key.
struct SampleBucket {
  static constexpr int digits = 7, digit_bits = 11;

  int known = 0;  ///< digits
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

/// Numbers that the threads of a block share.
struct SampleShared {
  detail::Shared<unsigned> count[sample_buckets];
  detail::Shared<unsigned long long> mass[sample_buckets];
  detail::Shared<double> sums[sample_warps];
  detail::Shared<Index> places[sample_warps], faults[sample_warps];
  detail::Shared<int> digit;
  detail::Shared<Index> before, tokens, found;
  detail::Shared<unsigned long long> mass_before, key;
};

/// The first i for which weight(0) + ... + weight(i) is above target(all), else the last whose weight is not zero.
/// Warps take neighbouring stretches.
template <class Weight, class Target>
__device__ Index find_weight(SampleShared& shared, Index vocab, const Weight& weight, const Target& target_of) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  constexpr Index step = Index{sample_warps} * warp_size;
  const Index stretch = (vocab + step - 1) / step * warp_size, begin = stretch * warp;
  const Index end = begin + stretch < vocab ? begin + stretch : vocab;
  double own = 0;
  for (Index i = begin + lane; i < end; i += warp_size) own += weight(i);
  own = warp_sum(own);
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

/// The tokens that top-k and top-p keep: all before `key` in their order, and those at it up to the id `last`.
struct SampleCut {
  std::uint64_t key = ~std::uint64_t{0};
  Index last = 0;

  __device__ bool keeps(std::uint64_t other, Index i) const { return other < key || (other == key && i <= last); }
};

template <class T>
__device__ SampleCut cut_tokens(SampleShared& shared, const SampleRow<T>& row, std::uint64_t mass_of) {
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
      // Each lane takes neighbouring buckets; the one in which the cut falls looks for it.
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

  // The key of the bucket's tokens, one or several of equal logits, and how many of them are kept.
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
  return {key, find_weight(shared, vocab, is_tie, [&](double) { return static_cast<double>(kept) - 0.5; })};
}

/// Picks a token of every row of logits; a block takes a row. Rows with a fault keep their token and their memory.
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
  // Read once: the host may set the options of the next token, on which the threads of a block must agree.
  if (thread == 0) own_options = options[r];
  __syncthreads();
  SampleRow<T> row{logits.row(r), counts, vocab, own_options};

  // The most likely token, the first that is not below infinity, and whether any is possible.
  constexpr double infinity = HUGE_VAL;
  double largest = -infinity;
  Index place = vocab, fault = vocab + 1;
  for (Index i = thread; i < vocab; i += sample_threads) {
    const auto raw = widen<double>(row.logits[i]);
    if (!(raw < infinity)) fault = i < fault ? i : fault;
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
    const SampleCut cut = cut_tokens(shared, row, memory.mass_of);
    const double part = Philox{.key = row.options.seed}.block(memory.draws[r]).uniform_double(0);
    const auto weight = [&](Index i) {
      using std::exp;
      const double x = row.logit(i);
      return cut.keeps(row.key(x), i) ? exp((x - largest) / row.options.temperature) : 0.0;
    };
    token = find_weight(shared, vocab, weight, [&](double all) { return all * part; });
  }
  __syncthreads();
  for (Index i = thread; i < vocab; i += sample_threads) {
    double count = counts[i];
    if (count != SampleMemory::never) count *= row.options.penalty_decay;
    if (i == token) count = (count == SampleMemory::never ? 0 : count) + 1;
    counts[i] = count;
  }
  if (thread == 0) {
    tokens[r] = static_cast<Token>(token);
    ++memory.draws[r];
  }
}

}  // namespace gpu

/// Draws the next token of each of `rows` sequences from logits on the device, as Sampler does on the host: from the
/// same logits and seed the same token, except where the last bits decide. Every sequence has options and a memory of
/// its own. `B` is a CUDA backend, whose stream the work is queued in.
template <class B>
class CudaSampler {
 public:
  CudaSampler(CudaSampler&&) = default;
  CudaSampler& operator=(CudaSampler&&) = default;

  /// For up to `rows` sequences; `be` is the backend of the calls.
  CudaSampler(const B& be, Index rows, Index vocab) : rows_(rows), vocab_(vocab) {
    expects(rows > 0 && rows < (Index{1} << 31), "rwkv: sampler: there are ", rows, " sequences");
    expects(vocab > 0 && vocab <= (Index{1} << 30), "rwkv: sampler: there are ", vocab, " logits");
    held_ = std::make_shared<Held>(be, rows, vocab);
    int bits = 62;
    for (Index tokens = 1; tokens < vocab; tokens *= 2) --bits;
    memory_ = {.counts = held_->counts,
               .draws = held_->draws,
               .faults = held_->faults.numbers().data(),
               .mass_of = std::uint64_t{1} << (bits < 46 ? bits : 46)};
    held_->be.fill(matrix(memory_.draws, 1, rows), std::uint64_t{0});
    reset();
  }
  /// For the sequences of a context.
  template <class M>
  explicit CudaSampler(const Context<M>& context)
      : CudaSampler(context.runs_on(), context.capacity(), context.vocab()) {}

  /// The options of a sequence, from the next call on.
  /// Errors: options out of range; they are left as they were.
  void set(Index row, const CudaSampling& options) {
    check_row(row);
    expects(std::isfinite(options.temperature) && options.temperature >= 0,
            "rwkv: sampler: the temperature must be finite and at least 0, not ", options.temperature);
    expects(options.top_k >= 0, "rwkv: sampler: top_k must be at least 0, not ", options.top_k);
    expects(options.top_p >= 0 && options.top_p <= 1, "rwkv: sampler: top_p must be between 0 and 1, not ",
            options.top_p);
    expects(std::isfinite(options.presence_penalty), "rwkv: sampler: the presence penalty must be finite, not ",
            options.presence_penalty);
    expects(std::isfinite(options.frequency_penalty), "rwkv: sampler: the frequency penalty must be finite, not ",
            options.frequency_penalty);
    expects(options.penalty_decay >= 0 && options.penalty_decay <= 1,
            "rwkv: sampler: the penalty decay must be between 0 and 1, not ", options.penalty_decay);
    held().be.sync();  // a kernel may be reading them
    options_of(row) = options;
  }

  /// Queues one token of every sequence. A sequence whose logits hold a NaN or +inf, or only -inf, keeps its token and
  /// its memory, and `check` says so.
  /// Shapes    logits: [rows or fewer, vocab]   tokens: [rows of logits], memory from allocate or allocate_host
  template <class T, Index N>
  void operator()(const B& be, Mat<T, N> logits, Token* tokens) {
    const Index got[] = {logits.rows, logits.cols}, want[] = {rows_, vocab_};
    expects(got[0] <= want[0] && got[1] == want[1], "rwkv: sampler: logits have shape ", std::span(got),
            ", which does not fit a sampler of ", std::span(want));
    expects(be.stream().handle() == held().be.stream().handle(),
            "rwkv: sampler: it was made for another backend or context");
    using Number = std::remove_const_t<T>;
    const Mat<const Number> from{logits.data, logits.rows, vocab_, logits.stride};
    be.stream().launch({.grid = dim3(static_cast<unsigned>(logits.rows)),
                        .block = dim3(gpu::sample_threads),
                        .shared_bytes = 0,
                        .early = true},
                       gpu::sample_kernel<Number>, from, static_cast<const CudaSampling*>(&options_of(0)), memory_,
                       tokens);
  }

  /// Waits, and throws an Error for the first sequence that had no token to pick since the last call.
  void check() {
    held().be.sync();
    const std::span<Index> faults = held().faults.numbers();
    for (std::size_t r = 0; r < faults.size(); ++r) {
      const Index fault = std::exchange(faults[r], 0);
      if (fault == 0) continue;
      std::fill(faults.begin(), faults.end(), Index{0});
      expects(fault <= vocab_, "rwkv: sampler: all ", vocab_, " logits of sequence ", r,
              " are -inf, so no token is possible");
      fail("rwkv: sampler: logit ", fault - 1, " of sequence ", r,
           " is not a number or +inf; it must be finite or -inf");
    }
  }

  /// Forgets the tokens picked so far, for new texts. The random sequences go on.
  void reset() { held().be.fill(matrix(memory_.counts, rows_, vocab_), gpu::SampleMemory::never); }
  /// The same for one sequence.
  void reset(Index row) {
    check_row(row);
    held().be.fill(counts_of(row), gpu::SampleMemory::never);
  }

  /// Sequence `to` goes on as `from` does: with its options, its tokens and its random sequence. To follow
  /// Context::remove(to), `from` is the last sequence of the context before.
  void copy(Index from, Index to) {
    check_row(from);
    check_row(to);
    if (from == to) return;
    held().be.copy(counts_of(from), counts_of(to));
    held().be.copy(matrix(memory_.draws + from, 1, 1), matrix(memory_.draws + to, 1, 1));
    held().be.sync();
    options_of(to) = options_of(from);
  }

  /// What queued calls refer to; recordings of them must keep it.
  std::shared_ptr<const void> owner() const { return held_; }

 private:
  struct Held {
    B be;
    Exchange<Index, B> faults;
    Exchange<CudaSampling, B> options;
    double* counts;        // [rows, vocab]
    std::uint64_t* draws;  // [rows], in the same block

    Held(const B& backend, Index rows, Index vocab)
        : be(backend), faults(be, static_cast<std::size_t>(rows)), options(be, static_cast<std::size_t>(rows)),
          counts(be.template allocate<double>(rows * vocab + rows)),
          draws(reinterpret_cast<std::uint64_t*>(counts + rows * vocab)) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { be.free(counts); }
  };

  Held& held() const {
    expects(held_ != nullptr, "rwkv: sampler: it was moved from");
    return *held_;
  }
  void check_row(Index row) const {
    expects(row >= 0 && row < rows_, "rwkv: sampler: there is no sequence ", row, " among ", rows_);
  }
  CudaSampling& options_of(Index row) { return held().options.numbers()[static_cast<std::size_t>(row)]; }
  Mat<double> counts_of(Index row) const { return matrix(memory_.counts + row * vocab_, 1, vocab_); }

  Index rows_, vocab_;
  std::shared_ptr<Held> held_;
  gpu::SampleMemory memory_{};
};

template <class M>
CudaSampler(const Context<M>&) -> CudaSampler<typename M::backend>;

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
