#pragma once
/// Causal softmax attention with a cache of keys and values, as a block.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "rwkv/backend/cpu.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/heads.hpp"
#include "rwkv/op/linear.hpp"

namespace linear_cost {

using rwkv::Arena;
using rwkv::detach;
using rwkv::Index;
using rwkv::Mat;
using rwkv::Seq;

/// Calls body(tile) for every tile, on the threads of the backend where it has some and the work is worth waking them.
template <class B, class Body>
void over_tiles(const B& be, Index tiles, Index multiplications, const Body& body) {
  if constexpr (requires { be.pool(); }) {
    if (multiplications >= 100'000) return be.pool().run(tiles, body);
  }
  for (Index tile = 0; tile < tiles; ++tile) body(tile);
}

/// Attention within one head, a block of queries and a block of keys at a time. Scores are kept for one block only, on
/// the stack, so memory grows with the number of tokens and not with its square. Queries meet the blocks of keys in turn;
/// what they have gathered is rescaled whenever a larger score turns up (Milakov and Gimelshein, "Online normalizer
/// calculation for softmax"; Dao et al., "FlashAttention").
template <class B, class T>
class HeadAttention {
  using R = rwkv::Widest<T>;

 public:
  static constexpr Index most_queries = 96;       ///< in a block
  static constexpr Index most_scores = 96 * 256;  ///< in a block
  static constexpr double masked = -1e30;         ///< the score of a key that comes after its query
  struct Normaliser {                             ///< of a query: its weights are exp(score - largest) * inverse
    T largest, inverse;
  };

  Mat<const T> keys, values;  ///< [tokens, head_size]
  T scale;                    ///< of scores

  /// out_i = sum over j <= seen + i of softmax_j(scale q_i . k_j) v_j
  /// Shapes    q, out: [queries, head_size], at most most_queries; query i is token seen + i
  void forward(Index seen, Mat<const T> q, Mat<T> out, Normaliser* normalisers) const {
    alignas(64) T scores[most_scores];
    std::array<T, most_queries> largest, total;
    largest.fill(T(masked));
    total.fill(T(0));
    each_block(seen, q.rows, [&](Index begin, Index count, Index stride) {
      const Mat<T> weights{scores, q.rows, count, stride};
      multiply(q, rows_of(keys, begin, count), weights);
      for (Index i = 0; i < q.rows; ++i) {
        T* const row = weights.row(i);
        mask(row, count, seen + i + 1 - begin);
        const auto at = static_cast<std::size_t>(i);
        const T before = largest[at];
        largest[at] = std::max(before, detach(T(scale * largest_of(row, count))));
        const T kept = exp(rwkv::One<T>(before - largest[at])).v;
        total[at] = total[at] * kept + exponentials(row, count, largest[at]);
        for (Index c = 0; begin > 0 && c < out.cols; ++c) out(i, c) *= kept;
      }
      add_weighted(weights, rows_of(values, begin, count), out, begin > 0);
    });
    for (Index i = 0; i < q.rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const T inverse = T(1) / total[at];
      for (Index c = 0; c < out.cols; ++c) out(i, c) *= inverse;
      if (normalisers != nullptr) normalisers[i] = {largest[at], inverse};
    }
  }

  /// The adjoint: writes dq, adds to dkeys and dvalues. With w the weights of a query, s the scaled scores and
  ///
  ///     dw_j = dout . v_j,   ds_j = w_j (dw_j - dout . out)
  ///     dq = scale sum_j ds_j k_j,   dk_j += scale ds_j q,   dv_j += w_j dout
  void backward(Index seen, Mat<const T> q, Mat<const T> out, const Normaliser* normalisers, Mat<const T> dout,
                Mat<T> dq, Mat<T> dkeys, Mat<T> dvalues) const {
    alignas(64) T scores[most_scores], cotangents[most_scores];
    std::array<T, most_queries> mean;
    for (Index i = 0; i < q.rows; ++i) {
      T sum(0);
      for (Index c = 0; c < out.cols; ++c) sum += dout(i, c) * out(i, c);
      mean[static_cast<std::size_t>(i)] = sum;
    }
    each_block(seen, q.rows, [&](Index begin, Index count, Index stride) {
      const Mat<T> weights{scores, q.rows, count, stride}, ds{cotangents, q.rows, count, stride};
      const auto some_keys = rows_of(keys, begin, count);
      alone().gemm(mul(weights, q, transposed(some_keys)), mul(ds, dout, transposed(rows_of(values, begin, count))));
      for (Index i = 0; i < q.rows; ++i) {
        T* const row = weights.row(i);
        mask(row, count, seen + i + 1 - begin);
        const auto [top, inverse] = normalisers[i];
        const R shift(mean[static_cast<std::size_t>(i)]);
        for (Index c = 0; c < count; c += R::size) {
          const R w = exp(R::load(row + c) * R(scale) - R(top)) * R(inverse);
          w.store(row + c);
          (w * (R::load(ds.row(i) + c) - shift) * R(scale)).store(ds.row(i) + c);
        }
      }
      alone().gemm(begin > 0 ? mul(plus(dq), ds, some_keys) : mul(dq, ds, some_keys),
                   mul(plus(rows_of(dkeys, begin, count)), transposed(ds), q),
                   mul(plus(rows_of(dvalues, begin, count)), transposed(weights), dout));
    });
  }

 private:
  /// The backend for products within a block: blocks are shared among threads, a block has one.
  static B alone() { return B(); }

  /// Calls body(begin, count, stride) for the blocks of keys that `queries` queries from token `seen` on see. Rows of
  /// scores are `stride` apart, whole packs; fewer queries meet more keys at a time.
  template <class Body>
  static void each_block(Index seen, Index queries, const Body& body) {
    const Index stride = most_scores / queries / 64 * 64;
    for (Index begin = 0; begin < seen + queries; begin += stride) {
      body(begin, std::min(stride, seen + queries - begin), stride);
    }
  }

  /// Masks the scores behind the first `visible`, to the end of the last pack.
  static void mask(T* row, Index count, Index visible) {
    const Index end = (count + R::size - 1) / R::size * R::size;
    std::fill(row + std::clamp<Index>(visible, 0, count), row + end, T(masked));
  }

  static T largest_of(const T* row, Index count) {
    R largest = R::load(row);
    for (Index c = R::size; c < count; c += R::size) largest = max(largest, R::load(row + c));
    T lanes[R::size];
    largest.store(lanes);
    return *std::max_element(lanes, lanes + R::size);
  }

  /// Replaces scores by exp(scale score - largest) and returns their sum.
  T exponentials(T* row, Index count, T largest) const {
    R sum(0);
    for (Index c = 0; c < count; c += R::size) {
      const R weight = exp(R::load(row + c) * R(scale) - R(largest));
      weight.store(row + c);
      sum += weight;
    }
    return sum_lanes(sum);
  }

  /// scores = q k^T. A single query is the second factor: products with many rows in the first are quicker.
  static void multiply(Mat<const T> q, Mat<const T> k, Mat<T> scores) {
    if (q.rows > 1) return alone().gemm(mul(scores, q, transposed(k)));
    alone().gemm(mul(Mat<T>{scores.data, k.rows, 1, 1}, k, transposed(q)));
  }

  /// out (+)= weights v. With a single row of weights it is a plain loop over four rows of v at a time: gemm computes this
  /// product in blocks of several rows.
  static void add_weighted(Mat<const T> weights, Mat<const T> v, Mat<T> out, bool add) {
    if (weights.rows > 1) return alone().gemm(add ? mul(plus(out), weights, v) : mul(out, weights, v));
    for (Index c = 0; !add && c < out.cols; ++c) out(0, c) = T(0);
    const T* const w = weights.data;
    Index j = 0;
    for (; j + 4 <= v.rows; j += 4) {
      for (Index c = 0; c < out.cols; ++c) {
        out(0, c) += (w[j] * v(j, c) + w[j + 1] * v(j + 1, c)) + (w[j + 2] * v(j + 2, c) + w[j + 3] * v(j + 3, c));
      }
    }
    for (; j < v.rows; ++j) {
      for (Index c = 0; c < out.cols; ++c) out(0, c) += w[j] * v(j, c);
    }
  }
};

/// Multi-head causal attention (Vaswani et al., "Attention Is All You Need", section 3.2):
///
///     q, k, v = W_q x, W_k x, W_v x,   y = W_o heads,   head_i = sum over j <= i of softmax_j(q_i . k_j / sqrt(size)) v_j
///
/// The state is the cache: keys and values of at most `window` tokens, and how many it holds. Positions are not
/// encoded. The block reads the state on the host, so its backend has memory that the host reaches.
template <class S, class B, class D = rwkv::Dims<>>
class Attention {
 public:
  using backend = B;
  using compute = rwkv::compute_t<S>;
  using storage = rwkv::storage_t<S>;
  static constexpr Index Width = D::static_width;

  struct Params {
    rwkv::Weights<S, Width> query, key, value, output;  // [width, width]

    static constexpr auto fields() {
      constexpr auto square = rwkv::shape(rwkv::Axis::width, rwkv::Axis::width);
      return rwkv::table(rwkv::field("query.weight", &Params::query, square, rwkv::start::matrix(1)),
                         rwkv::field("key.weight", &Params::key, square, rwkv::start::matrix(1)),
                         rwkv::field("value.weight", &Params::value, square, rwkv::start::matrix(1)),
                         rwkv::field("output.weight", &Params::output, square, rwkv::start::matrix(0)));
    }
  };
  struct State {
    Mat<compute> tokens;        // [batch, 1], how many there are in the cache
    Mat<compute> keys, values;  // [batch, heads * window * head_size]
  };

 private:
  using OneHead = HeadAttention<B, compute>;
  using Normaliser = typename OneHead::Normaliser;

 public:
  /// Intermediate results of forward that backward reads; of the weights of a query only what normalises them.
  struct Tape {
    Seq<const compute, Width> x;
    Seq<compute, Width> q, heads;
    State cache;              // after the pass
    Normaliser* normalisers;  // [batch, heads, time]
  };

  D dims;
  Index window;
  Params params{};

  explicit Attention(const rwkv::ModelSizes& sizes, Index = 0)
      : dims(D::from(rwkv::detail::with_heads<D>(sizes))), window(sizes.window) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      four width x width products, and width multiplications for every token and key before it, twice; scratch
  ///           of four sequences
  /// Errors    a cache without room for the tokens
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    const auto q = ws.like<compute>(x, dims.width), heads = ws.like<compute>(x, dims.width);
    run(be, ws, x, state, q, heads, nullptr);
    be.gemm(linear(heads, params.output, y));
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape = {x,
            ws.like<compute>(x, dims.width),
            ws.like<compute>(x, dims.width),
            {},
            ws.take<Normaliser>(x.batch * x.time * dims.heads)};
    visit_state(tape.cache, "", [&](const std::string&, Index numbers, Mat<compute>& view) {
      view = rwkv::matrix(ws.take<compute>(x.batch * numbers), x.batch, numbers);
    });
    run(be, ws, x, state, tape.q, tape.heads, tape.normalisers);
    copy(be, state, tape.cache);
    be.gemm(linear(tape.heads, params.output, y));
  }

  /// The adjoint, see rwkv::Block; scratch of four sequences. The cotangents of all keys and values gather in dfirst;
  /// those of this pass's own tokens leave it for the projections.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State&, const State& dlast,
                Seq<compute, Width> dx, Attention& grad, State& dfirst) const {
    const auto dheads = ws.like<compute>(dy, dims.width), dq = ws.like<compute>(dy, dims.width),
               dk = ws.like<compute>(dy, dims.width), dv = ws.like<compute>(dy, dims.width);
    be.gemm(linear_back(dy, params.output, dheads), linear_back_weights(dy, tape.heads, grad.params.output));
    copy(be, dlast, dfirst);
    if (!be.dry) {
      attend_back(be, tape, dheads, dq, dfirst);
      each_head(dy.batch, [&](Index b, Index head) {
        const Index seen = tokens_of(tape.cache, b) - dy.time;
        for (const auto& [cache, own] : {std::pair(dfirst.keys, dk), std::pair(dfirst.values, dv)}) {
          const Mat<compute> rows = cached(cache, b, head, seen, dy.time);
          be.copy(rows, of_head(own, b, head, 0, dy.time));
          be.fill(rows, compute(0));
        }
      });
    }
    const auto& x = tape.x;
    be.gemm(linear_back(dq, params.query, dx), linear_back_weights(dq, x, grad.params.query),
            linear_back_weights(dk, x, grad.params.key), linear_back_weights(dv, x, grad.params.value));
    be.gemm(mul(plus(dx.flat()), dk.flat(), params.key));
    be.gemm(mul(plus(dx.flat()), dv.flat(), params.value));
  }

