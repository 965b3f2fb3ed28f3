#pragma once
/// Row cells in chunks of time, from their declared transition. A chunk of L tokens reads and writes the state of a head
/// (N by N) once each, in products of small matrices, where token after token does so L times.
///
/// In the state, component n of lane v is S[n][v]; a chunk starts with S_0. Each token writes k_t (x) v_t, and with a
/// transition of rank one also b_t (x) z_t, where z_t = a_t S_{t-1} is the row that the token removes. With decays
/// between two tokens gathered in D_tj = w_{j+1} ... w_t (component by component):
///
///     y_t = (r_t * D_t0) S_0 + sum_j <r_t * D_tj, k_j> v_j + sum_j <r_t * D_tj, b_j> z_j
///     S_L = diag(D_L0) S_0   + sum_j (D_Lj * k_j) (x) v_j  + sum_j (D_Lj * b_j) (x) z_j
///
/// z_t has the form of y_t with a_t instead of r_t and the decays before token t. Since it needs z_j of earlier tokens,
/// it is found by substitution. Decays are only multiplied, never divided, so any decay in [0, 1] is exact, 0 included:
/// tokens come in blocks of four. Within a block, the decays between each pair of tokens are multiplied out; between
/// blocks, one factor decays what was written up to the start of the block, the other decays from there on.
///
/// The order of every sum depends on the chunk, the head size and the vector width alone. Numbers must be finite: a token
/// multiplies what later tokens of its block write by zero, and zero times infinity is no number.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cpu/dot.hpp"
#include "rwkv/backend/operand.hpp"
#include "rwkv/backend/transition.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace chunked {

/// Tokens in a block, and rows in a block of a product.
inline constexpr int block = 4;
/// Packs in a block of a product: its sums fill half of the registers.
#if RWKV_SIMD_BYTES == 64 || defined(__aarch64__)
inline constexpr int block_packs = 4;
#else
inline constexpr int block_packs = 2;
#endif

constexpr Index round_up(Index count, Index multiple) { return (count + multiple - 1) / multiple * multiple; }
/// The length of a row of `size` numbers that is padded with zeros to whole blocks.
template <class T>
constexpr Index padded(Index size) {
  return round_up(size, std::max<Index>(block, Widest<T>::size));
}

using detail::has_bonus;
using Part = detail::TokenPart;
using detail::part_of;

/// Rows of memory that are needed soon, prefetched line by line while products run. Prefetched all at once, they would
/// wait for each other, and the products for them.
class Ahead {
 public:
  template <class U>
  void add(const U* row, Index size) {
    rows_[count_++] = {reinterpret_cast<const char*>(row), size * Index{sizeof(U)}};
  }
  RWKV_INLINE void prefetch_line() {
    if (next_ == count_) return;
    dot::prefetch(rows_[next_].begin, byte_);
    byte_ += 64;
    if (byte_ < rows_[next_].bytes) return;
    byte_ = 0;
    ++next_;
  }
  /// Prefetches the rest; the next row is the first.
  void finish() {
    while (next_ < count_) prefetch_line();
    next_ = count_ = 0;
  }

 private:
  struct Row {
    const char* begin;
    Index bytes;
  };
  Row rows_[block * Part::count];
  int count_ = 0, next_ = 0;
  Index byte_ = 0;
};

/// A factor of a product whose numbers are spread: number (i, k) is at data[i * row + k * term].
template <class T>
struct Spread {
  const T* data;
  Index row, term;
};

