/// chain_stress [SECONDS [TOKENS]]: checks of chained scans that need a real device. Words of 128 bits must never be
/// read half written. Many launches over many tiles, also in two streams at once, must give the same bits as the
/// first, and the first must agree with the recurrence token after token.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "device.cuh"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/op/initial_state.hpp"

namespace {

using bench::Cuda;
using bench::Index;
using bench::Numbers;
using rwkv::Extent;
using rwkv::Seq;
namespace arg = rwkv::arg;

constexpr int skipped = 77;

/// Counters on the device.
class Counters {
 public:
  explicit Counters(Cuda be) : backend_(be), memory_(be, 2 * sizeof(unsigned long long)) {
    RWKV_CUDA_TRY(cudaMemset(memory_.data(), 0, static_cast<std::size_t>(memory_.bytes())));
  }
  unsigned long long* data() const { return reinterpret_cast<unsigned long long*>(memory_.data()); }
  unsigned long long operator[](int nth) const {
    unsigned long long values[2];
    backend_.sync();
    RWKV_CUDA_TRY(cudaMemcpy(values, memory_.data(), sizeof values, cudaMemcpyDefault));
    return values[nth];
  }

 private:
  Cuda backend_;
  rwkv::Memory<Cuda> memory_;
};

/// Half of the blocks write words of four equal numbers, the other half reads them. Counts words read and torn ones.
__global__ void words_kernel(rwkv::detail::Word128* words, unsigned rounds, unsigned long long* counters) {
  rwkv::detail::Word128* const word = words + Index{blockIdx.x / 2} * blockDim.x + threadIdx.x;
  if (blockIdx.x % 2 == 0) {
    for (unsigned n = 1; n <= rounds; ++n) rwkv::detail::store_relaxed(word, {n, n, n, n});
    return;
  }
  unsigned torn = 0, changes = 0, last = 0;
  for (unsigned n = 0; n < rounds; ++n) {
    const auto seen = rwkv::detail::load_relaxed(word);
    torn += seen.x != seen.y || seen.x != seen.z || seen.x != seen.w;
    changes += seen.x != last;
    last = seen.x;
  }
  atomicAdd(counters, static_cast<unsigned long long>(torn));
  atomicAdd(counters + 1, static_cast<unsigned long long>(changes));
}

/// Counts numbers that differ in any bit.
__global__ void differences_kernel(const unsigned* a, const unsigned* b, Index count, unsigned long long* counters) {
  unsigned different = 0;
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += Index{gridDim.x} * blockDim.x) {
    different += a[i] != b[i];
  }
  if (different > 0) atomicAdd(counters, static_cast<unsigned long long>(different));
}

/// Counts numbers farther apart than `most`, a NaN being far from all.
__global__ void distances_kernel(const float* a, const float* b, Index count, float most,
                                 unsigned long long* counters) {
  unsigned far = 0;
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += Index{gridDim.x} * blockDim.x) {
    far += !(fabsf(a[i] - b[i]) <= most);
  }
  if (far > 0) atomicAdd(counters, static_cast<unsigned long long>(far));
}

/// WKV4 forward and backward over one long sequence, with its own memory and stream.
class Scans {
 public:
  static constexpr Index width = 192;

  explicit Scans(Index tokens)
      : time(tokens), count(tokens * width), results(3 * count + 2 * width), w_(be_, width, -3, -0.01f, 1),
        u_(be_, width, -1, 1, 2), k_(be_, count, -2, 2, 3), v_(be_, count, -1, 1, 4), dy_(be_, count, -1, 1, 5),
        states_(be_, 3 * width, 0, 1, 6, 3), results_(be_, results, -1, 1, 7), expected_(be_, results, -1, 1, 8),
        counters_(be_) {
    scratch_ = rwkv::scratch_for(be_, [&](rwkv::Arena ws) { run<rwkv::Scan>(ws, results_.data()); });
  }

