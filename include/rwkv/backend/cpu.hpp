#pragma once
/// The CPU backend: functors on packs of native vectors, and several threads. Products are the library's own; Eigen
/// supplies the vector exponential and the thread pool.
#include <algorithm>
#include <new>
#include <numeric>
#include <span>
#include <utility>

#include "rwkv/backend/cpu/chunked.hpp"
#include "rwkv/backend/cpu/chunked_back.hpp"
#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/cpu/outer.hpp"
#include "rwkv/backend/cpu/quantised.hpp"
#include "rwkv/backend/cpu/recur_back.hpp"
#include "rwkv/backend/cpu/several.hpp"
#include "rwkv/backend/cpu/threads.hpp"
#include "rwkv/backend/cross_entropy.hpp"
#include "rwkv/backend/dequantised.hpp"
#include "rwkv/backend/product.hpp"
#include "rwkv/backend/recur.hpp"
#include "rwkv/backend/recur_back.hpp"
#include "rwkv/backend/rows.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/token.hpp"

#if !defined(__OPTIMIZE__) && !defined(RWKV_NO_OPTIMIZE_WARNING) && !defined(__CUDACC__)
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic warning "-W#pragma-messages"  // never an error
#endif
#pragma message("rwkv: without optimisation models run many times slower: -O3. RWKV_NO_OPTIMIZE_WARNING silences this")
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
#endif

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

/// Several threads of this machine. Copies share one thread pool and may be used from several threads at a time.
///
/// The tiles of an operation depend on its sizes alone, and one thread computes each tile. So results have the same
/// bits for any number of threads.
class Cpu {
 public:
  /// While set, verbs return at once: a forward pass then only measures its scratch.
  bool dry = false;

  Cpu() : Cpu(1) {}
  /// Runs on `threads` threads, the calling one included. Errors: threads that the system refuses.
  explicit Cpu(int threads) : threads_(threads) {}

  /// How many threads it runs on.
  int threads() const { return threads_.count(); }
  /// The same backend with the calling thread alone; its results have the same bits.
  Cpu alone() const {
    Cpu one;
    one.dry = dry;
    return one;
  }
  /// The threads themselves.
  const Threads& pool() const { return threads_; }

  template <class T>
  T* allocate(Index count) {
    return static_cast<T*>(
        ::operator new (static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{arena_alignment}));
  }
  void free(void* block) { ::operator delete (block, std::align_val_t{arena_alignment}); }
  void sync() {}

  template <class T, class U, Index N, Index M>
  void copy(Mat<T, N> from, Mat<U, M> to) {
    if (dry) return;
    detail::check_copy(from, to);
    for (Index r = 0; r < to.rows; ++r) std::copy_n(from.row(r), Index(to.cols), to.row(r));
  }

  template <class T, Index N>
  void fill(Mat<T, N> to, T value) {
    if (dry) return;
    const Index per_row = (to.cols + elements_per_tile - 1) / elements_per_tile;
    over(to.rows * per_row, to.rows * to.cols, elements_worth_a_fork, [&](Index tile) {
      const Index begin = tile % per_row * elements_per_tile;
      std::fill_n(to.row(tile / per_row) + begin, std::min<Index>(elements_per_tile, to.cols - begin), value);
    });
  }

  template <class T, class W, Index N, Index M>
  void gather_rows(Mat<W, M> table, std::span<const Token> rows, Mat<T, N> to) {
    if (dry) return;
    detail::check_gather(table, rows, to);
    for (Index r = 0; r < to.rows; ++r) {
      const W* from = table.row(rows[static_cast<std::size_t>(r)]);
      for (Index c = 0; c < to.cols; ++c) to(r, c) = widen<T>(from[c]);
    }
  }

  template <class T, Index N>
  void gather_rows(const StoredMat& table, std::span<const Token> rows, Mat<T, N> to) {
    if (!dry) detail::gather_dequantised(table, rows, to);
  }