/// A block of y = x w, or of y = diag(scale) y + x w where scale is not null, over `terms` rows of w.
template <int Packs, class T>
RWKV_INLINE void multiply_block(T* y, Index stride, Spread<T> x, const T* w, Index terms, const T* scale,
                                Ahead& ahead) {
  using R = Widest<T>;
  R sums[block][Packs];
  RWKV_UNROLL for (int i = 0; i < block; ++i) {
    RWKV_UNROLL for (int j = 0; j < Packs; ++j) {
      sums[i][j] = scale == nullptr ? R(0) : R(scale[i]) * R::load(y + i * stride + j * R::size);
    }
  }
  const T* xs[block];
  RWKV_UNROLL for (int i = 0; i < block; ++i) xs[i] = x.data + i * x.row;
  for (Index k = 0; k < terms; ++k, w += stride) {
    ahead.prefetch_line();
    R ws[Packs];
    RWKV_UNROLL for (int j = 0; j < Packs; ++j) {
      ws[j] = R::load(w + j * R::size);
      dot::keep_in_register(ws[j]);
    }
    RWKV_UNROLL for (int i = 0; i < block; ++i) {
      const R number(xs[i][k * x.term]);
      RWKV_UNROLL for (int j = 0; j < Packs; ++j) sums[i][j] = multiply_add(number, ws[j], sums[i][j]);
    }
  }
  RWKV_UNROLL for (int i = 0; i < block; ++i) {
    RWKV_UNROLL for (int j = 0; j < Packs; ++j) sums[i][j].store(y + i * stride + j * R::size);
  }
}

/// The product of multiply_block for any number of blocks. Rows of y and w have `stride` numbers, whole packs.
template <class T>
[[gnu::noinline]] void multiply(T* y, Index rows, Index stride, Spread<T> x, const T* w, Index terms, const T* scale,
                                Ahead& ahead) {
  using R = Widest<T>;
  const Index packs = stride / R::size;
  for (Index i = 0; i < rows; i += block) {
    Index p = 0;
    const auto advance = [&](auto count) {
      constexpr int at_once = decltype(count)::value;
      for (; p + at_once <= packs; p += at_once) {
        multiply_block<at_once>(y + i * stride + p * R::size, stride, {x.data + i * x.row, x.row, x.term},
                                w + p * R::size, terms, scale == nullptr ? scale : scale + i, ahead);
      }
    };
    advance(std::integral_constant<int, block_packs>{});
    advance(std::integral_constant<int, 1>{});
  }
}

/// to[i] = the sum over the lanes of sums[i].
template <class R, class T>
RWKV_INLINE void store_block(const R (&sums)[block * block], T* to) {
  dot::store_sums<block * block>(sums, to);
}

/// to(i, j) = x_i . w_j, where x has one block of rows and w has `rows`, whole blocks. All rows have `stride` numbers.
template <class T>
[[gnu::noinline]] void multiply_rows(const T* x, const T* w, Index rows, Index stride, T* to, Index to_stride) {
  using R = Widest<T>;
  for (Index row = 0; row < rows; row += block, w += block * stride, to += block) {
    R sums[block * block];
    RWKV_UNROLL for (int i = 0; i < block * block; ++i) sums[i] = R(0);
    for (Index n = 0; n < stride; n += R::size) {
      R ws[block];
      RWKV_UNROLL for (int j = 0; j < block; ++j) {
        ws[j] = R::load(w + j * stride + n);
        dot::keep_in_register(ws[j]);
      }
      RWKV_UNROLL for (int i = 0; i < block; ++i) {
        const R number = R::load(x + i * stride + n);
        RWKV_UNROLL for (int j = 0; j < block; ++j) {
          sums[i * block + j] = multiply_add(number, ws[j], sums[i * block + j]);
        }
      }
    }
    T finished[block * block];
    store_block(sums, finished);
    RWKV_UNROLL for (int i = 0; i < block; ++i) {
      RWKV_UNROLL for (int j = 0; j < block; ++j) to[i * to_stride + j] = finished[i * block + j];
    }
  }
}

/// Copies a row, widened, and pads it with zeros.
template <class T, class U>
[[gnu::noinline]] void copy_row(const U* from, Index size, Index stride, T* to) {
  using R = Widest<T>;
  Index n = 0;
  for (; n + R::size <= size; n += R::size) R::load(from + n).store(to + n);
  if (n < size) {
    R::load(from + n, static_cast<int>(size - n)).store(to + n);
    n += R::size;
  }
  std::fill(to + n, to + stride, T(0));
}
template <class T, class U>
[[gnu::noinline]] void store_row(const T* from, Index size, U* to) {
  using R = Widest<T>;
  Index n = 0;
  for (; n + R::size <= size; n += R::size) R::load(from + n).store(to + n);
  if (n < size) R::load(from + n).store(to + n, static_cast<int>(size - n));
}

