#pragma once
/// A kernel as a user writes it on top of the library's block scan.
#include "rwkv/backend/cuda/recur/cub_scan.cuh"

namespace simt {

/// Runs a cell of two inputs over one sequence, x [2, time], state [state_size], y [time].
template <class C, class T, int Threads>
RWKV_KERNEL void __launch_bounds__(Threads) block_scan_kernel(const T* x, rwkv::Index time, T* state, T* y) {
  using Scan = rwkv::TimeScan<C, T, Threads>;
  using R = typename Scan::Number;
  __shared__ typename Scan::Storage storage;
  R carry[C::state_size];
  for (int n = 0; n < C::state_size; ++n) carry[n] = R(state[n]);
  for (rwkv::Index begin = 0; begin < time; begin += Threads) {
    const rwkv::Index t = begin + threadIdx.x;
    // Threads beyond the end repeat the last token; their results are not used.
    const rwkv::Index from = t < time ? t : time - 1;
    R token[rwkv::input_count<C>], now[C::state_size];
    for (std::size_t i = 0; i < rwkv::input_count<C>; ++i) token[i] = R(x[static_cast<rwkv::Index>(i) * time + from]);
    for (int n = 0; n < C::state_size; ++n) now[n] = carry[n];
    const auto all = Scan(storage).states_block(token, now);
    C::enter(carry, all);
    if (t < time) {
      C::step(now, static_cast<const R(&)[rwkv::input_count<C>]>(token)).store(y + t);
      if (t == time - 1) {
        for (int n = 0; n < C::state_size; ++n) now[n].store(state + n);
      }
    }
    __syncthreads();
  }
}

}  // namespace simt
