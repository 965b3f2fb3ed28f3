#pragma once
/// The product of a linear layer, y = x w^T, with many rows of x, from outer products: a block of outputs stays in
/// registers, and every term of the shared axis adds a column of x times a row of w^T. Its bits are those of dot.hpp.
///
/// There an output is the sum over the lanes of a pack: lane l adds up the terms k = l, l + lanes, l + 2 lanes, ... in
/// order, and sum_lanes adds the lanes in pairs. Here a block does so for one lane after the other, with other outputs in
/// the lanes of its packs. To be read in this order, x and w are copied: all terms of lane 0 first, then those of lane 1.
/// The copy of x is made once for all outputs; each thread copies a panel of w, as many rows as a block is wide, and
/// multiplies all rows of x with it.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/cpu/outer.hpp"
#include "rwkv/backend/cpu/threads.hpp"
#include "rwkv/backend/product.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace panels {

/// With fewer rows of x, a copy of w costs more than it saves. Of short rows dot products are slow, so there it pays earlier.
inline constexpr Index least_rows = 96, least_short_rows = 48, short_row = 128;
/// Bytes of the copies of x that are made at a time.
inline constexpr Index copied_bytes = 16 << 20;
/// With fewer tiles, the rows of x are divided as well, as long as a tile has `least_tile_rows`.
inline constexpr Index least_tiles = 16, least_tile_rows = 192;

/// A block of outputs: as many as fill the registers.
template <class T>
struct Block {
  static constexpr Index lanes = Widest<T>::size;
  static constexpr Index rows = outer::block_rows;
  static constexpr Index packs = 2;
  static constexpr Index outputs = packs * lanes;
};

/// Memory for copies. It belongs to one object: a copy of that begins without.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) noexcept {}
  Memory& operator=(const Memory&) noexcept { return *this; }

  /// At least that many bytes, aligned for packs; null where the system has none.
  std::byte* reserve(Index bytes) noexcept {
    if (bytes > bytes_) {
      memory_.reset();
      memory_.reset(static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), alignment, std::nothrow)));
      bytes_ = memory_ ? bytes : 0;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  Index bytes_ = 0;
};

#if RWKV_SIMD_BYTES > 0
/// Exchanges the off-diagonal quarters of every square of 2 Half rows and lanes.
template <int Half, class T, int N, int... Lane>
RWKV_INLINE void exchange(Pack<T, N>& a, Pack<T, N>& b, std::integer_sequence<int, Lane...>) {
  const auto first = __builtin_shufflevector(a.v, b.v, ((Lane & Half) == 0 ? Lane : N + Lane - Half)...);
  b.v = __builtin_shufflevector(a.v, b.v, ((Lane & Half) == 0 ? Lane + Half : N + Lane)...);
  a.v = first;
}
/// Lane j of pack i becomes lane i of pack j.
template <int Half, class T, int N>
RWKV_INLINE void transpose(Pack<T, N> (&x)[N]) {
  if constexpr (Half > 0) {
    RWKV_UNROLL for (int i = 0; i < N; ++i) {
      if ((i & Half) == 0) exchange<Half>(x[i], x[i + Half], std::make_integer_sequence<int, N>());
    }
    transpose<Half / 2>(x);
  }
}
#endif
template <int, class T>
RWKV_INLINE void transpose(One<T> (&)[1]) {}

/// Copies the rows [first, first + Rows) of a matrix in the order of blocks: to[(l * steps + s) * stride + i] is number
/// s * lanes + l of row first + i. Zeros stand for rows and numbers behind the end.
template <Index Rows, class T, class Stored>
[[gnu::noinline]] void copy_rows(Mat<const Stored> from, Index first, T* to, Index stride) {
  using R = Widest<T>;
  constexpr Index lanes = R::size;
  const Index steps = (from.cols + lanes - 1) / lanes;
  for (Index s = 0; s < steps; ++s) {
    const Index left = std::min(lanes, from.cols - s * lanes);
    for (Index base = 0; base < Rows; base += lanes) {
      R x[lanes];
      RWKV_UNROLL for (Index i = 0; i < lanes; ++i) {
        const Index row = first + base + i;
        if (base + i >= Rows || row >= from.rows) x[i] = R(0);
        else if (left == lanes) x[i] = R::load(from.row(row) + s * lanes);
        else x[i] = R::load(from.row(row) + s * lanes, static_cast<int>(left));
      }
      RWKV_UNROLL for (Index i = 0; i < lanes; ++i) {  // more rows than the hardware follows
        const Index row = first + base + i;
        if (base + i < Rows && row < from.rows) dot::prefetch(from.row(row) + s * lanes, 16 * lanes);
      }
      transpose<static_cast<int>(lanes / 2)>(x);
      RWKV_UNROLL for (Index l = 0; l < lanes; ++l) {
        std::memcpy(to + (l * steps + s) * stride + base, &x[l],
                    static_cast<std::size_t>(std::min(lanes, Rows - base)) * sizeof(T));
      }
    }
  }
}