/// One head of one sequence. RankOne: the transition has vectors a and b. After: a token reads after its own update.
template <class T, bool RankOne, bool After>
class HeadInChunks {
 public:
  /// The numbers of memory it needs.
  static constexpr Index memory(Index size, Index chunk) {
    const Index stride = padded<T>(size), written = written_per_token * round_up(chunk, block);
    const Index rows = stride + 2 * written + block * 6;
    return round_up(rows * stride + 2 * block * (stride + written), 64);
  }

  HeadInChunks(T* memory, Index size, Index chunk, bool has_bonus)
      : stride_(padded<T>(size)), factors_(stride_ + written_per_token * round_up(chunk, block)), size_(size),
        has_bonus_(has_bonus) {
    const auto take = [&](Index numbers) {
      T* const begin = memory;
      memory += numbers;
      return begin;
    };
    state_ = take(factors_ * stride_);
    keys_ = take((factors_ - stride_) * stride_);
    for (T*& rows : rows_) rows = nullptr;
    rows_[Part::read] = take(block * stride_);
    rows_[Part::decay] = take(block * stride_);
    rows_[Part::a] = take(block * stride_);
    rows_[Part::bonus] = take(block * stride_);
    y_ = take(block * stride_);
    decayed_ = take(stride_);
    decayed_in_block_ = take(stride_);
    of_read_ = take(block * factors_);
    of_a_ = take(block * factors_);
    start_chunk();
  }

  /// A row of the next block of tokens; the caller fills all of them.
  T* row(Part::Name part, Index token) const { return rows_[part] + token * stride_; }
  Index stride() const { return stride_; }
  /// Of a token of the last block: the output, and the row that it has removed.
  const T* y(Index token) const { return y_ + token * stride_; }
  const T* removed(Index token) const { return state_ + (stride_ + written_ - block + token) * stride_; }
  /// The state in front of the chunk, [stride, stride].
  const T* state() const { return state_; }

  void load_state(const T* from) {
    for (Index n = 0; n < size_; ++n) copy_row(from + n * size_, size_, stride_, state_ + n * stride_);
    std::fill(state_ + size_ * stride_, state_ + stride_ * stride_, T(0));
  }
  void store_state(T* to) const {
    for (Index n = 0; n < size_; ++n) store_row(state_ + n * stride_, size_, to + n * size_);
  }

  /// Runs the next block of tokens: computes its outputs, if it `reads`, and keeps what it writes for the end of the
  /// chunk.
  [[gnu::noinline]] void advance_block(Ahead& ahead, bool reads = true) {
    pairs_in_block(written_, rows_[Part::write], has_bonus_ ? rows_[Part::bonus] : nullptr);
    if constexpr (RankOne) pairs_in_block(written_ + block, rows_[Part::b], nullptr);
    decay_reads();
    if (written_ > 0) {
      if (reads) multiply_rows(rows_[Part::read], keys_, written_, stride_, of_read_ + stride_, factors_);
      if constexpr (RankOne) multiply_rows(rows_[Part::a], keys_, written_, stride_, of_a_ + stride_, factors_);
      decay_keys();
    }
    if constexpr (RankOne) {
      T* const z = state_ + (stride_ + written_ + block) * stride_;
      multiply<T>(z, block, stride_, {of_a_, factors_, 1}, state_, stride_ + written_ + block, nullptr, ahead);
      substitute(z);
    }
    written_ += block * written_per_token;
    if (reads) multiply<T>(y_, block, stride_, {of_read_, factors_, 1}, state_, stride_ + written_, nullptr, ahead);
    place_rows();
  }