  /// Adds the rows in order, for any number of threads.
  template <class T, class W, Index N, Index M>
  void scatter_add_rows(Arena, Mat<T, N> from, std::span<const Token> rows, Mat<W, M> table) {
    if (dry) return;
    detail::check_gather(table, rows, from);
    constexpr Index per_tile = 128;
    over((from.cols + per_tile - 1) / per_tile, from.rows * from.cols, elements_worth_a_fork, [&](Index tile) {
      const Index end = std::min<Index>(from.cols, (tile + 1) * per_tile);
      for (Index r = 0; r < from.rows; ++r) {
        W* to = table.row(rows[static_cast<std::size_t>(r)]);
        for (Index c = tile * per_tile; c < end; ++c) to[c] += from(r, c);
      }
    });
  }

  template <class T>
  void cross_entropy(Mat<T> logits, std::span<const Token> targets, const CrossEntropyWeights& weights,
                     std::span<T> losses) {
    if (dry) return;
    detail::check_cross_entropy(logits, targets, losses);
    over(logits.rows, logits.rows * logits.cols, elements_worth_a_fork, [&](Index r) {
      const auto row = static_cast<std::size_t>(r);
      losses[row] = cross_entropy_row<Widest<T>>(logits.row(r), logits.cols, targets[row], weights);
    });
  }

  /// A tile is several short rows or a part of a long row: few enough numbers for accurate sums in T. The sums of the
  /// tiles are added in double.
  template <class T, Index N>
  double sum_of_squares(Arena scratch, Mat<T, N> x) {
    using R = Widest<std::remove_const_t<T>>;
    const Index parts = std::max<Index>(1, (x.cols + elements_per_tile - 1) / elements_per_tile);
    const Index rows_per_tile = std::max<Index>(1, elements_per_tile / std::max<Index>(1, x.cols));
    const Index tiles = (x.rows + rows_per_tile - 1) / rows_per_tile * parts;
    double* sums = scratch.take<double>(tiles);
    if (dry) return 0;
    over(tiles, x.rows * x.cols, elements_worth_a_fork, [&](Index tile) {
      const Index row = tile / parts * rows_per_tile, column = tile % parts * elements_per_tile;
      const Index columns = std::min(x.cols - column, elements_per_tile);
      double sum = 0;
      for (Index r = row; r < std::min(x.rows, row + rows_per_tile); ++r) {
        R squares(0);
        detail::each_pack<R>(columns, [&](Index c, auto lanes) {
          const auto number = detail::load<R>(x.row(r) + column + c, lanes);
          squares += number * number;
        });
        sum += static_cast<double>(sum_lanes(squares));
      }
      sums[tile] = sum;
    });
    return std::accumulate(sums, sums + tiles, 0.0);
  }

  template <class P, class... Ps>
  void gemm(const P& product, const Ps&... products) {
    using T = typename P::scalar;
    static_assert((std::is_same_v<T, typename Ps::scalar> && ...), "rwkv: products of one call compute in one type");
    if (dry) return;
    const Index tiles = (tile_count(product) + ... + tile_count(products));
    const Index work = (multiplications(product) + ... + multiplications(products));
    over_watched(tiles, work, multiplications_worth_a_fork, [&](Index tile) {
      // The tiles of all products form one list, numbered product after product.
      static_cast<void>(multiply_tile(product, tile) || (multiply_tile(products, tile) || ...));
    });
  }

