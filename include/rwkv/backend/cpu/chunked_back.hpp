#pragma once
/// The adjoint of row cells in chunks of time, from their declared transition.
///
/// With S of shape [component n, lane v] as in chunked.hpp, and z_t = a_t S_{t-1} the row that a token removes (only with
/// a transition of rank one), a cell that reads before its update runs
///
///     y_t = r_t S_{t-1} + <r_t, u_t * k_t> v_t,    S_t = diag(w_t) S_{t-1} + k_t (x) v_t + b_t (x) z_t
///
/// With C_t the cotangent of S_t, its adjoint is the same cell in reversed time, where r and k, a and b, v and dy change
/// places; dz_t = b_t C_t is the row that is removed from C:
///
///     dv_t = k_t C_t + <r_t, u_t * k_t> dy_t,    C_{t-1} = diag(w_t) C_t + r_t (x) dy_t + a_t (x) dz_t
///
/// The other gradients are sums over the lanes, (S f)[n] = sum over v of S[n][v] f[v]; for two states the sum over v of
/// S[n][v] C[n][v] is written S C:
///
///     dr_t = S_{t-1} dy_t + u_t * k_t <v_t, dy_t>    da_t = S_{t-1} dz_t    du_t = r_t * k_t <v_t, dy_t>
///     dk_t = C_t v_t + u_t * r_t <v_t, dy_t>         db_t = C_t z_t         dw_t = S_{t-1} C_t
///
/// Write x_j (x) f_j for what tokens write to S, k (x) v and b (x) z, and g_i (x) e_i for what they write to C, r (x) dy
/// and a (x) dz. In a chunk, from S_0 in front of it and C_L behind it, with decays D as in chunked.hpp,
///
///     S_{t-1} e_i = D_{t-1,0} * S_0 e_i   + sum over j < t of D_{t-1,j} * x_j <f_j, e_i>
///     S_{t-1} C_L = D_{t-1,0} * S_0 C_L   + sum over j < t of D_{t-1,j} * x_j * C_L f_j
///     C_t f_j     = D_{L,t} * C_L f_j     + sum over i > t of D_{i-1,t} * g_i <e_i, f_j>
///     dw_t        = D_{L,t} * S_{t-1} C_L + sum over i > t of D_{i-1,t} * g_i * S_{t-1} e_i
///
/// So S e_i, for every later i, and S C_L are carried forwards from block to block, and C f_j, for every earlier j,
/// backwards. No decay is divided by: a decay of 0 has an exact gradient.
///
/// A cell that reads after its update reads what the next token reads before its own. So r and dy move to the next token,
/// and a token without any other vector follows the last.
#include <algorithm>
#include <utility>

#include "rwkv/backend/cpu/chunked.hpp"
#include "rwkv/backend/cpu/recur_back.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

