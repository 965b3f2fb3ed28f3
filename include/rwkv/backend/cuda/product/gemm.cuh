#pragma once
/// The verb `gemm`: which kernel computes which product.
///
///     rows of x      tensor cores                       FMA units
///     1              gemv                               gemv
///     2 to 4         gemv                               gemv
///     5 to 8         skinny                             gemv
///     9 to 128       skinny                             gemv up to 32 rows, then tiles
///     more           tiles                              tiles
///
/// gemm_then launches products together with the work that waits for them (step/work.cuh).
#include "rwkv/backend/cuda/product/gemm_fma.cuh"
#include "rwkv/backend/cuda/product/gemm_mma.cuh"
#include "rwkv/backend/cuda/product/gemm_skinny.cuh"
#include "rwkv/backend/cuda/product/gemv.cuh"
#include "rwkv/backend/cuda/step/work.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

namespace gpu {

/// The kernels, with the rows of x that a block takes at once.
enum class Route { none, gemv_1, gemv_4, gemv_8, skinny_8, skinny_32, tiles };

/// Tensor cores multiply bf16 from compute capability 8.0 on.
inline bool has_tensor_cores(const CudaStream& stream) { return stream.architecture() >= 80; }

template <class T, class W, class Epilogue>
Route route_of(const Product<T, W, Epilogue>& p, bool tensor_cores) {
  if (p.y.rows == 0 || p.y.cols == 0) return Route::none;
  if (p.y.rows == 1) return Route::gemv_1;
  if (p.y.rows <= 4) return Route::gemv_4;
  if (on_tensor_cores<T, W> && tensor_cores) {
    // Up to 128 rows most matrices have too few tiles to occupy a large device.
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

/// A product in tiles, for any number of rows; a block for each tile.
template <class Tiles>
RWKV_KERNEL void __launch_bounds__(Tiles::threads, Tiles::resident) gemm_tiles_kernel(Tiles tiles) {
  tiles.run_block(blockIdx.x);
}
template <class Tiles>
unsigned blocks_of(const Tiles& tiles) {
  return blocks_for(tiles.y.rows, Tiles::tile.rows) * blocks_for(tiles.y.cols, Tiles::tile.cols);
}
/// Launches the kernel. The output must not be empty.
template <class Tiles>
void launch_tiles(const CudaStream& stream, const Tiles& tiles) {
  stream.launch({.grid = {blocks_of(tiles)}, .block = {Tiles::threads}, .shared_bytes = Tiles::shared_bytes},
                gemm_tiles_kernel<Tiles>, tiles);
}

/// Calls body(std::type_identity<Tiles>) with the kind and size of tiles for an output [rows, cols].
template <class X, class W, class Y, class Body>
void with_tiles(bool tensor_cores, Index rows, Index cols, const Body& body) {
  const auto by_size = [&](auto large, auto small) {
    constexpr auto tile = decltype(large)::type::tile;
    if (fills_with({tile.rows, tile.cols}, rows, cols)) body(large);
    else body(small);
  };
  constexpr std::type_identity<FmaProduct<false, X, W, Y>> small;
  if constexpr (on_tensor_cores<typename X::element, typename W::element>) {
    if (!tensor_cores) return body(small);
    by_size(std::type_identity<MmaProduct<true, X, W, Y>>(), std::type_identity<MmaProduct<false, X, W, Y>>());
  } else if constexpr (sizeof(typename Y::scalar) <= 4) {
    by_size(std::type_identity<FmaProduct<true, X, W, Y>>(), small);
  } else {
    body(small);
  }
}
template <class X, class W, class Y>
void gemm_in_tiles(const CudaStream& stream, const X& x, const W& w, const Y& y) {
  with_tiles<X, W, Y>(has_tensor_cores(stream), y.rows, y.cols, [&](auto tiles) {
    launch_tiles(stream, typename decltype(tiles)::type{x, w, y});
  });
}

template <class T, class W, class Epilogue>
void gemm_in_tiles(const CudaStream& stream, const Product<T, W, Epilogue>& p) {
  gemm_in_tiles(stream, Factor<T, Along::depth>(p.x), Factor<W, Along::depth>(p.w), Output(p.y, false, p.epilogue));
}
template <class T, class W>
void gemm_in_tiles(const CudaStream& stream, const PlainProduct<T, W>& p) {
  const Factor<W, Along::outer> w(p.w);
  const Output<T, Identity> y(p.y, p.added, {});
  if (p.transposed) gemm_in_tiles(stream, Factor<T, Along::outer>(p.x), w, y);
  else gemm_in_tiles(stream, Factor<T, Along::depth>(p.x), w, y);
}

/// A launch of few rows takes a list of products of types T and W on one route. This makes the entry of a product in
/// such a list: empty when the product has other types or another route, so that no block computes it.
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

/// Computes the products of types T and W that have few rows, in one launch for each route.
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

/// Computes products x w^T, which share a launch where rows are few, and the adjoints of linear layers. No output may
/// overlap a factor of any of them. The order of additions depends on sizes alone.
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

/// An epilogue that a flag switches on, so that products with and without it have one type.
template <class Epilogue>
struct Perhaps {
  bool wanted;
  [[no_unique_address]] Epilogue epilogue;

  template <class R>
  __device__ R operator()(R x) const {
    return wanted ? epilogue(x) : x;
  }
};

/// The most products that gemm_then takes.
inline constexpr int most_products = 3;

/// Products of few rows as the first work of launch_in_turn, see work.cuh.
template <class T, class W, class Epilogue>
struct FewRowsWork : FewRowsPlan<T, W, most_products> {
  static constexpr int resident = 0;
  static_assert(GemvSizes::threads == work_threads && SkinnySizes::threads == work_threads);

  Perhaps<Epilogue> epilogues[most_products];

  __device__ __forceinline__ void run_block(unsigned block) const {
    const auto nth = static_cast<int>(block);
    if constexpr (on_tensor_cores<T, W>) skinny_block<4>(this->products, nth, epilogues[0], epilogues[1], epilogues[2]);
    else gemv_block<8>(this->products, nth, epilogues[0], epilogues[1], epilogues[2]);
  }
};

/// Products in tiles as the first work of launch_in_turn. Product i has the blocks [ends[i - 1], ends[i]).
template <class Tiles>
struct TilesWork {
  static_assert(Tiles::threads == work_threads);
  // Without a bound the compiler saves registers here until it spills.
  static constexpr int resident = Tiles::resident > 0 ? Tiles::resident : 1;
  static constexpr std::size_t shared_bytes = Tiles::shared_bytes;

  Tiles products[most_products];
  unsigned ends[most_products];
  unsigned blocks;

  __device__ __forceinline__ void run_block(unsigned block) const {
    Tiles own = products[0];
    unsigned first = 0;
    RWKV_KERNEL_UNROLL for (int i = 1; i < most_products; ++i) {
      if (block >= ends[i - 1]) {
        own = products[i];
        first = ends[i - 1];
      }
    }
    own.run_block(block - first);
  }
};

/// Computes products x w^T of more than 8 rows, and after them `work`, in one launch. Epilogues are `Epilogue` or
/// Identity. On devices without tensor cores, products of few rows with 16-bit weights have a launch of their own.
/// turn     zero, in memory of the device; used up by the launch
template <class Epilogue, class Work, class T, class W, class... E>
void gemm_then(const CudaStream& stream, Turn* turn, const Work& work, const Product<T, W, E>&... products) {
  constexpr int count = int{sizeof...(E)};
  static_assert(count >= 1 && count <= most_products);
  static_assert(((std::same_as<E, Epilogue> || std::same_as<E, Identity>)&&...));
  using Last = Perhaps<Epilogue>;
  const Product<T, W, Last> list[] = {{products.y, products.x, products.w, Last{std::same_as<E, Epilogue>, {}}}...};
  const bool tensor_cores = has_tensor_cores(stream);
  if (route_of(list[0], tensor_cores) != Route::tiles) {
    if (on_tensor_cores<T, W> && !tensor_cores) {
      gemm(stream, products...);
      return launch_work(stream, true, work);
    }
    FewRowsOf<T, W, most_products> few{};
    for (int i = 0; i < count; ++i) few.products[i] = few_rows(list[i]);
    const auto launch = [&](const FewRowsPlan<T, W, most_products>& plan) {
      FewRowsWork<T, W, Epilogue> first{plan, {}};
      for (int i = 0; i < count; ++i) first.epilogues[i] = list[i].epilogue;
      launch_in_turn(stream, first, work, turn);
    };
    if constexpr (on_tensor_cores<T, W>) return launch(plan_skinny<4>(few));
    else return launch(plan_gemv<8>(few));
  }
  using X = Factor<T, Along::depth>;
  using M = Factor<W, Along::depth>;
  using Y = Output<T, Last>;
  Index cols = 0;
  for (const auto& p : list) cols += p.y.cols;
  with_tiles<X, M, Y>(tensor_cores, list[0].y.rows, cols, [&](auto chosen) {
    using Tiles = typename decltype(chosen)::type;
    const auto tiles_of = [&](int i) {
      const auto& p = list[i < count ? i : 0];
      return Tiles{X(p.x), M(p.w), Y(p.y, false, p.epilogue)};
    };
    TilesWork<Tiles> first{{tiles_of(0), tiles_of(1), tiles_of(2)}, {}, 0};
    for (int i = 0; i < most_products; ++i) {
      if (i < count) first.blocks += blocks_of(first.products[i]);
      first.ends[i] = first.blocks;
    }
    launch_in_turn(stream, first, work, turn);
  });
}

}  // namespace gpu

/// The Gemm of a backend that is the library's own kernels.
struct OwnGemm {
  template <class... P>
  void operator()(const CudaStream& stream, const P&... products) const {
    gpu::gemm(stream, products...);
  }
  /// See gpu::gemm_then.
  template <class Epilogue, class Work, class... P>
  void then(const CudaStream& stream, gpu::Turn* turn, const Work& work, const P&... products) const {
    gpu::gemm_then<Epilogue>(stream, turn, work, products...);
  }
};

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