  template <class P, class... Op>
  void rows(const P& program, const Op&... ops) {
    static_assert(detail::explain_rows_without_scratch<Op...>());
    rows(Arena(nullptr, 0), program, ops...);
  }
  /// Each tile of tokens accumulates its own partial sums, which are added at the end in the order of the tiles.
  template <class P, class... Op>
  void rows(Arena scratch, const P& program, const Op&... ops) {
    using T = detail::element_t<Op...>;
    const auto y = detail::written(ops...);
    const Index tokens = y.batch * y.time;
    const Index per_tile = std::max<Index>(1, elements_per_tile / std::max<Index>(1, y.width));
    const Index tiles = (tokens + per_tile - 1) / per_tile;
    const Index sums = Index{detail::sum_count<Op...>} * y.width;
    T* partial = scratch.take<T>(tiles * sums);
    if (dry) return;
    (detail::check_operand(ops, y.batch, y.time, y.width), ...);
    over(tiles, tokens * y.width, elements_worth_a_fork, [&](Index tile) {
      const Index end = std::min(tokens, (tile + 1) * per_tile);
      std::fill_n(partial + tile * sums, sums, T(0));
      partial_sums::with(
          partial + tile * sums, std::index_sequence_for<Op...>(),
          [&](const auto&... tile_ops) {
            for (Index token = tile * per_tile; token < end; ++token) {
              apply_row<Widest<T>>(program, token / y.time, token % y.time, tile_ops...);
            }
          },
          ops...);
    });
    if constexpr (detail::sum_count < Op... >> 0) partial_sums::add(partial, tiles, ops...);
  }

  template <class Schedule, class C, Index N, class T, Index M, class... Op>
  void recur(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<T, M> state, const Op&... ops) {
    static_assert(detail::explain_recur<Schedule, C, Op...>());
    if (!dry) detail::check_recur<C>(length, state, ops...);
    const auto y = detail::written(ops...);
    if constexpr (std::is_same_v<Schedule, Scan>) {
      expects(schedule.chunk > 0, "rwkv: a scan needs chunks of at least one token, not ", schedule.chunk);
      if (y.time > schedule.chunk) return scan(scratch, schedule.chunk, cell, state, ops...);
    }
    if constexpr (detail::in_chunks<Schedule, C>()) {
      expects(schedule.chunk > 0, "rwkv: a chunk needs at least one token, not ", schedule.chunk);
      if (y.time >= schedule.chunk) return recur_chunks<C>(scratch, schedule.chunk, length, state, ops...);
    }
    if (dry) return;
    const Index head_lanes = RowCell<C> ? Index(length) : Index(y.width);
    const Index numbers = detail::lane_state_size<C>(length);
    using R = Widest<T>;
    constexpr int groups = 4;
    const LaneTiles tiles{head_lanes, groups * R::size};
    const Index heads = y.width / head_lanes;
    over_watched(
        y.batch * heads * tiles.count(), y.batch * y.time * y.width * numbers, state_updates_worth_a_fork,
        [&](Index tile) {
          const Index lane = tile % tiles.count() * tiles.per_tile;
          const Index head = tile / tiles.count() % heads;
          const Index b = tile / tiles.count() / heads;
          T* head_state = state.row(b) + head * numbers * head_lanes;
          advance_tile<R, groups>(cell, length, head_state, LanePlace{b, head, head_lanes, lane}, 0, y.time, ops...);
        });
  }

  template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class... Op>
  void recur_back(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<const T, F> first,
                  Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
    static_assert(detail::explain_recur_back<Schedule, C, Op...>());
    if (!dry) detail::check_recur_back<C>(length, first, dlast, dfirst, ops...);
    const auto run = [this](Index tiles, Index work, TileBody body) {
      over_watched(tiles, work, state_updates_worth_a_fork, body);
    };
    if constexpr (std::is_same_v<Schedule, Auto> && detail::in_chunks<Chunked, C>()) {
      if (length >= head_worth_chunks_back) {
        return recur_back(scratch, Chunked{}, cell, length, first, dlast, dfirst, ops...);
      }
    }
    if constexpr (detail::in_chunks<Schedule, C>()) {
      expects(schedule.chunk > 0, "rwkv: a chunk needs at least one token, not ", schedule.chunk);
      recur_back_chunks<C>(run, scratch, dry, schedule.chunk, length, first, dlast, dfirst, ops...);
    } else if constexpr (RowCell<C>) {
      recur_back_heads(run, scratch, dry, cell, length, first, dlast, dfirst, ops...);
    } else {
      recur_back_lanes(run, scratch, dry, schedule, cell, first, dlast, dfirst, ops...);
    }
  }

