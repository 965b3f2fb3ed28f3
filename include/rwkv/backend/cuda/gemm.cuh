#pragma once
/// The verb `gemm` on a GPU: which kernel computes which product.
#include "rwkv/backend/cuda/gemm_fma.cuh"
#include "rwkv/backend/cuda/gemm_mma.cuh"
#include "rwkv/backend/cuda/gemm_skinny.cuh"
#include "rwkv/backend/cuda/gemv.cuh"

namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI {

namespace gpu {

/// The kernels, with the rows of x that they take at once.
enum class Route { none, gemv_1, gemv_4, gemv_8, skinny_8, skinny_32, tiles };

/// Devices from before tensor cores knew bf16 use none.
inline bool has_tensor_cores(const CudaStream& stream) { return stream.architecture() >= 80; }

template <class T, class W, class Epilogue>
Route route_of(const Product<T, W, Epilogue>& p, bool tensor_cores) {
  if (p.y.rows == 0 || p.y.cols == 0) return Route::none;
  if (p.y.rows == 1) return Route::gemv_1;
  if (p.y.rows <= 4) return Route::gemv_4;
  if (on_tensor_cores<T, W> && tensor_cores) {
    // More than one pass takes, but too few to fill a large device with tiles of most matrices.
    if (p.y.rows > 128) return Route::tiles;
    return p.y.rows <= 8 ? Route::skinny_8 : Route::skinny_32;
  }
  if (p.y.rows > 32) return Route::tiles;
  return on_tensor_cores<T, W> ? Route::gemv_4 : Route::gemv_8;
}
template <class T, class W>
Route route_of(const PlainProduct<T, W>& p, bool) {
  const bool adds_nothing = p.added && p.depth() == 0;
  return p.y.rows == 0 || p.y.cols == 0 || adds_nothing ? Route::none : Route::tiles;
}

/// Tiles, for any number of rows.
template <class X, class W, class Y>
void launch_tiles(const CudaStream& stream, const X& x, const W& w, const Y& y) {
  using Terms = MmaTerms<typename X::element, typename W::element>;
  constexpr int bytes = sizeof(typename Y::scalar);
  if constexpr (on_tensor_cores<typename X::element, typename W::element>) {
    if (has_tensor_cores(stream)) {
      constexpr bool split = Terms::x > 1;
      constexpr MmaTile tile = mma_tile(split, true);
      if (fills_with({tile.rows, tile.cols}, y.rows, y.cols)) {
        return launch_mma<MmaTileFor<split, true>, Terms>(stream, x, w, y);
      }
      return launch_mma<MmaTileFor<split, false>, Terms>(stream, x, w, y);
    }
  } else if constexpr (bytes <= 4) {
    constexpr FmaTile tile = fma_tile(bytes, true);
    if (fills_with({tile.rows, tile.cols}, y.rows, y.cols)) return launch_fma<FmaTileFor<bytes, true>>(stream, x, w, y);
  }
  launch_fma<FmaTileFor<bytes, false>>(stream, x, w, y);
}

template <class T, class W, class Epilogue>
void gemm_in_tiles(const CudaStream& stream, const Product<T, W, Epilogue>& p) {
  launch_tiles(stream, Factor<T, Along::depth>(p.x), Factor<W, Along::depth>(p.w), Output(p.y, false, p.epilogue));
}
template <class T, class W>
void gemm_in_tiles(const CudaStream& stream, const PlainProduct<T, W>& p) {
  const Factor<W, Along::outer> w(p.w);
  const Output<T, Identity> y(p.y, p.added, {});
  if (p.transposed) launch_tiles(stream, Factor<T, Along::outer>(p.x), w, y);
  else launch_tiles(stream, Factor<T, Along::depth>(p.x), w, y);
}

/// Products as a list of those of few rows sees them: the entry of one, empty unless it has the types and the route of
/// the list, and its epilogue.
template <class T, class W, class P>
struct FewRowsEntry {
  static constexpr bool matches = false;
  static FewRows<T, W> of(const P&, Route, bool) { return {}; }
  static Identity epilogue(const P&) { return {}; }
};
template <class T, class W, class Epilogue>
struct FewRowsEntry<T, W, Product<T, W, Epilogue>> {
  static constexpr bool matches = true;
  static FewRows<T, W> of(const Product<T, W, Epilogue>& p, Route route, bool tensor_cores) {
    return route_of(p, tensor_cores) == route ? few_rows(p) : FewRows<T, W>{};
  }
  static Epilogue epilogue(const Product<T, W, Epilogue>& p) { return p.epilogue; }
};

/// Computes those products of types T and W that have few rows, one launch for each route that any of them takes.
template <class T, class W, class... P>
void launch_few(const CudaStream& stream, const P&... products) {
  if constexpr ((FewRowsEntry<T, W, P>::matches || ...)) {
    const bool tensor_cores = has_tensor_cores(stream);
    const auto on_route = [&](Route route) {
      return FewRowsOf<T, W, sizeof...(P)>{{FewRowsEntry<T, W, P>::of(products, route, tensor_cores)...}};
    };
    launch_gemv<1>(stream, on_route(Route::gemv_1), FewRowsEntry<T, W, P>::epilogue(products)...);
    launch_gemv<4>(stream, on_route(Route::gemv_4), FewRowsEntry<T, W, P>::epilogue(products)...);
    if constexpr (on_tensor_cores<T, W>) {
      launch_skinny<1>(stream, on_route(Route::skinny_8), FewRowsEntry<T, W, P>::epilogue(products)...);
      launch_skinny<4>(stream, on_route(Route::skinny_32), FewRowsEntry<T, W, P>::epilogue(products)...);
    } else {
      launch_gemv<8>(stream, on_route(Route::gemv_8), FewRowsEntry<T, W, P>::epilogue(products)...);
    }
  }
}
template <class T, class... P>
void launch_few_in(const CudaStream& stream, const P&... products) {
  launch_few<T, float>(stream, products...);
  launch_few<T, double>(stream, products...);
  launch_few<T, bf16>(stream, products...);
  launch_few<T, f16>(stream, products...);
}

/// Computes products: x w^T, whose launch of few rows they share, and the adjoints of linear layers. No output overlaps
/// a factor of any of them. Sums are always taken in the same order, which the sizes alone decide.
template <class... P>
void gemm(const CudaStream& stream, const P&... products) {
  launch_few_in<float>(stream, products...);
  launch_few_in<double>(stream, products...);
  launch_few_in<bf16>(stream, products...);
  launch_few_in<f16>(stream, products...);
  const auto in_tiles = [&](const auto& product) {
    if (route_of(product, has_tensor_cores(stream)) == Route::tiles) gemm_in_tiles(stream, product);
  };
  (in_tiles(products), ...);
}

}  // namespace gpu

/// The library's own kernels as the part of a backend that multiplies.
struct OwnGemm {
  template <class... P>
  void operator()(const CudaStream& stream, const P&... products) const {
    gpu::gemm(stream, products...);
  }
};

}  // namespace rwkv::inline RWKV_ABI::inline RWKV_CUDA_ABI