/// A block of outputs, to y(row + i, out + j), from the copies of its rows of x and of w. What lies outside y is left out.
template <class T>
[[gnu::noinline]] void multiply_block(const T* x, const T* w, Index steps, Mat<T> y, Index row, Index out) {
  using R = Widest<T>;
  using Block = panels::Block<T>;
  constexpr Index count = Block::rows * Block::packs;
  R waiting[8][count];  // sums of 1, 2, 4, ... lanes, until their neighbours have theirs
  int depth = 0;
  for (Index nth = 0; nth < Block::lanes; ++nth) {
    // The first addition of sum_lanes is that of lane l and lane l + lanes / 2, so lanes come in the order of their bits.
    Index lane = 0;
    for (Index bit = 1, reversed = Block::lanes / 2; bit < Block::lanes; bit *= 2, reversed /= 2) {
      if ((nth & bit) != 0) lane += reversed;
    }
    const T* xs = x + lane * steps * Block::rows;
    const T* ws = w + lane * steps * Block::outputs;
    R sums[count];
    RWKV_UNROLL for (Index i = 0; i < count; ++i) sums[i] = R(0);
    for (Index s = 0; s < steps; ++s, xs += Block::rows, ws += Block::outputs) {
      R weights[Block::packs];
      RWKV_UNROLL for (Index j = 0; j < Block::packs; ++j) {
        weights[j] = R::load(ws + j * Block::lanes);
        dot::keep_in_register(weights[j]);
      }
      RWKV_UNROLL for (Index i = 0; i < Block::rows; ++i) {
        R activation(xs[i]);
        dot::keep_in_register(activation);
        RWKV_UNROLL for (Index j = 0; j < Block::packs; ++j) {
          R& sum = sums[i * Block::packs + j];
          sum = multiply_add(activation, weights[j], sum);
        }
      }
    }
    for (Index bit = 1; (nth & bit) != 0; bit *= 2) {
      --depth;
      RWKV_UNROLL for (Index i = 0; i < count; ++i) sums[i] = waiting[depth][i] + sums[i];
    }
    RWKV_UNROLL for (Index i = 0; i < count; ++i) waiting[depth][i] = sums[i];
    ++depth;
  }
  const Index rows = std::min(Block::rows, y.rows - row), outputs = std::min(Block::outputs, y.cols - out);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < outputs; j += Block::lanes) {
      const R& sum = waiting[0][i * Block::packs + j / Block::lanes];
      const Index left = std::min(Block::lanes, outputs - j);
      if (left == Block::lanes) sum.store(y.row(row + i) + out + j);
      else sum.store(y.row(row + i) + out + j, static_cast<int>(left));
    }
  }
}

/// A product with the types of its weights and its epilogue erased, so that the code below is compiled once.
template <class T>
struct Task {
  Mat<T> y;
  Mat<const T> x;
  const void* product;
  /// Copies the rows of w from `out` on, as many as a block is wide.
  void (*copy_panel)(const void* product, Index out, T* to);
  void (*finish)(const void* product, Mat<T> y, Index begin, Index end);

  /// The rows of x in whole blocks.
  Index blocks() const { return (x.rows + Block<T>::rows - 1) / Block<T>::rows; }
  Index steps() const { return (x.cols + Block<T>::lanes - 1) / Block<T>::lanes; }
  /// Numbers of the copy of one row of x.
  Index row_size() const { return steps() * Block<T>::lanes; }
  Index panels_across() const { return (y.cols + Block<T>::outputs - 1) / Block<T>::outputs; }
};

template <class T, class W, class E>
bool wants_panels(const Product<T, W, E>& product) {
  if constexpr (std::is_same_v<W, AnyStorage>) {
    if (is_quantised(product.w.dtype)) return false;
  }
  return product.x.rows >= (product.x.cols < short_row ? least_short_rows : least_rows);
}
template <class T, class W>
bool wants_panels(const PlainProduct<T, W>&) {
  return false;
}

template <class T, class Stored>
[[gnu::noinline]] void copy_panel(Mat<const Stored> w, Index out, T* to) {
  copy_rows<Block<T>::outputs>(w, out, to, Block<T>::outputs);
}