namespace chunked {

#if RWKV_SIMD_BYTES > 0
/// Exchanges the odd groups of `Half` lanes of a with the even ones of b.
template <int Half, class T, int N, int... Lane>
RWKV_INLINE void exchange_lanes(Pack<T, N>& a, Pack<T, N>& b, std::integer_sequence<int, Lane...>) {
  const auto even = __builtin_shufflevector(a.v, b.v, (Lane & Half ? N + Lane - Half : Lane)...);
  b.v = __builtin_shufflevector(a.v, b.v, (Lane & Half ? N + Lane : Lane + Half)...);
  a.v = even;
}
/// Exchanges the axes of a square of packs.
template <int Half, class T, int N>
RWKV_INLINE void transpose_packs(Pack<T, N> (&rows)[N]) {
  if constexpr (Half > 0) {
    RWKV_UNROLL for (int i = 0; i < N; ++i) {
      if ((i & Half) == 0) exchange_lanes<Half>(rows[i], rows[i + Half], std::make_integer_sequence<int, N>());
    }
    transpose_packs<Half / 2>(rows);
  }
}
#endif
template <int Half, class T>
RWKV_INLINE void transpose_packs(One<T> (&)[1]) {}

/// Copies a matrix [size, size] with its axes exchanged; size in whole packs.
template <class T>
[[gnu::noinline]] void transpose(const T* from, T* to, Index size) {
  using R = Widest<T>;
  for (Index row = 0; row < size; row += R::size) {
    for (Index column = 0; column < size; column += R::size) {
      R square[R::size];
      RWKV_UNROLL for (int i = 0; i < R::size; ++i) square[i] = R::load(from + (row + i) * size + column);
      transpose_packs<R::size / 2>(square);
      RWKV_UNROLL for (int i = 0; i < R::size; ++i) square[i].store(to + (column + i) * size + row);
    }
  }
}

/// One head of one sequence, backwards. Positions in time are those of reads before the update.
template <class T, bool RankOne>
class HeadBackInChunks {
 public:
  /// Takes its memory; with an arena that measures, it does no more.
  HeadBackInChunks(Arena memory, Index size, Index chunk, Index positions, bool has_bonus)
      : size_(size), stride_(padded<T>(size)), chunk_(round_up(std::clamp<Index>(positions, 1, chunk), block)),
        rows_(kinds * chunk_), positions_(positions), chunks_((positions + chunk_ - 1) / chunk_),
        has_bonus_(has_bonus) {
    kept_ = memory.take<T>(chunks_ * kept_numbers());
    state_ = memory.take<T>(State::memory(size_, chunk_));
    end_ = memory.take<T>(stride_ * stride_);
    const auto take_rows = [&](Index rows) { return memory.take<T>(rows * stride_); };
    for (T** rows : {&x_, &f_, &g_, &e_, &x_decayed_, &g_decayed_, &of_start_, &of_end_}) *rows = take_rows(rows_);
    for (T** rows : {&decay_, &bonus_, &ddecay_, &dbonus_, &dvalue_}) *rows = take_rows(chunk_);
    block_decay_ = take_rows(chunk_ / block);
    spanning_ = take_rows(chunk_ / block);
    start_of_end_ = take_rows(1);
    pairs_ = memory.take<T>(rows_ * rows_);
  }

  /// The forward pass keeps for each chunk the state in front of it, transposed, and the rows that its tokens remove.
  /// load(part, position, to, next, ahead) copies a vector, and has that of position `next` prefetched.
  template <class Load>
  void go_forwards(const T* first, const Load& load) {
    State now(state_, size_, chunk_, false);
    now.load_state(first);
    for (Index c = 0; c < chunks_; ++c) {
      transpose(now.state(), start_of(c), stride_);
      if (c + 1 == chunks_ && !RankOne) break;  // nobody reads the last state
      for (Index begin = 0; begin < length_of(c); begin += block) {
        for (Index t = 0; t < block; ++t) {
          std::fill_n(now.row(Part::read, t), stride_, T(0));
          for (const Part::Name part : {Part::decay, Part::write, Part::value, Part::a, Part::b}) {
            const Index position = c * chunk_ + begin + t;
            if (has(part)) load(part, position, now.row(part, t), position + block, ahead_);
          }
        }
        now.advance_block(ahead_, false);
        ahead_.finish();
        if constexpr (RankOne) std::copy_n(now.removed(0), block * stride_, removed_of(c) + begin * stride_);
      }
      now.finish_chunk(ahead_);
    }
  }

  /// The backward pass, behind the forward pass. store(part, position, from) stores the gradient of a vector.
  template <class Load, class Store>
  void go_back(const T* dlast, T* dfirst, const Load& load, const Store& store) {
    State cotangent(state_, size_, chunk_, has_bonus_);
    cotangent.load_state(dlast);
    for (Index c = chunks_; c-- > 0;) {
      length_ = length_of(c);
      if constexpr (RankOne) {
        for (Index t = 0; t < length_; ++t)
          std::copy_n(removed_of(c) + t * stride_, stride_, f_ + row_of(t, 1) * stride_);
      }
      transpose(cotangent.state(), end_, stride_);
      for (Index begin = length_ - block; begin >= 0; begin -= block) {
        each_row(begin, begin + block, [&](Part::Name part, Index t) {
          const Index position = c * chunk_ + t;
          load(part, position, row(part, t), position - block, ahead_);
        });
        retreat_block(cotangent, begin);
      }
      cotangent.finish_chunk(ahead_);
      gradients_over_lanes(start_of(c));
      if (has_bonus_) gradients_of_bonus();
      each_row(0, length_, [&](Part::Name part, Index t) {
        if (part != Part::cotangent) store(part, c * chunk_ + t, gradient(part, t));
      });
    }
    cotangent.store_state(dfirst);
  }

 private:
  using R = Widest<T>;
  using State = HeadInChunks<T, RankOne, false>;
  static constexpr Index kinds = RankOne ? 2 : 1;
  static constexpr Index per_block = kinds * block;

  bool has(Part::Name part) const {
    if (part == Part::bonus) return has_bonus_;
    return RankOne || (part != Part::a && part != Part::b);
  }
  /// Rows of a chunk come in blocks: of four tokens those of k, then those of b; or of r, then of a.
  static constexpr Index row_of(Index token, Index kind) {
    return (token / block * kinds + kind) * block + token % block;
  }
  Index kept_numbers() const { return stride_ * stride_ + (RankOne ? chunk_ * stride_ : 0); }
  T* start_of(Index c) const { return kept_ + c * kept_numbers(); }
  T* removed_of(Index c) const { return start_of(c) + stride_ * stride_; }
  /// The tokens of a chunk, in whole blocks.
  Index length_of(Index c) const { return round_up(std::min(chunk_, positions_ - c * chunk_), block); }

  /// The vectors of a token of this chunk, and their gradients.
  T* row(Part::Name part, Index token) const {
    switch (part) {
      case Part::read: return g_ + row_of(token, 0) * stride_;
      case Part::a: return g_ + row_of(token, 1) * stride_;
      case Part::write: return x_ + row_of(token, 0) * stride_;
      case Part::b: return x_ + row_of(token, 1) * stride_;
      case Part::value: return f_ + row_of(token, 0) * stride_;
      case Part::cotangent: return e_ + row_of(token, 0) * stride_;
      case Part::decay: return decay_ + token * stride_;
      default: return bonus_ + token * stride_;
    }
  }
  const T* gradient(Part::Name part, Index token) const {
    switch (part) {
      case Part::read: return of_start_ + row_of(token, 0) * stride_;
      case Part::a: return of_start_ + row_of(token, 1) * stride_;
      case Part::write: return of_end_ + row_of(token, 0) * stride_;
      case Part::b: return of_end_ + row_of(token, 1) * stride_;
      case Part::value: return dvalue_ + token * stride_;
      case Part::decay: return ddecay_ + token * stride_;
      default: return dbonus_ + token * stride_;
    }
  }
  template <class F>
  void each_row(Index begin, Index end, const F& f) const {
    for (int part = 0; part < Part::count; ++part) {
      const auto name = static_cast<Part::Name>(part);
      for (Index t = begin; t < end && has(name); ++t) f(name, t);
    }
  }

  /// Runs the cotangent of the state back through the block at token `begin`: dv and dz.
  void retreat_block(State& cotangent, Index begin) {
    for (Index i = 0; i < block; ++i) {
      const auto copy = [&](Part::Name from, Part::Name to) {
        std::copy_n(row(from, begin + block - 1 - i), stride_, cotangent.row(to, i));
      };
      copy(Part::decay, Part::decay);
      copy(Part::write, Part::read);
      copy(Part::read, Part::write);
      copy(Part::cotangent, Part::value);
      if (has_bonus_) copy(Part::bonus, Part::bonus);
      if constexpr (RankOne) {
        copy(Part::b, Part::a);
        copy(Part::a, Part::b);
      }
    }
    cotangent.advance_block(ahead_);
    ahead_.finish();
    for (Index i = 0; i < block; ++i) {
      const Index t = begin + block - 1 - i;
      std::copy_n(cotangent.y(i), stride_, dvalue_ + t * stride_);
      if constexpr (RankOne) std::copy_n(cotangent.removed(i), stride_, e_ + row_of(t, 1) * stride_);
    }
  }

  /// The gradients of w, r, a, k and b. `start` is S_0, transposed.
  void gradients_over_lanes(const T* start) {
    const Index rows = kinds * length_, blocks = length_ / block;
    for (Index i = 0; i < rows; i += block) {
      multiply_rows(e_ + i * stride_, f_, i / per_block * per_block + per_block, stride_, pairs_ + i * rows_, rows_);
    }
    multiply<T>(of_start_, rows, stride_, {e_, stride_, 1}, start, stride_, nullptr, ahead_);
    multiply<T>(of_end_, rows, stride_, {f_, stride_, 1}, end_, stride_, nullptr, ahead_);
    sum_of_products(start);
    for (Index nth = 0; nth < blocks; ++nth) decay_in_block(nth);
    for (Index nth = 0; nth < blocks; ++nth) {
      span(nth, blocks);
      const Index here = nth * per_block, later = here + per_block;
      carry(of_start_ + later * stride_, rows - later, nth, x_decayed_ + here * stride_,
            {pairs_ + later * rows_ + here, rows_, 1});
      carry_start_of_end(nth);
    }
    for (Index nth = blocks; nth-- > 0;) {
      const Index here = nth * per_block;
      gradients_forwards(nth);
      gradients_backwards(nth);
      carry(of_end_, here, nth, g_decayed_ + here * stride_, {pairs_ + here * rows_, 1, rows_});
    }
  }

  /// S_0 C_L, the sum of their products over the lanes.
  void sum_of_products(const T* start) {
    for (Index n = 0; n < stride_; n += R::size) {
      R sum(0);
      for (Index v = 0; v < stride_; ++v) {
        sum = multiply_add(R::load(start + v * stride_ + n), R::load(end_ + v * stride_ + n), sum);
      }
      sum.store(start_of_end_ + n);
    }
  }

  /// Decays x to the end of its block and g from the start of its block; multiplies the decays of the block.
  void decay_in_block(Index nth) {
    for (Index n = 0; n < stride_; n += R::size) {
      R x[kinds][block], through(1);
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        const R w = R::load(decay_ + (nth * block + t) * stride_ + n);
        RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
          RWKV_UNROLL for (int j = 0; j < t; ++j) x[kind][j] = x[kind][j] * w;
          x[kind][t] = R::load(x_ + place(nth, t, kind, n));
          (R::load(g_ + place(nth, t, kind, n)) * through).store(g_decayed_ + place(nth, t, kind, n));
        }
        through = through * w;
      }
      RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
        RWKV_UNROLL for (int t = 0; t < block; ++t) { x[kind][t].store(x_decayed_ + place(nth, t, kind, n)); }
      }
      through.store(block_decay_ + nth * stride_ + n);
    }
  }

  /// Carries rows over a block: each is decayed, and what the block writes is added, by its factors.
  void carry(T* rows, Index count, Index nth, const T* written, Spread<T> factors) const {
    for (Index n = 0; n < stride_; n += R::size) {
      const R w = R::load(block_decay_ + nth * stride_ + n);
      R x[per_block];
      RWKV_UNROLL for (int j = 0; j < per_block; ++j) x[j] = R::load(written + j * stride_ + n);
      const T* factor = factors.data;
      for (Index i = 0; i < count; ++i, factor += factors.row) {
        R sum = R::load(rows + i * stride_ + n) * w;
        RWKV_UNROLL for (int j = 0; j < per_block; ++j) sum = multiply_add(R(factor[j * factors.term]), x[j], sum);
        sum.store(rows + i * stride_ + n);
      }
    }
  }
  void carry_start_of_end(Index nth) const {
    for (Index n = 0; n < stride_; n += R::size) {
      R sum = R::load(start_of_end_ + n) * R::load(block_decay_ + nth * stride_ + n);
      RWKV_UNROLL for (int j = 0; j < per_block; ++j) {
        const Index at = (nth * per_block + j) * stride_ + n;
        sum = multiply_add(R::load(x_decayed_ + at), R::load(of_end_ + at), sum);
      }
      sum.store(start_of_end_ + n);
    }
  }

  /// S in front of the block times C behind it, summed over the lanes: from what later blocks write to C, and C_L.
  void span(Index nth, Index blocks) const {
    for (Index n = 0; n < stride_; n += R::size) {
      R sum(0), through(1);
      for (Index later = nth + 1; later < blocks; ++later) {
        R written(0);
        RWKV_UNROLL for (int i = 0; i < per_block; ++i) {
          const Index at = (later * per_block + i) * stride_ + n;
          written = multiply_add(R::load(g_decayed_ + at), R::load(of_start_ + at), written);
        }
        sum = multiply_add(through, written, sum);
        through = through * R::load(block_decay_ + later * stride_ + n);
      }
      multiply_add(through, R::load(start_of_end_ + n), sum).store(spanning_ + nth * stride_ + n);
    }
  }

  /// <e_i, f_j> of two tokens of a block, in all lanes.
  RWKV_INLINE R pair(Index nth, int later, int of, int earlier, int with) const {
    const Index begin = nth * per_block;
    return R(pairs_[(begin + of * block + later) * rows_ + begin + with * block + earlier]);
  }
  /// Component n of a row of a block.
  RWKV_INLINE Index place(Index nth, int t, int kind, Index n) const {
    return (nth * per_block + kind * block + t) * stride_ + n;
  }

  /// The gradients of w, r and a in a block, token after token. Starts from S e_i in front of the block, C f_j behind it
  /// and the sum that spans it.
  void gradients_forwards(Index nth) const {
    for (Index n = 0; n < stride_; n += R::size) {
      R w[block], x[kinds][block], g[kinds][block], of_start[kinds][block];
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        w[t] = R::load(decay_ + (nth * block + t) * stride_ + n);
        RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
          x[kind][t] = R::load(x_ + place(nth, t, kind, n));
          g[kind][t] = R::load(g_ + place(nth, t, kind, n));
          of_start[kind][t] = R::load(of_start_ + place(nth, t, kind, n));
        }
      }
      R spanning = R::load(spanning_ + nth * stride_ + n), behind[block];  // the decays behind a token
      behind[block - 1] = R(1);
      RWKV_UNROLL for (int t = block - 1; t > 0; --t) behind[t - 1] = behind[t] * w[t];
      RWKV_UNROLL for (int t = 0; t < block; ++t) {
        R dw = behind[t] * spanning, through(1);
        RWKV_UNROLL for (int later = t + 1; later < block; ++later) {
          RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
            dw = multiply_add(through * g[kind][later], of_start[kind][later], dw);
          }
          through = through * w[later];
        }
        dw.store(ddecay_ + (nth * block + t) * stride_ + n);
        // Over token t: both sums are decayed, and receive what it writes to S.
        spanning = spanning * w[t];
        RWKV_UNROLL for (int with = 0; with < kinds; ++with) {
          spanning = multiply_add(x[with][t], R::load(of_end_ + place(nth, t, with, n)), spanning);
        }
        RWKV_UNROLL for (int later = t + 1; later < block; ++later) {
          RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
            R& sum = of_start[kind][later];
            sum = sum * w[t];
            RWKV_UNROLL for (int with = 0; with < kinds; ++with) {
              sum = multiply_add(pair(nth, later, kind, t, with), x[with][t], sum);
            }
          }
        }
      }
      RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
        RWKV_UNROLL for (int t = 0; t < block; ++t) of_start[kind][t].store(of_start_ + place(nth, t, kind, n));
      }
    }
  }
  /// The gradients of k and b in a block, from C f_j behind it.
  void gradients_backwards(Index nth) const {
    for (Index n = 0; n < stride_; n += R::size) {
      RWKV_UNROLL for (int t = 0; t < block - 1; ++t) {
        RWKV_UNROLL for (int kind = 0; kind < kinds; ++kind) {
          R sum = R::load(of_end_ + place(nth, t, kind, n));
          RWKV_UNROLL for (int later = block - 1; later > t; --later) {
            sum = sum * R::load(decay_ + (nth * block + later) * stride_ + n);
            RWKV_UNROLL for (int with = 0; with < kinds; ++with) {
              sum = multiply_add(pair(nth, later, with, t, kind), R::load(g_ + place(nth, later, with, n)), sum);
            }
          }
          sum.store(of_end_ + place(nth, t, kind, n));
        }
      }
    }
  }

  /// The bonus of the current token: its gradient, and its part in those of r and k.
  void gradients_of_bonus() const {
    for (Index t = 0; t < length_; ++t) {
      const R same(pairs_[row_of(t, 0) * rows_ + row_of(t, 0)]);
      for (Index n = 0; n < stride_; n += R::size) {
        const Index at = row_of(t, 0) * stride_ + n;
        const R r = R::load(g_ + at), k = R::load(x_ + at), u = R::load(bonus_ + t * stride_ + n) * same;
        multiply_add(u, k, R::load(of_start_ + at)).store(of_start_ + at);
        multiply_add(u, r, R::load(of_end_ + at)).store(of_end_ + at);
        (r * k * same).store(dbonus_ + t * stride_ + n);
      }
    }
  }

  Index size_, stride_, chunk_;
  Index rows_;  ///< rows that a chunk writes to S, and to C
  Index positions_, chunks_;
  bool has_bonus_;
  Index length_ = 0;               ///< tokens of this chunk, in whole blocks
  Ahead ahead_;                    ///< the vectors of the next tokens
  T* kept_;                        ///< what the forward pass keeps
  T* state_;                       ///< the memory of S, then of C
  T* end_;                         ///< C_L, transposed
  T *x_, *f_, *g_, *e_;            ///< what tokens write to S and to C
  T *x_decayed_, *g_decayed_;      ///< x to the end of its block, g from the start of its block
  T *of_start_, *of_end_;          ///< S e_i and C f_j; in the end the gradients of g and of x
  T *decay_, *bonus_;              ///< of the tokens of this chunk
  T *ddecay_, *dbonus_, *dvalue_;  ///< their gradients
  T* block_decay_;                 ///< the decays of each block, multiplied
  T* spanning_;                    ///< S in front of a block times C behind it
  T* start_of_end_;                ///< S in front of a block times C_L
  T* pairs_;                       ///< <e_i, f_j>
};

