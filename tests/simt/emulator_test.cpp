/// Oracle: results computed by hand, and faults put into kernels on purpose, each of which the emulator must report.
#include <doctest/doctest.h>

#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "device.hpp"

namespace {

constexpr std::uint64_t seeds[] = {1, 2, 3, 4, 5, 6, 7, 8};

/// The message of the error that a launch ends with; empty when there is none.
template <class Kernel, class... Args>
std::string error_of(const simt::Launch& how, Kernel kernel, Args... args) {
  try {
    simt::launch(how, kernel, args...);
  } catch (const simt::Error& error) {
    return error.what();
  }
  return {};
}

bool mentions(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// Sums a block's numbers in a tree; `Barriers` false leaves out the barrier between the levels.
template <class Element, bool Barriers>
__global__ void sum_block(const int* numbers, int* sum) {
  __shared__ Element partial[64];
  const unsigned i = threadIdx.x;
  partial[i] = numbers[blockIdx.x * blockDim.x + i];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (i < half) partial[i] += static_cast<int>(partial[i + half]);
    if (Barriers) __syncthreads();
  }
  if (i == 0) sum[blockIdx.x] = partial[0];
}

std::vector<int> counting(std::size_t size) {
  std::vector<int> numbers(size);
  std::iota(numbers.begin(), numbers.end(), 1);
  return numbers;
}

TEST_CASE("simt: a block reduces through shared memory in any order of its threads and blocks") {
  const std::vector<int> numbers = counting(3 * 64);
  for (const std::uint64_t seed : seeds) {
    int sums[3] = {};
    simt::launch({.grid = {3}, .block = {64}, .seed = seed, .block_seed = seed - 1}, sum_block<simt::Shared<int>, true>,
                 numbers.data(), sums);
    CHECK(sums[0] == 64 * 65 / 2);
    CHECK(sums[1] == 64 * 65 / 2 + 64 * 64);
    CHECK(sums[2] == 64 * 65 / 2 + 2 * 64 * 64);
  }
}

TEST_CASE("simt: a missing barrier is reported as a race and makes results wrong") {
  const std::vector<int> numbers = counting(64);
  int wrong = 0;
  for (const std::uint64_t seed : seeds) {
    int sum = 0;
    CHECK(mentions(error_of({.block = {64}, .seed = seed}, sum_block<simt::Shared<int>, false>, numbers.data(), &sum),
                   "without a barrier in between"));
    simt::launch({.block = {64}, .seed = seed, .check_races = false}, sum_block<simt::Shared<int>, false>,
                 numbers.data(), &sum);
    wrong += sum != 64 * 65 / 2;
    simt::launch({.block = {64}, .seed = seed}, sum_block<int, false>, numbers.data(), &sum);
    wrong += sum != 64 * 65 / 2;
  }
  CHECK(wrong == 2 * static_cast<int>(std::size(seeds)));
}

__global__ void write_together(int* out) {
  __shared__ simt::Shared<int> one;
  one = static_cast<int>(threadIdx.x);
  __syncthreads();
  *out = one;
}
__global__ void read_then_write(int* out) {
  __shared__ simt::Shared<int> one;
  if (threadIdx.x == 0) one = 1;
  __syncthreads();
  out[threadIdx.x] = one;
  if (threadIdx.x == 0) one = 2;
}
__global__ void read_unwritten(int* out) {
  __shared__ simt::Shared<int> one;
  if (blockIdx.x == 0) one = 1;
  *out = one;
}

TEST_CASE("simt: every kind of race on shared memory is reported, in any order") {
  int out[32];
  for (const std::uint64_t seed : seeds) {
    CHECK(mentions(error_of({.block = {2}, .seed = seed}, write_together, out), "without a barrier in between"));
    CHECK(mentions(error_of({.block = {32}, .seed = seed}, read_then_write, out), "without a barrier in between"));
    CHECK(mentions(error_of({.grid = {2}, .seed = seed}, read_unwritten, out), "has not written"));
  }
}

/// Threads of a warp hand a number on through shared memory; only __syncwarp orders them.
template <bool Barrier>
__global__ void rotate_in_warp(int* out) {
  __shared__ simt::Shared<int> slots[64];
  const unsigned i = threadIdx.x, warp = i / 32 * 32;
  slots[i] = static_cast<int>(i);
  if (Barrier) __syncwarp();
  out[i] = slots[warp + (i + 1) % 32];
}
__global__ void rotate_in_block(int* out) {
  __shared__ simt::Shared<int> slots[64];
  slots[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = slots[(threadIdx.x + 1) % 64];
}

TEST_CASE("simt: __syncwarp orders the lanes of a warp and no others") {
  int out[64];
  for (const std::uint64_t seed : seeds) {
    CHECK(error_of({.block = {64}, .seed = seed}, rotate_in_warp<true>, out).empty());
    for (int i = 0; i < 64; ++i) CHECK(out[i] == i / 32 * 32 + (i + 1) % 32);
    // Which message depends on who comes first: a read before the write, or a write and a read with nothing in between.
    CHECK(!error_of({.block = {64}, .seed = seed}, rotate_in_warp<false>, out).empty());
    CHECK(!error_of({.block = {64}, .seed = seed}, rotate_in_block, out).empty());
  }
}

struct Shuffled {
  int first, up, down, mirrored, third_of_eight, prefix;
  double wide;
};
__global__ void shuffle(Shuffled* out) {
  const int i = static_cast<int>(threadIdx.x);
  Shuffled& mine = out[i];
  mine.first = __shfl_sync(~0u, i, 0);
  mine.up = __shfl_up_sync(~0u, i, 3);
  mine.down = __shfl_down_sync(~0u, i, 5, 16);
  mine.mirrored = __shfl_xor_sync(~0u, i, 31);
  mine.third_of_eight = __shfl_sync(~0u, i, 3, 8);
  mine.wide = __shfl_xor_sync(~0u, i + 0.25, 1);
  mine.prefix = i;
  for (int delta = 1; delta < 32; delta *= 2) {
    const int before = __shfl_up_sync(~0u, mine.prefix, delta);
    if (i % 32 >= delta) mine.prefix += before;
  }
}

TEST_CASE("simt: shuffles move numbers between the lanes of a warp") {
  for (const std::uint64_t seed : seeds) {
    Shuffled out[64];
    simt::launch({.block = {64}, .seed = seed}, shuffle, out);
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32, warp = i - lane;
      CHECK(out[i].first == warp);
      CHECK(out[i].up == (lane < 3 ? i : i - 3));
      CHECK(out[i].down == (lane % 16 + 5 < 16 ? i + 5 : i));
      CHECK(out[i].mirrored == warp + 31 - lane);
      CHECK(out[i].third_of_eight == i / 8 * 8 + 3);
      CHECK(out[i].wide == (i ^ 1) + 0.25);
      CHECK(out[i].prefix == (warp + i) * (lane + 1) / 2);
    }
  }
}

struct Voted {
  unsigned odd, upper;
  int any, all, none, sum, of_half;
};
__global__ void vote(Voted* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  Voted& mine = out[i];
  mine.odd = __ballot_sync(~0u, lane % 2);
  mine.any = __any_sync(~0u, lane == 7);
  mine.all = __all_sync(~0u, lane < 32);
  mine.none = __any_sync(~0u, lane > 31) || __all_sync(~0u, lane != 7);
  mine.sum = __reduce_add_sync(~0u, i - 20);
  // Halves that go different ways, each with lanes of its own.
  if (lane < 16) {
    mine.upper = __ballot_sync(0xffffu, 1);
    mine.of_half = __shfl_sync(0xffffu, i, 3);
  } else {
    mine.upper = __ballot_sync(0xffff0000u, 1);
    mine.of_half = __shfl_sync(0xffff0000u, i, 20);
  }
}

TEST_CASE("simt: the lanes of a warp vote and add") {
  for (const std::uint64_t seed : seeds) {
    Voted out[64];
    simt::launch({.block = {64}, .seed = seed}, vote, out);
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32, warp = i - lane;
      CHECK(out[i].odd == 0xaaaaaaaau);
      CHECK(out[i].any == 1);
      CHECK(out[i].all == 1);
      CHECK(out[i].none == 0);
      CHECK(out[i].sum == 32 * (warp - 20) + 31 * 16);
      CHECK(out[i].upper == (lane < 16 ? 0xffffu : 0xffff0000u));
      CHECK(out[i].of_half == warp + (lane < 16 ? 3 : 20));
    }
  }
}

TEST_CASE("simt: bits are counted as CUDA does") {
  CHECK(__popc(0xf0f0u) == 8);
  CHECK(__clz(1) == 31);
  CHECK(__clz(0) == 32);
  CHECK(__ffs(0) == 0);
  CHECK(__ffs(8) == 4);
  CHECK(__uint_as_float(__float_as_uint(1.5f)) == 1.5f);
  CHECK(alignof(float4) == 16);
  CHECK(make_float4(1, 2, 3, 4).w == 4);
}

__global__ void leave_early() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void wait_at_two_places() {
  if (threadIdx.x % 2 == 0) __syncthreads();
  else __syncthreads();
}
__global__ void wait_too_often() {
  for (unsigned i = 0; i <= threadIdx.x; ++i) __syncthreads();
}
__global__ void shuffle_in_part(int* out) {
  if (threadIdx.x % 32 < 16) *out = __shfl_down_sync(~0u, 1, 1);
}
__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) *out = __shfl_xor_sync(0xffffu, 1, 16);
}

TEST_CASE("simt: threads that diverge at a barrier are reported") {
  int out = 0;
  for (const std::uint64_t seed : seeds) {
    CHECK(mentions(error_of({.block = {8}, .seed = seed}, leave_early), "thread 3 has ended"));
    CHECK(mentions(error_of({.block = {8}, .seed = seed}, wait_at_two_places), "diverge"));
    CHECK(mentions(error_of({.block = {8}, .seed = seed}, wait_too_often), "thread 0 has ended"));
    CHECK(mentions(error_of({.block = {64}, .seed = seed}, shuffle_in_part, &out), "diverge"));
    CHECK(mentions(error_of({.block = {32}, .seed = seed}, shuffle_from_outside, &out), "outside its mask"));
  }
  CHECK(mentions(error_of({.block = {8}}, wait_at_two_places), "emulator_test.cpp:"));
}