 private:
  // Below these amounts of work, waking a thread costs more than it saves.
  static constexpr Index multiplications_worth_a_fork = 100'000;
  static constexpr Index elements_worth_a_fork = 32'768;
  static constexpr Index state_updates_worth_a_fork = 32'768;
  static constexpr Index elements_per_tile = 8'192;
  // Smaller heads leave most of a row in chunks empty.
  static constexpr Index head_worth_chunks_back = 16;
  // Bytes of the rows of x in a tile of a product, over one stretch: they stay in the L2 cache while the rows of w go by.
  static constexpr Index x_bytes_per_tile = 393'216;
  // Outputs of a tile: many amortise the reading of x. With fewer tiles, its rows are divided further.
  static constexpr Index most_outputs = 512, least_tiles = 16, least_rows = 96;

  /// How the lanes of a head divide into tiles.
  struct LaneTiles {
    Index lanes, per_tile;
    Index count() const { return (lanes + per_tile - 1) / per_tile; }
  };

  void over(Index tiles, Index work, Index worth_a_fork, TileBody body) const {
    if (work < worth_a_fork) {
      for (Index tile = 0; tile < tiles; ++tile) body(tile, 0);
    } else {
      threads_.run(tiles, body);
    }
  }

  /// The same for what takes long: a watched operation may stop between stretches of tiles, some hundredths of a second each.
  void over_watched(Index tiles, Index work, Index worth_a_fork, TileBody body) const {
    if (!detail::is_watched()) return over(tiles, work, worth_a_fork, body);
    constexpr Index forks = 2000;
    const Index stretches = std::min(tiles, 1 + work / (forks * worth_a_fork));
    for (Index nth = 0; nth < stretches; ++nth) {
      detail::advance(detail::Unit::layers, 0);
      const Index begin = tiles * nth / stretches, end = tiles * (nth + 1) / stretches;
      over(end - begin, work / stretches, worth_a_fork, [&](Index tile, int thread) { body(begin + tile, thread); });
    }
  }

  /// Whether a product has quantised weights, and computes in float with quantised activations.
  template <class T, class W, class E>
  static bool is_quantised_product([[maybe_unused]] const Product<T, W, E>& product) {
    if constexpr (std::is_same_v<W, AnyStorage> && std::is_same_v<T, float>) return is_quantised(product.w.dtype);
    else return false;
  }

  /// How the outputs of a product [x_rows, w_rows] divide into tiles.
  struct ProductTiles {
    Index x_rows, w_rows, per_tile_x, per_tile_w;
    Index down() const { return std::max<Index>(1, (x_rows + per_tile_x - 1) / per_tile_x); }
    Index count() const { return down() * ((w_rows + per_tile_w - 1) / per_tile_w); }
  };
  template <class T, class W, class E>
  static ProductTiles tiles_of(const Product<T, W, E>& product) {
    const Index x_rows = product.x.rows, w_rows = product.y.cols;
    if (is_quantised_product(product)) {
      return {x_rows, w_rows, quantised::rows_per_tile, quantised::outputs_per_tile(x_rows)};
    }
    const Index bytes = std::clamp<Index>(product.x.cols * Index{sizeof(T)}, 1, dot::stretch_bytes);
    const Index fitting = dot::parts(x_rows, x_bytes_per_tile / bytes);
    const Index outputs =
        std::clamp<Index>(dot::parts(w_rows * std::max<Index>(1, fitting), 16 * least_tiles) * 16, 16, most_outputs);
    const Index wanted = std::min(dot::parts(least_tiles * outputs, std::max<Index>(1, w_rows)), x_rows / least_rows);
    const Index down = std::max({Index{1}, fitting, wanted});
    return {x_rows, w_rows, std::max<Index>(1, dot::parts(dot::parts(x_rows, 6), down)) * 6, outputs};
  }
  template <class T, class W, class E>
  static Index tile_count(const Product<T, W, E>& product) {
    return tiles_of(product).count();
  }
  template <class P>
  static Index multiplications(const P& product) {
    return product.y.rows * product.y.cols * product.x.cols;
  }

  template <class T, class W>
  static Index tile_count(const PlainProduct<T, W>& product) {
    return outer::Tiles<T>(product.y.rows, product.y.cols).count();
  }
  template <class T, class W>
  static Index multiplications(const PlainProduct<T, W>& product) {
    return product.y.rows * product.y.cols * product.depth();
  }

  /// Computes the tile if it belongs to this product; otherwise subtracts this product's count and returns false. The
  /// tiles of the same weights are neighbours.
  template <class T, class W, class E>
  static bool multiply_tile(const Product<T, W, E>& product, Index& tile) {
    const ProductTiles tiles = tiles_of(product);
    if (const Index count = tiles.count(); tile >= count) {
      tile -= count;
      return false;
    }
    const Index first = tile % tiles.down() * tiles.per_tile_x, begin = tile / tiles.down() * tiles.per_tile_w;
    const Index rows = std::min(tiles.per_tile_x, tiles.x_rows - first);
    const Index end = std::min(tiles.w_rows, begin + tiles.per_tile_w);
    const Mat<T> y = rows_of(product.y, first, rows);
    const Mat<const T> x = rows_of(product.x, first, rows);
    multiply_tile(y, x, product.w, begin, end);
    dot::finish(y, product.epilogue, begin, end);
    return true;
  }
  template <class T, class W>
  static void multiply_tile(Mat<T> y, Mat<const T> x, Mat<const W> w, Index begin, Index end) {
    dot::dot_tile(y, x, w, begin, end);
  }
  template <class T>
  static void multiply_tile(Mat<T> y, Mat<const T> x, const StoredMat& w, Index begin, Index end) {
    if (!is_quantised(w.dtype)) {
      with_typed<T>(w, [&](auto typed) { multiply_tile(y, x, typed, begin, end); });
    } else if constexpr (std::is_same_v<T, float>) {
      quantised::dot_tile(y, x, w, begin, end);
    } else {
      detail::multiply_dequantised(y, x, w, begin, end);
    }
  }
  template <class T, class W>
  static bool multiply_tile(const PlainProduct<T, W>& product, Index& tile) {
    if (const Index count = tile_count(product); tile >= count) {
      tile -= count;
      return false;
    }
    outer::outer_tile(product, tile);
    return true;
  }

  /// Advances the lanes of a tile of at most Groups packs. At the end of a head: fewer packs at a time, then the lanes
  /// that do not fill a pack. A row cell sums along the head, so there a group is part of the number: Several packs.
  template <class R, int Groups, class C, Index N, class T, class... Op>
  static void advance_tile(C cell, Extent<N> length, T* head_state, LanePlace at, Index begin, Index end,
                           const Op&... ops) {
    const auto left = [&] { return at.head_lanes - at.lane; };
    if (left() >= Groups * R::size) {
      if constexpr (RowCell<C> && Groups > 1) {
        advance_lanes<Several<R, Groups>, 1>(cell, length, head_state, at, detail::AllLanes{}, begin, end, ops...);
      } else {
        advance_lanes<R, Groups>(cell, length, head_state, at, detail::AllLanes{}, begin, end, ops...);
      }
      return;
    }
    if constexpr (RowCell<C> && Groups > 2) {
      if (left() >= Groups / 2 * R::size) {
        advance_tile<R, Groups / 2>(cell, length, head_state, at, begin, end, ops...);
        at.lane += Groups / 2 * R::size;
      }
    }
    if constexpr (Groups > 1) {
      for (; left() >= R::size; at.lane += R::size) {
        advance_lanes<R, 1>(cell, length, head_state, at, detail::AllLanes{}, begin, end, ops...);
      }
    }
    if (left() > 0) {
      advance_lanes<R, 1>(cell, length, head_state, at, static_cast<int>(left()), begin, end, ops...);
    }
  }