template <class C, class T>
using HeadBackOf = HeadBackInChunks<T, detail::is_rank_one<C>>;

/// Runs the adjoint of head `nth` of sequence b through all of time.
template <class C, class T, std::size_t... Nth, class... Op>
void run_head_back(std::index_sequence<Nth...>, HeadBackOf<C, T>& head, Index size, const T* first, const T* dlast,
                   T* dfirst, Index b, Index nth, Index time, const Op&... ops) {
  using R = Widest<T>;
  constexpr std::size_t inputs = 1 + detail::shared_count<C>;
  const Index begin = nth * size;
  const auto token_of = [](Part::Name part, Index position) {
    const bool moved = detail::reads_after_update<C> && (part == Part::read || part == Part::cotangent);
    return position - Index{moved};
  };
  const auto load = [&](Part::Name part, Index position, T* to, Index next, Ahead& ahead) {
    const Index t = token_of(part, position), soon = token_of(part, next);
    const auto from = [&]<std::size_t I>(std::integral_constant<std::size_t, I>, const auto& op) {
      if constexpr (I <= inputs) {
        constexpr Part::Name of = part_of<C>(I);
        if (part != of) return;
        if (t >= 0 && t < time) copy_row(op.row(b, t) + begin, size, padded<T>(size), to);
        else std::fill_n(to, padded<T>(size), T(part == Part::decay ? 1 : 0));
        if (soon >= 0 && soon < time) ahead.add(op.row(b, soon) + begin, size);
      }
    };
    (from(std::integral_constant<std::size_t, Nth>{}, ops), ...);
  };
  const auto store = [&](Part::Name part, Index position, const T* gradient) {
    const Index t = token_of(part, position);
    if (t < 0 || t >= time) return;
    const auto to = [&]<std::size_t I>(std::integral_constant<std::size_t, I>, const auto& op) {
      if constexpr (I > inputs) {
        constexpr Part::Name of = part_of<C>(I - inputs - 1);
        if (part != of) return;
        detail::each_pack<R>(size, [&](Index n, auto used) {
          detail::Slot<R, std::remove_cvref_t<decltype(op)>, decltype(used)> slot(op, b, t, begin + n, used);
          slot.value = R::load(gradient + n);
          slot.finish();
        });
      }
    };
    (to(std::integral_constant<std::size_t, Nth>{}, ops), ...);
  };
  head.go_forwards(first, load);
  head.go_back(dlast, dfirst, load, store);
}

}  // namespace chunked

/// Runs the adjoint of a row cell in chunks of time.
template <class C, class Run, class T, Index F, Index L, Index M, class... Op>
void recur_back_chunks(const Run& run, Arena scratch, bool dry, Index chunk, Index size, Mat<const T, F> first,
                       Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
  using Adjoint = chunked::HeadBackOf<C, T>;
  const Index time = detail::written(ops...).time;
  const Index positions = time + Index{detail::reads_after_update<C>};
  Index bytes = 0;
  Adjoint(Arena(bytes), size, chunk, positions, chunked::has_bonus<C>());
  run_heads_back<T>(
      run, scratch, dry, size, bytes,
      [&](std::byte* room, Index b, Index nth, const auto&... to) {
        Adjoint head(Arena(room, bytes), size, chunk, positions, chunked::has_bonus<C>());
        const Index at = nth * size * size;
        chunked::run_head_back<C>(std::index_sequence_for<Op...>(), head, size, first.row(b) + at, dlast.row(b) + at,
                                  dfirst.row(b) + at, b, nth, time, to...);
      },
      ops...);
}

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
