#pragma once
/// Stands in for CUB's header, in tests only: the same class as device code with barriers, so that the emulator reports
/// barriers that its user forgets. Only the first thread gets the result; the others get rubbish.
#include <cstring>
#include <type_traits>

#include "../../../builtins.hpp"

namespace cub {

enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };

template <class T, int BlockX, BlockReduceAlgorithm = BLOCK_REDUCE_WARP_REDUCTIONS, int BlockY = 1, int BlockZ = 1>
class BlockReduce {
  static constexpr int threads = BlockX * BlockY * BlockZ;

 public:
  struct TempStorage {
    simt::Shared<T> items[threads];
  };

  explicit BlockReduce(TempStorage& storage) : items_(storage.items) {}

  template <class Op>
  T Reduce(T input, Op op) {
    return Reduce(input, op, threads);
  }
  /// Of the first `valid` threads.
  template <class Op>
  T Reduce(T input, Op op, int valid) {
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    items_[thread] = input;
    __syncthreads();
    if (thread == 0) {
      for (int i = 1; i < valid; ++i) input = op(input, static_cast<T>(items_[i]));
    } else if constexpr (std::is_trivially_copyable_v<T>) {
      std::memset(static_cast<void*>(&input), 0xff, sizeof input);
    }
    return input;
  }
  template <int Items, class Op>
  T Reduce(T (&inputs)[Items], Op op) {
    T all = inputs[0];
    for (int i = 1; i < Items; ++i) all = op(all, inputs[i]);
    return Reduce(all, op);
  }
  T Sum(T input) { return Reduce(input, plus); }
  T Sum(T input, int valid) { return Reduce(input, plus, valid); }
  template <int Items>
  T Sum(T (&inputs)[Items]) {
    return Reduce(inputs, plus);
  }

 private:
  static constexpr auto plus = [](const auto& a, const auto& b) { return T(a + b); };

  simt::Shared<T>* items_;
};

}  // namespace cub
