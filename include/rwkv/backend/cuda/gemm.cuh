#pragma once
/// The verb `gemm` on a GPU: which kernel computes which product.
#include "rwkv/backend/cuda/gemm_fma.cuh"
#include "rwkv/backend/cuda/gemm_mma.cuh"

namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI {

namespace gpu {

/// Tiles, for any number of rows: on tensor cores where they multiply the types, except on devices from before those
/// knew bf16.
template <class X, class W, class Y>
void gemm_tiles(const CudaStream& stream, const X& x, const W& w, const Y& y) {
  using Terms = MmaTerms<typename X::element, typename W::element>;
  if constexpr (on_tensor_cores<typename X::element, typename W::element>) {
    if (stream.properties().major >= 8) {
      constexpr bool split = Terms::x > 1;
      constexpr MmaTile tile = mma_tile(split, true);
      if (fills_with({tile.rows, tile.cols}, y.rows, y.cols)) {
        return launch_mma<MmaTileFor<split, true>, Terms>(stream, x, w, y);
      }
      return launch_mma<MmaTileFor<split, false>, Terms>(stream, x, w, y);
    }
  }
  constexpr int bytes = sizeof(typename Y::scalar);
  if constexpr (bytes <= 4 && !on_tensor_cores<typename X::element, typename W::element>) {
    constexpr FmaTile tile = fma_tile(bytes, true);
    if (fills_with({tile.rows, tile.cols}, y.rows, y.cols)) return launch_fma<FmaTileFor<bytes, true>>(stream, x, w, y);
  }
  launch_fma<FmaTileFor<bytes, false>>(stream, x, w, y);
}

template <class T, class W, class Epilogue>
void gemm_one(const CudaStream& stream, const Product<T, W, Epilogue>& p) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  gemm_tiles(stream, Factor<T, Along::depth>(p.x), Factor<W, Along::depth>(p.w), Output(p.y, false, p.epilogue));
}

template <class T, class W>
void gemm_one(const CudaStream& stream, const PlainProduct<T, W>& p) {
  if (p.y.rows == 0 || p.y.cols == 0 || (p.added && p.depth() == 0)) return;
  const Factor<W, Along::outer> w(p.w);
  const Output<T, Identity> y(p.y, p.added, {});
  if (p.transposed) gemm_tiles(stream, Factor<T, Along::outer>(p.x), w, y);
  else gemm_tiles(stream, Factor<T, Along::depth>(p.x), w, y);
}

/// Computes products whose outputs overlap no factor of any of them.
template <class... P>
void gemm(const CudaStream& stream, const P&... products) {
  (gemm_one(stream, products), ...);
}

}  // namespace gpu

}  // namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI
