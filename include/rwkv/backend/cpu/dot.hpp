#pragma once
/// The product of a linear layer, y = x w^T.
///
/// An output has several chains of fused multiply-adds: of C chains, number c adds up the terms c, c + C, c + 2 C, ... in
/// order. In long rows C is the lanes of a pack, so that a row of w is read as it is, one pack after the other. Short rows, as
/// those of low-rank products, have the chains of 16 bytes, because to add up all lanes of a pack would take as long as the
/// multiplications. In the end the chains are added in pairs. Long rows are cut into stretches, even ones, of at most 3 KB,
/// whose sums are added in order. All that depends on the length and the vector width alone. So a token's result has the same
/// bits whatever the batch, the chunk, the tile or the number of threads, and 16-bit weights give the same bits as their
/// widened copies.
///
/// A single row of x is bound by memory, and reads w in place. For several, a panel of w, the rows of one block of outputs, is
/// copied, widened, in the order in which blocks read it. It stays in the L1 cache for the length of a stretch, while the rows
/// of x stream by from the L2 cache and the next panel is prefetched.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cpu/pack.hpp"
#include "rwkv/backend/product.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace dot {

/// Prefetches the cache line `ahead` numbers after `from`; the address may lie past the end of the matrix.
template <class T>
RWKV_INLINE void prefetch([[maybe_unused]] const T* from, [[maybe_unused]] Index ahead) {
#if defined(__GNUC__)
  const auto address = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(address));
#endif
}

/// Keeps a number in a register. Otherwise g++ folds the load into every use, and loads, not multiplications, become
/// the limit.
template <class R>
RWKV_INLINE void keep_in_register(R&) {}
#if RWKV_SIMD_BYTES > 0 && defined(__x86_64__) && !defined(__clang__)
template <class T, int N>
RWKV_INLINE void keep_in_register(Pack<T, N>& x) {
  asm("" : "+v"(x.v));
}
#if defined(__AVX512F__)
RWKV_INLINE void keep_in_register(__m512i& x) { asm("" : "+v"(x)); }
#endif
#endif

/// Bytes of the longest stretch, and of the longest row that is short; in the type that computes.
inline constexpr Index stretch_bytes = 3072, short_row_bytes = 512;
/// Prefetch distance in the weights for a single row of x.
inline constexpr Index prefetch_bytes = 8192;
inline constexpr Index line_bytes = 64;

constexpr Index parts(Index whole, Index part) { return (whole + part - 1) / part; }

#if RWKV_SIMD_BYTES > 0
template <class T, int N>
Pack<T, 16 / int{sizeof(T)}> sixteen_bytes(Pack<T, N>);
#endif
template <class T>
One<T> sixteen_bytes(One<T>);

/// A block of outputs. Its sums, a pack of each row of x and one of w fit the registers, and every load serves several
/// multiply-adds.
template <class T, bool Short>
struct Block {
#if RWKV_SIMD_BYTES == 64 || defined(__aarch64__)
  static constexpr int registers = 24;  ///< for sums, of 32
#else
  static constexpr int registers = 12;  ///< of 16
#endif
  using R = Widest<T>;
  using Chains = std::conditional_t<Short, decltype(sixteen_bytes(R())), R>;  ///< of one output
  static constexpr int chains = Chains::size;                                 ///< how many
  static constexpr int groups = R::size / chains;                             ///< outputs of a pack
  static constexpr int packs = Short ? 4 : registers / 3;                     ///< of a row of x
  static constexpr int outputs = packs * groups;                              ///< rows of w
  static constexpr int rows = registers / packs;                              ///< of x
  static constexpr Index longest =
      (Short ? short_row_bytes : stretch_bytes) / Index{sizeof(T)};  ///< numbers of a stretch

  /// The row of a panel whose chains are a group of a pack: so folded packs are in order.
  static constexpr int row_of(int pack, int group) {
    return Short ? pack / chains * R::size + group * chains + pack % chains : pack;
  }
  /// The numbers of each stretch of rows of `cols` numbers but the last: whole packs.
  static constexpr Index stretch_of(Index cols) {
    const Index all = parts(cols, R::size), most = longest / R::size;
    return parts(all, std::max<Index>(1, parts(all, most))) * R::size;
  }
};