template <class Element>
__global__ void reverse(int* numbers) {
  auto* slots = simt::dynamic_shared<Element>();
  const unsigned i = threadIdx.x;
  slots[i] = numbers[i];
  __syncthreads();
  numbers[i] = slots[blockDim.x - 1 - i];
}
__global__ void read_dynamic(float* out) { *out = simt::dynamic_shared<float>()[threadIdx.x]; }

TEST_CASE("simt: dynamic shared memory is as large as the launch says and starts as NaN") {
  for (const std::uint64_t seed : seeds) {
    std::vector<int> numbers = counting(37);
    simt::launch({.block = {37}, .shared_bytes = 37 * sizeof(int), .seed = seed}, reverse<int>, numbers.data());
    CHECK(numbers.front() == 37);
    CHECK(numbers.back() == 1);
    simt::launch({.block = {37}, .shared_bytes = 37 * sizeof(simt::Shared<int>), .seed = seed},
                 reverse<simt::Shared<int>>, numbers.data());
    CHECK(numbers == counting(37));
  }
  float unset = 0;
  simt::launch({.shared_bytes = sizeof(float)}, read_dynamic, &unset);
  CHECK(unset != unset);
}

__global__ void count(int* total, int* largest, unsigned* tickets) {
  __shared__ simt::Shared<int> of_block;
  if (threadIdx.x == 0) of_block = 0;
  __syncthreads();
  atomicAdd(&of_block, 1);
  atomicMax(largest, static_cast<int>(threadIdx.x));
  __syncthreads();
  if (threadIdx.x != 0) return;
  atomicAdd(total, static_cast<int>(of_block));
  tickets[blockIdx.x] = atomicAdd(tickets + gridDim.x, 1u);
}
/// A lock is held by one thread at a time; without it, additions that give way in the middle get lost.
template <bool Locked>
__global__ void add_under_lock(int* lock, int* sum) {
  while (Locked && atomicCAS(lock, 0, 1) != 0) continue;
  const int before = *sum;
  atomicExch(lock + 1, 0);
  *sum = before + 1;
  if (Locked) atomicExch(lock, 0);
}
__global__ void wait_for_nobody(int* flag) {
  while (atomicAdd(flag, 0) == 0) continue;
}

