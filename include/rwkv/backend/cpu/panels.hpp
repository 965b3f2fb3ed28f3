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
#include <utility>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/cpu/outer.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace panels {

/// With fewer rows of x, a copy of w costs more than it saves.
inline constexpr Index least_rows = 48;
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

/// What a product takes of the memory for copies.
struct Need {
  Index rows = 0;  // of x; none where it is computed without copies
  Index row_bytes = 0;
  Index panel_bytes = 0;  // of a thread
};
template <class T>
constexpr Index padded_bytes(Index length) {
  return (length + Block<T>::lanes - 1) / Block<T>::lanes * Block<T>::lanes * Index{sizeof(T)};
}
template <class T, class W, class E>
Need need_of(const Product<T, W, E>& product) {
  if constexpr (std::is_same_v<W, AnyStorage>) {
    if (is_quantised(product.w.dtype)) return {};
  }
  if (product.x.rows < least_rows) return {};
  const Index row = padded_bytes<T>(product.x.cols);
  return {product.x.rows, row, row * Block<T>::outputs};
}
template <class T, class W>
Need need_of(const PlainProduct<T, W>&) {
  return {};
}

/// How the products of one call share memory: copies of some rows of x of every product, then a panel for every thread.
class Plan {
 public:
  template <class... Needs>
  explicit Plan(int threads, const Needs&... needs)
      : rows_(std::max({Index{0}, needs.rows...})), panel_bytes_(std::max({Index{0}, needs.panel_bytes...})) {
    if (rows_ == 0) return;
    const Index row_bytes = (needs.row_bytes + ...);
    constexpr Index step = outer::block_rows;
    const Index fitting = std::max(least_tile_rows, copied_bytes / std::max<Index>(1, row_bytes));
    rows_at_a_time_ = (std::min(rows_, fitting) + step - 1) / step * step;
    copies_bytes_ = rows_at_a_time_ * row_bytes;
    bytes_ = copies_bytes_ + threads * panel_bytes_;
  }

  Index rows() const { return rows_; }
  Index rows_at_a_time() const { return rows_at_a_time_; }
  Index bytes() const { return bytes_; }
  std::byte* panel_of(std::byte* memory, int thread) const { return memory + copies_bytes_ + thread * panel_bytes_; }

 private:
  Index rows_, panel_bytes_, rows_at_a_time_ = 0, copies_bytes_ = 0, bytes_ = 0;
};

/// The rows of x from `first` on, as many as a plan takes at a time. `at` walks through the memory, from the copy of one
/// product to that of the next; a tile belongs to the first product that has so many, as in Cpu::gemm.
struct Pass {
  const Plan& plan;
  std::byte* memory;
  Index first;

  /// Tiles of making the copies: one for every block of rows.
  template <class P>
  Index copy_tiles(const P& product) const {
    return (rows_of_pass(product) + outer::block_rows - 1) / outer::block_rows;
  }
  template <class T, class W, class E>
  bool copy(const Product<T, W, E>& product, std::byte*& at, Index& tile) const {
    using Block = panels::Block<T>;
    if (belongs_to_another(product, copy_tiles(product), at, tile)) return false;
    T* to = reinterpret_cast<T*>(at) + tile * block_size<T>(product.x.cols);
    copy_rows<Block::rows>(product.x, first + tile * Block::rows, to, Block::rows);
    return true;
  }
  template <class T, class W>
  bool copy(const PlainProduct<T, W>&, std::byte*&, Index&) const {
    return false;
  }

  /// Tiles of the products: a panel of w, and the rows of the pass or a part of them.
  template <class T, class W, class E>
  Index tiles(const Product<T, W, E>& product) const {
    return rows_of_pass(product) == 0 ? 0 : panels_across(product) * row_parts(product);
  }
  template <class T, class W>
  Index tiles(const PlainProduct<T, W>&) const {
    return 0;
  }
  template <class T, class W, class E>
  bool multiply(const Product<T, W, E>& product, std::byte*& at, int thread, Index& tile) const {
    using Block = panels::Block<T>;
    if (belongs_to_another(product, tiles(product), at, tile)) return false;
    const Index out = tile / row_parts(product) * Block::outputs, part = tile % row_parts(product);
    T* panel = reinterpret_cast<T*>(plan.panel_of(memory, thread));
    const auto copy_panel = [&](auto w) { copy_rows<Block::outputs>(w, out, panel, Block::outputs); };
    if constexpr (std::is_same_v<W, AnyStorage>) with_typed<T>(product.w, copy_panel);
    else copy_panel(product.w);

    const Index blocks = copy_tiles(product);
    const Index begin = blocks * part / row_parts(product), end = blocks * (part + 1) / row_parts(product);
    const T* copies = reinterpret_cast<const T*>(at);
    const Index steps = padded_bytes<T>(product.x.cols) / (Block::lanes * Index{sizeof(T)});
    for (Index block = begin; block < end; ++block) {
      multiply_block(copies + block * block_size<T>(product.x.cols), panel, steps, product.y,
                     first + block * Block::rows, out);
    }
    const Index row = first + begin * Block::rows;
    const Mat<T> finished = rows_of(product.y, row, std::min(product.y.rows, first + end * Block::rows) - row);
    dot::finish(finished, product.epilogue, out, std::min(out + Block::outputs, Index(product.y.cols)));
    return true;
  }
  template <class T, class W>
  bool multiply(const PlainProduct<T, W>&, std::byte*&, int, Index&) const {
    return false;
  }

 private:
  template <class T>
  static Index block_size(Index length) {
    return padded_bytes<T>(length) / Index{sizeof(T)} * Block<T>::rows;
  }
  template <class P>
  Index rows_of_pass(const P& product) const {
    return std::clamp<Index>(need_of(product).rows - first, 0, plan.rows_at_a_time());
  }
  template <class T, class W, class E>
  static Index panels_across(const Product<T, W, E>& product) {
    return (product.y.cols + Block<T>::outputs - 1) / Block<T>::outputs;
  }
  template <class P>
  Index row_parts(const P& product) const {
    const Index wanted = least_tiles / std::max<Index>(1, panels_across(product));
    return std::clamp<Index>(wanted, 1, std::max<Index>(1, rows_of_pass(product) / least_tile_rows));
  }
  template <class P>
  bool belongs_to_another(const P& product, Index count, std::byte*& at, Index& tile) const {
    if (tile < count) return false;
    tile -= count;
    at += plan.rows_at_a_time() * need_of(product).row_bytes;
    return true;
  }
};

}  // namespace panels

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