/// Adds the task of a product that wants panels.
template <class T, class W, class E>
void add_task(const Product<T, W, E>& product, Task<T>* tasks, Index& count) {
  if (!wants_panels(product)) return;
  using Whole = Product<T, W, E>;
  const auto copy = [](const void* erased, Index out, T* to) {
    const auto& w = static_cast<const Whole*>(erased)->w;
    if constexpr (std::is_same_v<W, AnyStorage>) with_typed<T>(w, [&](auto typed) { copy_panel<T>(typed, out, to); });
    else copy_panel<T>(w, out, to);
  };
  const auto finish = [](const void* erased, Mat<T> y, Index begin, Index end) {
    dot::finish(y, static_cast<const Whole*>(erased)->epilogue, begin, end);
  };
  tasks[count++] = {product.y, product.x, &product, copy, finish};
}
template <class T, class W>
void add_task(const PlainProduct<T, W>&, Task<T>*, Index&) {}

/// Computes the tasks by `run(tiles, work, body)` on `threads` threads, in memory that it reserves; a dry call only
/// reserves. Returns false, and does nothing, where the system has no memory.
template <class T, class Run>
[[gnu::noinline]] bool multiply(std::span<const Task<T>> tasks, const Run& run, int threads, Memory& memory, bool dry) {
  using Block = panels::Block<T>;
  Index rows = 0, row_size = 0, panel_size = 0, work = 0;
  for (const Task<T>& task : tasks) {
    work += task.x.rows * task.x.cols * task.y.cols;
    rows = std::max(rows, task.x.rows);
    row_size += task.row_size();
    panel_size = std::max(panel_size, task.row_size() * Block::outputs);
  }
  // All copies that are made at a time fit the cache that the threads share.
  const Index fitting = std::max(least_tile_rows, copied_bytes / std::max<Index>(1, row_size * Index{sizeof(T)}));
  const Index blocks_at_a_time = (std::min(rows, fitting) + Block::rows - 1) / Block::rows;
  const Index copies_size = blocks_at_a_time * Block::rows * row_size;
  std::byte* const bytes = memory.reserve((copies_size + threads * panel_size) * Index{sizeof(T)});
  if (bytes == nullptr) return false;
  if (dry) return true;
  T* const copies = reinterpret_cast<T*>(bytes);

  Index first = 0;  // block of rows
  const auto blocks_of = [&](const Task<T>& task) {
    return std::clamp<Index>(task.blocks() - first, 0, blocks_at_a_time);
  };
  const auto parts_of = [&](const Task<T>& task) {
    const Index wanted = least_tiles / std::max<Index>(1, task.panels_across());
    return std::clamp<Index>(wanted, 1, std::max<Index>(1, blocks_of(task) * Block::rows / least_tile_rows));
  };
  const auto tiles_of = [&](const Task<T>& task) {
    return blocks_of(task) == 0 ? 0 : task.panels_across() * parts_of(task);
  };
  // Finds the task of a tile in the list of all tiles, and calls f(task, its copy of x, tile of the task).
  const auto with_tile = [&](Index tile, const auto& count, const auto& f) {
    T* copy = copies;
    for (const Task<T>& task : tasks) {
      if (tile < count(task)) return f(task, copy, tile);
      tile -= count(task);
      copy += blocks_at_a_time * Block::rows * task.row_size();
    }
  };
  const auto sum = [&](const auto& count) {
    Index all = 0;
    for (const Task<T>& task : tasks) all += count(task);
    return all;
  };
  for (; first * Block::rows < rows; first += blocks_at_a_time) {
    run(sum(blocks_of), work, [&](Index tile) {
      with_tile(tile, blocks_of, [&](const Task<T>& task, T* copy, Index block) {
        copy_rows<Block::rows>(task.x, (first + block) * Block::rows, copy + block * Block::rows * task.row_size(),
                               Block::rows);
      });
    });
    run(sum(tiles_of), work, [&](Index tile, int thread) {
      with_tile(tile, tiles_of, [&](const Task<T>& task, const T* copy, Index nth) {
        const Index parts = parts_of(task), out = nth / parts * Block::outputs, part = nth % parts;
        const Index begin = blocks_of(task) * part / parts, end = blocks_of(task) * (part + 1) / parts;
        T* const panel = copies + copies_size + thread * panel_size;
        task.copy_panel(task.product, out, panel);
        for (Index block = begin; block < end; ++block) {
          multiply_block(copy + block * Block::rows * task.row_size(), panel, task.steps(), task.y,
                         (first + block) * Block::rows, out);
        }
        const Index row = (first + begin) * Block::rows;
        const Index count = std::min(task.y.rows, (first + end) * Block::rows) - row;
        task.finish(task.product, rows_of(task.y, row, count), out, std::min(out + Block::outputs, Index(task.y.cols)));
      });
    });
  }
  return true;
}

}  // namespace panels

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