TEST_CASE("simt: atomics on global and shared memory") {
  std::set<std::vector<unsigned>> orders;
  for (const std::uint64_t seed : seeds) {
    int total = 0, largest = 0;
    std::vector<unsigned> tickets(6);
    simt::launch({.grid = {5}, .block = {40}, .seed = seed, .block_seed = seed}, count, &total, &largest,
                 tickets.data());
    CHECK(total == 200);
    CHECK(largest == 39);
    CHECK(tickets.back() == 5);
    orders.insert(tickets);

    int lock[2] = {}, sum = 0;
    simt::launch({.block = {40}, .seed = seed}, add_under_lock<true>, lock, &sum);
    CHECK(sum == 40);
    sum = 0;
    simt::launch({.block = {40}, .seed = seed}, add_under_lock<false>, lock, &sum);
    CHECK(sum < 40);
  }
  CHECK(orders.size() > 4);
  int flag = 0;
  CHECK(mentions(error_of({.block = {2}}, wait_for_nobody, &flag), "spin without end"));
}

__global__ void accumulate(double* sum, float* total, unsigned long long* count, int* least, unsigned* bits) {
  atomicAdd(sum, 0.5);
  atomicAdd(total, 2.f);
  atomicAdd(count, 1ull << 33);
  atomicMin(least, static_cast<int>(threadIdx.x));
  atomicOr(bits, 1u << threadIdx.x);
  atomicAnd(bits + 1, ~(1u << threadIdx.x));
  atomicSub(bits + 2, 1u);
}

TEST_CASE("simt: atomics of every type and kind") {
  double sum = 0;
  float total = 0;
  unsigned long long count = 0;
  int least = 100;
  unsigned bits[3] = {0, ~0u, 32};
  simt::launch({.block = {32}}, accumulate, &sum, &total, &count, &least, bits);
  CHECK(sum == 16);
  CHECK(total == 64);
  CHECK(count == 1ull << 38);
  CHECK(least == 0);
  CHECK(bits[0] == ~0u);
  CHECK(bits[1] == 0);
  CHECK(bits[2] == 0);
}

__global__ void mark(int* visits) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  ++visits[block * blockDim.x * blockDim.y * blockDim.z + thread];
}
__global__ void record_order(std::vector<unsigned>* order) { order->push_back(threadIdx.x); }
__global__ void raise() { throw std::out_of_range("from a kernel"); }

TEST_CASE("simt: a launch covers its grid once, in an order that the seed decides") {
  std::vector<int> visits(2 * 3 * 4 * 5 * 3 * 2);
  simt::launch({.grid = {2, 3, 4}, .block = {5, 3, 2}, .block_seed = 9}, mark, visits.data());
  CHECK(visits == std::vector<int>(visits.size(), 1));

  std::set<std::vector<unsigned>> orders;
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (const std::uint64_t seed : seeds) {
      std::vector<unsigned> order;
      simt::launch({.block = {16}, .seed = seed}, record_order, &order);
      orders.insert(order);
    }
  }
  CHECK(orders.size() == std::size(seeds));
  CHECK_THROWS_AS(simt::launch({.block = {4}}, raise), std::out_of_range);
  CHECK(mentions(error_of({.block = {1025}}, raise), "1 to 1024 threads"));
}

}  // namespace