  /// Adds what the blocks have written to the state, and starts the next chunk.
  void finish_chunk(Ahead& ahead) {
    multiply<T>(state_, stride_, stride_, {keys_, 1, stride_}, state_ + stride_ * stride_, written_, decayed_, ahead);
    start_chunk();
  }

 private:
  using R = Widest<T>;
  static constexpr Index written_per_token = RankOne ? 2 : 1;

  void start_chunk() {
    written_ = 0;
    std::fill_n(decayed_, stride_, T(1));
    place_rows();
  }
  /// What tokens write lies behind the state: for each block four values, then four removed rows.
  void place_rows() {
    rows_[Part::value] = state_ + (stride_ + written_) * stride_;
    rows_[Part::write] = keys_ + written_ * stride_;
    if constexpr (RankOne) rows_[Part::b] = keys_ + (written_ + block) * stride_;
  }

  /// The coefficients between the tokens of a block: those of r_t below and on the diagonal of `sums`, those of a_t
  /// above it, transposed. Decays `keys`, k or b, to the end of the block.
  [[gnu::noinline]] void pairs_in_block(Index column, T* keys, const T* bonuses) {
    R sums[block * block];
    RWKV_UNROLL for (int i = 0; i < block * block; ++i) sums[i] = R(0);
    for (Index n = 0; n < stride_; n += R::size) {
      R key[block];
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        const auto at = [&](const T* rows) { return R::load(rows + t * stride_ + n); };
        const R r = at(rows_[Part::read]), w = at(rows_[Part::decay]);
        RWKV_UNROLL for (int j = 0; j < t; ++j) {
          if constexpr (RankOne) sums[j * block + t] = multiply_add(at(rows_[Part::a]), key[j], sums[j * block + t]);
          if constexpr (!After) sums[t * block + j] = multiply_add(r, key[j], sums[t * block + j]);
          key[j] = key[j] * w;
        }
        key[t] = at(keys);
        if constexpr (After) {
          RWKV_UNROLL for (int j = 0; j <= t; ++j) {
            sums[t * block + j] = multiply_add(r, key[j], sums[t * block + j]);
          }
        } else if (bonuses != nullptr) {
          sums[t * block + t] = multiply_add(r * at(bonuses), key[t], sums[t * block + t]);
        }
      }
      RWKV_UNROLL for (int t = 0; t < block; ++t) key[t].store(keys + t * stride_ + n);
    }
    T finished[block * block];
    store_block(sums, finished);
    RWKV_UNROLL for (int t = 0; t < block; ++t) {
      T* const to_read = of_read_ + t * factors_ + stride_ + column;
      T* const to_a = of_a_ + t * factors_ + stride_ + column;
      RWKV_UNROLL for (int j = 0; j < block; ++j) {
        to_read[j] = j <= t ? finished[t * block + j] : T(0);
        if constexpr (RankOne) to_a[j] = j < t ? finished[j * block + t] : T(0);
      }
    }
  }

  /// Decays r and a from the start of the block, and from the start of the chunk for the product with the state.
  void decay_reads() {
    for (Index n = 0; n < stride_; n += R::size) {
      R in_block(T(1));
      const R before = R::load(decayed_ + n);
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        const R w = R::load(rows_[Part::decay] + t * stride_ + n);
        if constexpr (RankOne) {
          T* const row = rows_[Part::a] + t * stride_ + n;
          const R decayed = R::load(row) * in_block;
          decayed.store(row);
          (decayed * before).store(of_a_ + t * factors_ + n);
        }
        const R through = in_block * w;
        T* const row = rows_[Part::read] + t * stride_ + n;
        const R decayed = R::load(row) * (After ? through : in_block);
        decayed.store(row);
        (decayed * before).store(of_read_ + t * factors_ + n);
        in_block = through;
      }
      in_block.store(decayed_in_block_ + n);
      (before * in_block).store(decayed_ + n);
    }
  }
  /// Decays the keys of earlier blocks to the end of this block.
  void decay_keys() {
    for (Index n = 0; n < stride_; n += R::size) {
      const R w = R::load(decayed_in_block_ + n);
      for (Index row = 0; row < written_; ++row) {
        T* const key = keys_ + row * stride_ + n;
        (R::load(key) * w).store(key);
      }
    }
  }
  /// Adds to the removed rows what earlier tokens of the same block put back.
  void substitute(T* z) const {
    const T* const factors = of_a_ + stride_ + written_ + block;
    for (Index n = 0; n < stride_; n += R::size) {
      R removed[block];
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        removed[t] = R::load(z + t * stride_ + n);
        RWKV_UNROLL for (int j = 0; j < t; ++j) {
          removed[t] = multiply_add(R(factors[t * factors_ + j]), removed[j], removed[t]);
        }
        removed[t].store(z + t * stride_ + n);
      }
    }
  }

  Index stride_;   ///< numbers in a row: the head size, padded
  Index factors_;  ///< rows of the state and of what a chunk writes
  Index size_;
  bool has_bonus_;
  Index written_ = 0;     ///< rows that the blocks of this chunk have written
  T* state_;              ///< [stride] rows of the state, then the rows that tokens write
  T* keys_;               ///< where they are written: k and b, decayed to the end of the last block
  T* rows_[Part::count];  ///< the vectors of the next block
  T* y_;                  ///< its outputs
  T* decayed_;            ///< the decays of the chunk up to here, multiplied
  T* decayed_in_block_;   ///< those of the block
  T *of_read_, *of_a_;    ///< y = of_read * state, z = of_a * state; [block, factors]
};