#if RWKV_SIMD_BYTES > 0
/// Adds the two halves of every group of `Group` lanes. Groups wider than 16 bytes leave the sums of a, then those of b;
/// narrower ones do so in every 16 bytes, because moves within them are the cheapest.
template <int Group, class T, int N, int... Lane>
RWKV_INLINE Pack<T, N> fold_groups(Pack<T, N> a, Pack<T, N> b, std::integer_sequence<int, Lane...>) {
  constexpr int half = Group / 2, n = Group * int{sizeof(T)} > 16 ? N : 16 / int{sizeof(T)};
  constexpr auto from = [](int lane, int second) {
    const int at = lane % n / half * Group + lane % half + second;
    return lane / n * n + at % n + at / n * N;
  };
  return Pack<T, N>(__builtin_shufflevector(a.v, b.v, from(Lane, 0)...) +
                    __builtin_shufflevector(a.v, b.v, from(Lane, half)...));
}

/// Reduces `Count` packs, a power of two of at most N, in pairs; each with the same additions as sum_lanes.
template <int Group, int Count, class T, int N>
RWKV_INLINE Pack<T, N> fold_sums(Pack<T, N>* sums) {
  if constexpr (Group > 1) {
    constexpr auto lanes = std::make_integer_sequence<int, N>();
    RWKV_UNROLL for (int i = 0; i < (Count + 1) / 2; ++i) {
      sums[i] = fold_groups<Group>(sums[2 * i], sums[Count == 1 ? 0 : 2 * i + 1], lanes);
    }
    return fold_sums<Group / 2, (Count + 1) / 2>(sums);
  } else {
    return sums[0];
  }
}

/// Brings folded sums into their order: every 16 bytes hold those of packs that were far apart.
template <class T, int N, int... Lane>
RWKV_INLINE Pack<T, N> in_order(Pack<T, N> sums, std::integer_sequence<int, Lane...>) {
  constexpr int n = 16 / int{sizeof(T)}, groups = N / n;
  return Pack<T, N>(__builtin_shufflevector(sums.v, sums.v, (Lane % groups * n + Lane / groups)...));
}

/// to[i] = sum_lanes(sums[i]) for `Count` sums.
template <int Count, class T, int N>
RWKV_INLINE void store_sums(const Pack<T, N>* sums, T* to) {
  constexpr int size = std::min(N, static_cast<int>(std::bit_floor(unsigned{Count})));
  Pack<T, N> folding[size];
  RWKV_UNROLL for (int i = 0; i < size; ++i) folding[i] = sums[i];
  const Pack<T, N> folded = in_order(fold_sums<N, size>(folding), std::make_integer_sequence<int, N>());
  if constexpr (size == N) {
    folded.store(to);
  } else {
    T all[N];  // a partial store would be a call
    folded.store(all);
    std::copy_n(all, size, to);
  }
  if constexpr (Count > size) store_sums<Count - size>(sums + size, to + size);
}

/// The even (or, with Second = 1, the odd) groups of 16 bytes of a, then those of b.
template <int Second, class T, int N, int... Lane>
RWKV_INLINE Pack<T, N> every_other_group(Pack<T, N> a, Pack<T, N> b, std::integer_sequence<int, Lane...>) {
  constexpr int n = 16 / int{sizeof(T)}, groups = N / n;
  return Pack<T, N>(__builtin_shufflevector(
      a.v, b.v, (Lane / n * 2 / groups * N + (Lane / n * 2 % groups + Second) * n + Lane % n)...));
}
/// Group i of pack j becomes group j of pack i.
template <int Left, class T, int N, int Count>
RWKV_INLINE void transpose_groups(Pack<T, N> (&x)[Count]) {
  if constexpr (Left > 1) {
    constexpr auto lanes = std::make_integer_sequence<int, N>();
    Pack<T, N> y[Count];
    RWKV_UNROLL for (int i = 0; i < Count / 2; ++i) {
      y[i] = every_other_group<0>(x[2 * i], x[2 * i + 1], lanes);
      y[i + Count / 2] = every_other_group<1>(x[2 * i], x[2 * i + 1], lanes);
    }
    RWKV_UNROLL for (int i = 0; i < Count; ++i) x[i] = y[i];
    transpose_groups<Left / 2>(x);
  }
}
/// As many numbers as an output has chains, in every group of a pack.
template <class R, int Chains, class T>
RWKV_INLINE R repeated(const T* from) {
  if constexpr (R::size == Chains) return R::load(from);
  else return pack::repeated<R>(from);
}
#endif
template <int Count, class T>
RWKV_INLINE void store_sums(const One<T>* sums, T* to) {
  RWKV_UNROLL for (int i = 0; i < Count; ++i) to[i] = sums[i].v;
}
template <int, class T>
RWKV_INLINE void transpose_groups(One<T> (&)[1]) {}
#if RWKV_SIMD_BYTES == 0
template <class R, int, class T>
RWKV_INLINE R repeated(const T* from) {
  return R::load(from);
}
#endif

