#pragma once
/// Stands in for CUB's header, in tests only: the same class as device code with barriers, so that the emulator reports
/// barriers that its user forgets. Sums from left to right, so results do not depend on the block's shape.
#include "../../../builtins.hpp"

namespace cub {

enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };

template <class T, int BlockX, BlockScanAlgorithm = BLOCK_SCAN_RAKING, int BlockY = 1, int BlockZ = 1>
class BlockScan {
  static constexpr unsigned threads = unsigned{BlockX} * BlockY * BlockZ;

 public:
  struct TempStorage {
    simt::Shared<T> items[threads];
  };

  explicit BlockScan(TempStorage& storage) : items_(storage.items) {}

  // One item per thread. Without an initial value, the first thread gets no result from an exclusive scan.

  template <class Op>
  void InclusiveScan(T input, T& output, Op op) {
    T all;
    InclusiveScan(input, output, op, all);
  }
  template <class Op>
  void InclusiveScan(T input, T& output, Op op, T& all) {
    scan(input, op);
    output = items_[thread()];
    all = items_[threads - 1];
  }
  template <class Op>
  void ExclusiveScan(T input, T& output, Op op) {
    T all;
    ExclusiveScan(input, output, op, all);
  }
  template <class Op>
  void ExclusiveScan(T input, T& output, Op op, T& all) {
    scan(input, op);
    if (thread() > 0) output = items_[thread() - 1];
    all = items_[threads - 1];
  }
  template <class Op>
  void ExclusiveScan(T input, T& output, T initial, Op op) {
    T all;
    ExclusiveScan(input, output, initial, op, all);
  }
  template <class Op>
  void ExclusiveScan(T input, T& output, T initial, Op op, T& all) {
    ExclusiveScan(input, output, op, all);
    output = thread() > 0 ? T(op(initial, output)) : initial;
  }
  void InclusiveSum(T input, T& output) { InclusiveScan(input, output, plus); }
  void InclusiveSum(T input, T& output, T& all) { InclusiveScan(input, output, plus, all); }
  void ExclusiveSum(T input, T& output) { ExclusiveScan(input, output, T{}, plus); }
  void ExclusiveSum(T input, T& output, T& all) { ExclusiveScan(input, output, T{}, plus, all); }

  // Several items per thread, one after the other.

  template <int Items, class Op>
  void InclusiveScan(T (&input)[Items], T (&output)[Items], Op op) {
    T all;
    InclusiveScan(input, output, op, all);
  }
  template <int Items, class Op>
  void InclusiveScan(T (&input)[Items], T (&output)[Items], Op op, T& all) {
    T before = input[0];
    ExclusiveScan(reduce(input, op), before, op, all);
    output[0] = thread() > 0 ? T(op(before, input[0])) : input[0];
    for (int i = 1; i < Items; ++i) output[i] = op(output[i - 1], input[i]);
  }
  template <int Items, class Op>
  void ExclusiveScan(T (&input)[Items], T (&output)[Items], T initial, Op op) {
    T all;
    ExclusiveScan(input, output, initial, op, all);
  }
  template <int Items, class Op>
  void ExclusiveScan(T (&input)[Items], T (&output)[Items], T initial, Op op, T& all) {
    T before = initial;
    ExclusiveScan(reduce(input, op), before, initial, op, all);
    for (int i = 0; i < Items; ++i) {
      const T item = input[i];  // input and output may be one array
      output[i] = before;
      before = op(before, item);
    }
  }

 private:
  static constexpr auto plus = [](const auto& a, const auto& b) { return T(a + b); };

  static unsigned thread() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

  template <int Items, class Op>
  static T reduce(T (&input)[Items], Op op) {
    T all = input[0];
    for (int i = 1; i < Items; ++i) all = op(all, input[i]);
    return all;
  }
  template <class Op>
  void scan(T input, Op op) {
    items_[thread()] = input;
    __syncthreads();
    if (thread() == 0) {
      for (unsigned i = 1; i < threads; ++i) {
        items_[i] = op(static_cast<T>(items_[i - 1]), static_cast<T>(items_[i]));
      }
    }
    __syncthreads();
  }

  simt::Shared<T>* items_;
};

}  // namespace cub