/// The form of the transition of C.
template <class C, class T>
using HeadOf = HeadInChunks<T, detail::is_rank_one<C>, detail::reads_after_update<C>>;

/// Fills the rows of token t of sequence b, `nth` in its block; behind the end of the sequence, a token that changes
/// nothing. `begin` is the first channel of the head.
template <class C, class H, std::size_t... Nth, class... Op>
void load_token(std::index_sequence<Nth...>, const H& head, Ahead& ahead, Index nth, Index b, Index t, Index time,
                Index begin, Index size, const Op&... ops) {
  const auto fill = [&]<std::size_t I>(std::integral_constant<std::size_t, I>, const auto& op) {
    if constexpr (!detail::is_output<std::remove_cvref_t<decltype(op)>>) {
      constexpr Part::Name part = part_of<C>(I);
      auto* const to = head.row(part, nth);
      if (t < time) {
        copy_row(op.row(b, t) + begin, size, head.stride(), to);
        if (t + block < time) ahead.add(op.row(b, t + block) + begin, size);
      } else {
        std::fill_n(to, head.stride(), std::remove_cvref_t<decltype(*to)>(part == Part::decay ? 1 : 0));
      }
    }
  };
  (fill(std::integral_constant<std::size_t, Nth>{}, ops), ...);
}

/// Runs head `nth` of sequence b through all of time, in the memory that HeadOf<C, T> needs.
template <class C, class T, class... Op>
void run_head(T* memory, Index chunk, Index size, T* head_state, Index b, Index nth, Index time, const Op&... ops) {
  const Index begin = nth * size, per_chunk = round_up(chunk, block);
  HeadOf<C, T> head(memory, size, chunk, has_bonus<C>());
  head.load_state(head_state);
  Ahead ahead;
  for (Index t = 0; t < time; t += block) {
    for (Index i = 0; i < block; ++i) {
      load_token<C>(std::index_sequence_for<Op...>(), head, ahead, i, b, t + i, time, begin, size, ops...);
    }
    head.advance_block(ahead);
    ahead.finish();
    const auto store = [&](const auto& op) {
      if constexpr (detail::is_output<std::remove_cvref_t<decltype(op)>>) {
        for (Index i = 0; i < block && t + i < time; ++i) store_row(head.y(i), size, op.row(b, t + i) + begin);
      }
    };
    (store(ops), ...);
    if ((t + block) % per_chunk == 0 || t + block >= time) head.finish_chunk(ahead);
  }
  head.store_state(head_state);
}

}  // namespace chunked

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