  void reset(B& be, State& state) const {
    for (auto* part : {&state.tokens, &state.keys, &state.values}) be.fill(*part, compute(0));
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.dims, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "tokens", Index{1}, state.tokens);
    visitor(prefix + "keys", window * dims.width, state.keys);
    visitor(prefix + "values", window * dims.width, state.values);
  }

 private:
  /// Projects x, appends its keys and values to the cache, and attends.
  void run(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> q, Seq<compute, Width> heads,
           Normaliser* normalisers) const {
    const auto k = ws.like<compute>(x, dims.width), v = ws.like<compute>(x, dims.width);
    be.gemm(linear(x, params.query, q), linear(x, params.key, k), linear(x, params.value, v));
    if (be.dry) return;
    each_head(x.batch, [&](Index b, Index head) {
      const Index seen = tokens_of(state, b);
      rwkv::expects(seen + x.time <= window, "a cache for ", window, " tokens has no room for ", x.time,
                    " more: it holds ", seen);
      be.copy(of_head(k, b, head, 0, x.time), cached(state.keys, b, head, seen, x.time));
      be.copy(of_head(v, b, head, 0, x.time), cached(state.values, b, head, seen, x.time));
    });
    for (Index b = 0; b < x.batch; ++b) state.tokens(b, 0) += compute(x.time);

    const Index blocks = (x.time + OneHead::most_queries - 1) / OneHead::most_queries;
    over_tiles(be, x.batch * dims.heads * blocks, pairs(state, x.time) * dims.width, [&](Index tile) {
      const Index b = tile / blocks / dims.heads, head = tile / blocks % dims.heads;
      const Index begin = tile % blocks * OneHead::most_queries;
      const Index count = std::min(OneHead::most_queries, x.time - begin);
      one_head(state, b, head)
          .forward(tokens_of(state, b) - x.time + begin, of_head(q, b, head, begin, count),
                   of_head(heads, b, head, begin, count),
                   normalisers == nullptr ? nullptr : normalisers + (b * dims.heads + head) * x.time + begin);
    });
  }

  void attend_back(B& be, const Tape& tape, Seq<compute, Width> dheads, Seq<compute, Width> dq, State& dcache) const {
    const Index time = tape.x.time;
    over_tiles(be, tape.x.batch * dims.heads, pairs(tape.cache, time) * dims.width, [&](Index tile) {
      const Index b = tile / dims.heads, head = tile % dims.heads;
      const Index all = tokens_of(tape.cache, b), seen = all - time;
      for (Index begin = 0; begin < time; begin += OneHead::most_queries) {
        const Index count = std::min(OneHead::most_queries, time - begin);
        one_head(tape.cache, b, head)
            .backward(seen + begin, of_head(tape.q, b, head, begin, count), of_head(tape.heads, b, head, begin, count),
                      tape.normalisers + (b * dims.heads + head) * time + begin, of_head(dheads, b, head, begin, count),
                      of_head(dq, b, head, begin, count), cached(dcache.keys, b, head, 0, all),
                      cached(dcache.values, b, head, 0, all));
      }
    });
  }

  OneHead one_head(const State& cache, Index b, Index head) const {
    const Index all = tokens_of(cache, b);
    return {cached(cache.keys, b, head, 0, all), cached(cache.values, b, head, 0, all),
            compute(1 / std::sqrt(static_cast<double>(dims.head_size())))};
  }

  template <class Visit>
  void each_head(Index batch, const Visit& visit) const {
    for (Index b = 0; b < batch; ++b) {
      for (Index head = 0; head < dims.heads; ++head) visit(b, head);
    }
  }

  /// The channels of a head at `count` tokens of a sequence: [count, head_size].
  Mat<compute> of_head(Seq<compute, Width> x, Index b, Index head, Index begin, Index count) const {
    return {x.row(b, begin) + head * dims.head_size(), count, dims.head_size(), x.width};
  }
  /// `count` tokens of a head in a cache: [count, head_size].
  Mat<compute> cached(Mat<compute> cache, Index b, Index head, Index begin, Index count) const {
    const Index size = dims.head_size();
    return {cache.row(b) + (head * window + begin) * size, count, size, size};
  }

  static Index tokens_of(const State& state, Index b) {
    const compute& tokens = state.tokens(b, 0);
    if constexpr (requires { tokens.value; }) return static_cast<Index>(tokens.value);
    else return static_cast<Index>(tokens);
  }
  /// Pairs of a query and a key, at most.
  static Index pairs(const State& state, Index time) {
    Index all = 0;
    for (Index b = 0; b < state.tokens.rows; ++b) all += tokens_of(state, b) * time;
    return all;
  }

  static void copy(B& be, const State& from, const State& to) {
    be.copy(from.tokens, to.tokens);
    be.copy(from.keys, to.keys);
    be.copy(from.values, to.values);
  }
};

}  // namespace linear_cost