/// A panel of w that is to be read soon, prefetched line by line while products run. Prefetched all at once, the lines would
/// wait for each other, and the products for them.
class Ahead {
 public:
  /// Rows of `cols` numbers from `offset` behind `first` on; they may lie behind the end of the matrix.
  template <class U>
  Ahead(const U* first, Index offset, Index stride, Index rows, Index cols)
      : row_(reinterpret_cast<std::uintptr_t>(first) + static_cast<std::uintptr_t>(offset) * sizeof(U)),
        stride_(static_cast<std::uintptr_t>(stride) * sizeof(U)), bytes_(cols * Index{sizeof(U)}), rows_(rows) {}

  /// Divides the lines among so many calls of prefetch().
  void divide(Index calls) { lines_ = parts(rows_ * parts(bytes_, line_bytes), std::max<Index>(1, calls)); }
  RWKV_INLINE void prefetch() {
    for (Index i = 0; i < lines_ && rows_ > 0; ++i) {
      dot::prefetch(reinterpret_cast<const char*>(row_), at_);
      at_ += line_bytes;
      if (at_ < bytes_) continue;
      at_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  std::uintptr_t row_, stride_;
  Index bytes_, rows_, at_ = 0, lines_ = 0;
};

/// The terms of one step of a block, added to its sums: `xs[i] + k` has the numbers of row i.
template <int Chains, int X, class R, class T, int Packs>
RWKV_INLINE void add_terms(R (&sums)[X][Packs], const T* const (&xs)[X], Index k, const T* w) {
  R activations[X];
  RWKV_UNROLL for (int i = 0; i < X; ++i) activations[i] = repeated<R, Chains>(xs[i] + k);
  RWKV_UNROLL for (int p = 0; p < Packs; ++p) {
    R weights = R::load(w + p * R::size);
    keep_in_register(weights);
    RWKV_UNROLL for (int i = 0; i < X; ++i) sums[i][p] = multiply_add(activations[i], weights, sums[i][p]);
  }
}

/// to[j] = or += sums[j], for the first `count` numbers of a pack.
template <class R, class T>
RWKV_INLINE void add_pack(R sums, T* to, Index count, bool add) {
  if (count >= R::size) {
    (add ? R::load(static_cast<const T*>(to)) + sums : sums).store(to);
  } else if (const int left = static_cast<int>(count); left > 0) {
    (add ? R::load(static_cast<const T*>(to), left) + sums : sums).store(to, left);
  }
}

/// y[j] = or += the sum of the chains of output j, for `count` outputs of a row of a block.
template <class Block, class R, class T>
RWKV_INLINE void finish_row(const R (&sums)[Block::packs], T* y, Index count, bool add) {
#if RWKV_SIMD_BYTES > 0
  if constexpr (R::size > 1) {
    constexpr int size = std::min(Block::packs, Block::chains);  // packs that are folded into one
    RWKV_UNROLL for (int p = 0; p < Block::packs; p += size) {
      R folding[size];
      RWKV_UNROLL for (int i = 0; i < size; ++i) folding[i] = sums[p + i];
      R folded = fold_sums<Block::chains, size>(folding);
      if constexpr (Block::groups == 1) folded = in_order(folded, std::make_integer_sequence<int, R::size>());
      using Part = Pack<T, size * Block::groups>;
      Part part;
      std::memcpy(&part.v, &folded.v, sizeof part.v);
      add_pack(part, y + p * Block::groups, count - p * Block::groups, add);
    }
    return;
  }
#endif
  if constexpr (R::size == 1) {
    RWKV_UNROLL for (int p = 0; p < Block::packs; ++p) add_pack(sums[p], y + p, count - p, add);
  }
}

/// The same for the rows of a block, at most y.rows of them. No loop, because clang does not unroll one as long as this, and
/// sums with a variable index are no registers.
template <class Block, class R, class T, int X, int... Row>
RWKV_INLINE void finish_rows(const R (&sums)[X][Block::packs], Mat<T> y, bool add, std::integer_sequence<int, Row...>) {
  ((Row < y.rows ? finish_row<Block>(sums[Row], y.row(Row), y.cols, add) : void()), ...);
}

/// y = or += x w^T over one stretch, for at most X rows of x and the rows of w in a copied panel.
template <class Block, int X, class T>
RWKV_INLINE void multiply_block(Mat<T> y, Mat<const T> x, const T* w, bool add, Ahead& ahead) {
  using R = Widest<T>;
  constexpr int packs = Block::packs, chains = Block::chains;
  R sums[X][packs];
  const T* xs[X];
  RWKV_UNROLL for (int i = 0; i < X; ++i) xs[i] = x.row(std::min<Index>(i, x.rows - 1));
  RWKV_UNROLL for (int i = 0; i < X; ++i) { RWKV_UNROLL for (int p = 0; p < packs; ++p) sums[i][p] = R(0); }
  Index k = 0;
  for (; k + chains <= x.cols; k += chains, w += packs * R::size) {
    if constexpr (Block::groups == 1) ahead.prefetch();
    add_terms<chains>(sums, xs, k, w);
  }
  if (k < x.cols) {
    alignas(64) T ends[X][chains] = {};
    RWKV_UNROLL for (int i = 0; i < X; ++i) {
      if constexpr (chains > 4) {
        R::load(xs[i] + k, static_cast<int>(x.cols - k)).store(ends[i]);
      } else {
        RWKV_UNROLL for (int c = 0; c < chains; ++c) ends[i][c] = k + c < x.cols ? xs[i][k + c] : T(0);
      }
      xs[i] = ends[i];
    }
    add_terms<chains>(sums, xs, 0, w);
  }
  finish_rows<Block>(sums, y, add, std::make_integer_sequence<int, X>());
}

/// All rows of x against a copied panel of w over one stretch. Not inlined: compiled once for each computing type.
template <class Block, class T>
[[gnu::noinline]] void multiply_panel(Mat<T> y, Mat<const T> x, const T* w, bool add, Ahead ahead) {
  constexpr int most = Block::rows, third = most / 3;
  ahead.divide(parts(x.rows, most) * (x.cols / Block::chains));
  for (Index row = 0; row < x.rows; row += most) {
    const Index left = x.rows - row;
    const Mat<T> to = rows_of(y, row, std::min<Index>(left, most));
    const Mat<const T> from = rows_of(x, row, to.rows);
    if (left > 2 * third) multiply_block<Block, most>(to, from, w, add, ahead);
    else if (left > third) multiply_block<Block, 2 * third>(to, from, w, add, ahead);
    else multiply_block<Block, third>(to, from, w, add, ahead);
  }
}

/// Copies a panel, widened, in the order of its packs; zeros stand for the numbers that it lacks, its last row for the rows.
template <class Block, class T, class Stored>
void copy_panel(Mat<const Stored> w, T* to) {
  using R = Widest<T>;
  constexpr int groups = Block::groups;
  constexpr Index step = Block::packs * R::size;
  for (int p = 0; p < Block::packs; ++p, to += R::size) {
    const Stored* rows[groups];
    RWKV_UNROLL for (int g = 0; g < groups; ++g) rows[g] = w.row(std::min<Index>(Block::row_of(p, g), w.rows - 1));
    T* next = to;
    Index k = 0;
    for (; k + R::size <= w.cols; k += R::size) {
      R x[groups];
      RWKV_UNROLL for (int g = 0; g < groups; ++g) x[g] = R::load(rows[g] + k);
      transpose_groups<groups>(x);
      RWKV_UNROLL for (int g = 0; g < groups; ++g, next += step) x[g].store(next);
    }
    if (const int left = static_cast<int>(w.cols - k); left > 0) {
      R x[groups];
      RWKV_UNROLL for (int g = 0; g < groups; ++g) x[g] = R::load(rows[g] + k, left);
      transpose_groups<groups>(x);
      RWKV_UNROLL for (int g = 0; g < groups; ++g, next += step) {
        if (g * Block::chains < left) x[g].store(next);
      }
    }
  }
}

/// y[j] = x . w_j for J rows of w from `out` on.
template <class Block, int J, class T, class Stored>
RWKV_INLINE void dot_rows(T* y, const T* x, Mat<const Stored> w, Index out, Index stretch) {
  using R = typename Block::Chains;
  // Whole packs come from memory: one prefetch for each line of it.
  constexpr bool from_memory = std::is_same_v<R, typename Block::R>;
  constexpr Index ahead = prefetch_bytes / Index{sizeof(Stored)};
  constexpr Index packs_of_line = from_memory ? std::max<Index>(1, line_bytes / (R::size * Index{sizeof(Stored)})) : 1;
  const Stored* rows[J];
  RWKV_UNROLL for (int j = 0; j < J; ++j) rows[j] = w.row(out + j);
  Index k = 0;
  bool add = false;
  do {  // runs once even for empty rows, to write zeros
    const Index end = std::min<Index>(w.cols, k + stretch);
    R sums[J];
    RWKV_UNROLL for (int j = 0; j < J; ++j) sums[j] = R(0);
    const auto add_packs = [&](Index at) {
      R activation = R::load(x + at);
      if constexpr (J > 1) keep_in_register(activation);
      RWKV_UNROLL for (int j = 0; j < J; ++j) sums[j] = multiply_add(activation, R::load(rows[j] + at), sums[j]);
    };
    for (; k + packs_of_line * R::size <= end; k += packs_of_line * R::size) {
      if constexpr (from_memory) {
        RWKV_UNROLL for (int j = 0; j < J; ++j) prefetch(rows[j] + k, ahead);
      }
      RWKV_UNROLL for (Index pack = 0; pack < packs_of_line; ++pack) add_packs(k + pack * R::size);
    }
    if constexpr (packs_of_line > 1) {
      for (; k + R::size <= end; k += R::size) add_packs(k);
    }
    if (const int left = static_cast<int>(end - k); left > 0) {
      const R activation = R::load(x + k, left);
      RWKV_UNROLL for (int j = 0; j < J; ++j) sums[j] = multiply_add(activation, R::load(rows[j] + k, left), sums[j]);
      k = end;
    }
    T finished[J];
    store_sums<J>(sums, finished);
    RWKV_UNROLL for (int j = 0; j < J; ++j) y[out + j] = add ? y[out + j] + finished[j] : finished[j];
    add = true;
  } while (k < w.cols);
}

/// A single row of x against the rows [first, last) of w. Long rows one after the other, as one sequential stream of memory;
/// short ones, and those that are widened to short packs, a few at a time, so that the multiply-adds of one need not wait for
/// each other.
template <class Block, class T, class Stored>
void dot_row(T* y, const T* x, Mat<const Stored> w, Index first, Index last) {
  constexpr bool is_short = Block::longest * Index{sizeof(T)} == short_row_bytes;
  constexpr int together = is_short ? 8 : sizeof(Stored) < sizeof(T) && Widest<T>::size < 16 ? 4 : 1;
  const Index stretch = Block::stretch_of(w.cols);
  for (; first + together <= last; first += together) dot_rows<Block, together>(y, x, w, first, stretch);
  for (; first < last; ++first) dot_rows<Block, 1>(y, x, w, first, stretch);
}

/// All rows of x against the rows [begin, end) of w.
template <class Block, class T, class Stored>
void multiply_rows(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  if (x.rows == 1) return dot_row<Block>(y.row(0), x.row(0), w, begin, end);
  constexpr Index outputs = Block::outputs;
  alignas(64) T panel[outputs * Block::longest];
  const Index stretch = Block::stretch_of(w.cols);
  Index first = 0;
  do {
    const Index length = std::min<Index>(stretch, w.cols - first);
    for (Index out = begin; out < end; out += outputs) {
      const Mat<const Stored> rows{w.row(out) + first, std::min(outputs, end - out), length, w.stride};
      copy_panel<Block>(rows, panel);
      // The next panel of the stretch, or the first of the next one.
      const Index offset = out + outputs < end ? outputs * w.stride : (begin - out) * w.stride + stretch;
      multiply_panel<Block, T>({&y(0, out), y.rows, rows.rows, y.stride}, {x.data + first, x.rows, length, x.stride},
                               panel, first > 0, Ahead(rows.data, offset, w.stride, outputs, length));
    }
    first += stretch;
  } while (first < w.cols);
}

/// All rows of x against the rows [begin, end) of w. Not inlined: compiled once for each pair of types.
template <class T, class Stored>
[[gnu::noinline]] void dot_tile(Mat<T> y, Mat<const T> x, Mat<const Stored> w, Index begin, Index end) {
  if (w.cols * Index{sizeof(T)} <= short_row_bytes) multiply_rows<Block<T, true>>(y, x, w, begin, end);
  else multiply_rows<Block<T, false>>(y, x, w, begin, end);
}

/// The columns [begin, end) of y = epilogue(y).
template <class T, class Epilogue>
void finish(Mat<T> y, const Epilogue& epilogue, Index begin, Index end) {
  if constexpr (!std::is_same_v<Epilogue, Identity>) {
    using R = Widest<T>;
    for (Index r = 0; r < y.rows; ++r) {
      T* row = y.row(r);
      Index n = begin;
      for (; n + R::size <= end; n += R::size) epilogue(R::load(row + n)).store(row + n);
      if (const int left = static_cast<int>(end - n); left > 0) epilogue(R::load(row + n, left)).store(row + n, left);
    }
  }
}

}  // namespace dot

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