  /// A row cell in chunks of time; a tile is a head of a sequence.
  template <class C, class T, Index M, class... Op>
  void recur_chunks(Arena scratch, Index chunk, Index size, Mat<T, M> state, const Op&... ops) {
    const auto y = detail::written(ops...);
    const Index heads = y.width / size, numbers = chunked::HeadOf<C, T>::memory(size, chunk);
    T* memory = scratch.take<T>(y.batch * heads * numbers);
    if (dry) return;
    over_watched(y.batch * heads, y.batch * y.time * y.width * size, state_updates_worth_a_fork, [&](Index tile) {
      const Index head = tile % heads, b = tile / heads;
      chunked::run_head<C>(memory + tile * numbers, chunk, size, state.row(b) + head * size * size, b, head, y.time,
                           ops...);
    });
  }

  /// Time in parallel, in three phases: summarise every chunk but the last (parallel); carry the state from chunk to
  /// chunk through the summaries (serial); run every chunk from its initial state (parallel).
  template <class C, class T, Index M, class... Op>
  void scan(Arena scratch, Index chunk, C cell, Mat<T, M> state, const Op&... ops) {
    using R = Widest<T>;
    using Stretch = decltype(summarise_lanes<R>(cell, 0, 0, detail::AllLanes{}, 0, 1, ops...));
    const auto y = detail::written(ops...);
    const Index chunks = (y.time + chunk - 1) / chunk;
    const LaneTiles tiles{y.width, R::size};
    const Index columns = y.batch * tiles.count();
    Stretch* summaries = scratch.take<Stretch>(columns * chunks);
    T* starts = scratch.take<T>(chunks * y.batch * C::state_size * y.width);
    if (dry) return;
    const Index work = y.batch * y.time * y.width * C::state_size;
    const auto start_of = [&](Index c, Index b) { return starts + (c * y.batch + b) * C::state_size * y.width; };

    over(columns * (chunks - 1), work, state_updates_worth_a_fork, [&](Index tile) {
      const Index c = tile % (chunks - 1), column = tile / (chunks - 1);
      const Index lane = column % tiles.count() * R::size, b = column / tiles.count();
      const Index begin = c * chunk;
      const Index left = y.width - lane;
      summaries[column * chunks + c] =
          left >= R::size ? summarise_lanes<R>(cell, b, lane, detail::AllLanes{}, begin, begin + chunk, ops...)
                          : summarise_lanes<R>(cell, b, lane, static_cast<int>(left), begin, begin + chunk, ops...);
    });
    for (Index column = 0; column < columns; ++column) {
      const Index lane = column % tiles.count() * R::size, b = column / tiles.count();
      const int used = static_cast<int>(std::min<Index>(R::size, y.width - lane));
      R carry[C::state_size];
      for (int n = 0; n < C::state_size; ++n) carry[n] = R::load(state.row(b) + n * y.width + lane, used);
      for (Index c = 0; c < chunks; ++c) {
        for (int n = 0; n < C::state_size; ++n) carry[n].store(start_of(c, b) + n * y.width + lane, used);
        if (c + 1 < chunks) C::enter(carry, summaries[column * chunks + c]);
      }
    }
    over(columns * chunks, work, state_updates_worth_a_fork, [&](Index tile) {
      const Index c = tile % chunks, column = tile / chunks;
      const Index lane = column % tiles.count() * R::size, b = column / tiles.count();
      advance_tile<R, 1>(cell, Extent<dyn>{}, start_of(c, b), LanePlace{b, 0, y.width, lane}, c * chunk,
                         std::min(y.time, (c + 1) * chunk), ops...);
    });
    for (Index b = 0; b < y.batch; ++b) std::copy_n(start_of(chunks - 1, b), C::state_size * y.width, state.row(b));
  }

  Threads threads_;
};

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