  /// Runs token after token, then as a scan, with which later runs are compared. Returns how many numbers are too far
  /// apart.
  unsigned long long begin() {
    const auto scratch = rwkv::scratch_for(be_, [&](rwkv::Arena ws) { run<rwkv::Sequential>(ws, results_.data()); });
    run<rwkv::Sequential>(scratch.arena(), results_.data());
    run<rwkv::Scan>(scratch_.arena(), expected_.data());
    be_.stream().launch({dim3(512), dim3(256)}, distances_kernel, results_.data(), expected_.data(), 3 * count, 1e-3f,
                        counters_.data() + 1);
    return counters_[1];
  }
  /// Queues one more launch and its comparison.
  void again() {
    run<rwkv::Scan>(scratch_.arena(), results_.data());
    be_.stream().launch({dim3(512), dim3(256)}, differences_kernel, reinterpret_cast<const unsigned*>(results_.data()),
                        reinterpret_cast<const unsigned*>(expected_.data()), results, counters_.data());
  }
  unsigned long long differences() const { return counters_[0]; }
  void sync() const { be_.sync(); }

 private:
  template <class Schedule>
  void run(rwkv::Arena ws, float* to) {
    constexpr Extent<3> length{};
    const auto of = [&](float* data) { return Seq<float>{data, 1, time, width}; };
    const auto state = [&](Index nth) { return rwkv::matrix(states_.data(nth), 1, 3 * width); };
    const Seq<float> y = of(to), dk = of(to + count), dv = of(to + 2 * count);
    const rwkv::Vec<float> dw{to + 3 * count, width}, du{to + 3 * count + width, width};
    if (!be_.dry) {
      rwkv::reset_state<rwkv::WKV4>(be_, state(0));
      rwkv::reset_state<rwkv::WKV4>(be_, state(1));
      be_.fill(state(2), 0.0f);
      be_.fill(rwkv::matrix(dw.data, 1, 2 * width), 0.0f);
    }
    be_.recur(ws, Schedule{}, rwkv::WKV4{}, length, state(0), arg::chan(w_.channels()), arg::chan(u_.channels()),
              arg::in(of(k_.data())), arg::in(of(v_.data())), arg::out(y));
    be_.recur_back(ws, Schedule{}, rwkv::WKV4{}, length, rwkv::Mat<const float>(state(1)),
                   rwkv::Mat<const float>(state(2)), state(0), arg::chan(w_.channels()), arg::chan(u_.channels()),
                   arg::in(of(k_.data())), arg::in(of(v_.data())), arg::cot(of(dy_.data())), arg::sum(dw), arg::sum(du),
                   arg::out(dk), arg::out(dv));
  }

  Index time, count, results;  // numbers of an array; of y, dk, dv, dw, du together
  Cuda be_;
  Numbers<float> w_, u_, k_, v_, dy_, states_, results_, expected_;
  Counters counters_;
  rwkv::Memory<Cuda> scratch_;
};

bool words_hold(double seconds, unsigned rounds) {
  Cuda be;
  constexpr unsigned pairs = 256, threads = 128;
  const rwkv::Memory<Cuda> words(be, pairs * threads * Index{sizeof(rwkv::detail::Word128)});
  const Counters counters(be);
  const auto begin = std::chrono::steady_clock::now();
  do {
    RWKV_CUDA_TRY(cudaMemset(words.data(), 0, static_cast<std::size_t>(words.bytes())));
    be.stream().launch({dim3(2 * pairs), dim3(threads)}, words_kernel,
                       reinterpret_cast<rwkv::detail::Word128*>(words.data()), rounds, counters.data());
    be.sync();
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds);
  std::cout << "128-bit words: " << counters[1] << " changes seen, " << counters[0] << " torn\n";
  return counters[0] == 0 && counters[1] > 0;
}

bool scans_hold(double seconds, Index tokens) {
  Scans one(tokens), other(tokens);
  const auto far = one.begin() + other.begin();
  Index launches = 0;
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 20; ++i, launches += 2) {
      one.again();
      other.again();
    }
    one.sync();
    other.sync();
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds);
  const auto different = one.differences() + other.differences();
  std::cout << "scans: " << launches << " passes over " << tokens << " tokens in two streams, " << different
            << " numbers differ from the first pass, " << far << " are far from the sequence\n";
  return different == 0 && far == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  const Index tokens = argc > 2 ? std::max(std::atol(argv[2]), 1L) : 40'000;  // makes some hundred tiles in a row
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::cerr << "chain_stress: skipped: there is no CUDA device\n";
    return skipped;
  }
  try {
    const bool words = words_hold(seconds / 2, static_cast<unsigned>(std::min<Index>(tokens, 20'000)));
    const bool scans = scans_hold(seconds / 2, tokens);
    std::cout << (words && scans ? "ok\n" : "FAILED\n");
    return words && scans ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "chain_stress: " << error.what() << '\n';
    return 1;
  }
}
