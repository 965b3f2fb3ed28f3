#pragma once
/// A row cell in chunks of time, from its declared transition. The formulas are those of cpu/chunked.hpp: with S of shape
/// [component n, lane v], x_j = k_j or b_j the vectors that tokens write with f_j = v_j or z_j, and g_t = r_t or a_t those
/// that they read,
///
///     y_t = (r_t * D_t0) S_0 + sum over j of <r_t * D_tj, x_j> f_j,    z_t the same with a_t instead of r_t
///     S_L = diag(D_L0) S_0   + sum over j of (D_Lj * x_j) (x) f_j
///
/// sweep_kernel: a block takes a slice of the lanes of a head, which are independent of each other, and runs through the
/// chunks of a sequence:
///
/// 1. All threads copy the rows of the chunk to shared memory.
/// 2. The coefficients <g_t * D_tj, x_j>: a warp takes a kind of g, a kind of x and a part of the pairs: those in the
///    first half of the chunk, those in the second, or those between the halves. Its threads take components, and then
///    the warp adds up its sums. Decays are gathered token after token, and towards the middle between the halves.
/// 3. A thread takes a component: it decays g_t from the start of the chunk and x_j to the end.
/// 4. A thread takes four rows of g and four lanes: their products with S_0, and of the coefficients with v.
/// 5. With a transition of rank one, a thread takes a lane: z_t of each token by substitution. Then the outputs receive
///    the coefficients times z.
/// 6. A thread takes components and four lanes: the new state.
///
/// Between the phases, the block meets at a barrier. Decays are only multiplied, never divided by, so any decay in [0, 1]
/// is exact, 0 included.
#include "rwkv/backend/cuda/recur/chunk_tile.cuh"
#include "rwkv/backend/cuda/recur/sequences.cuh"
#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/reduce.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

using detail::TokenPart;

/// What a sweep does. `run` writes outputs and replaces the state. `ahead` and `back` serve the adjoint: `ahead` keeps the
/// state in front of every chunk and the rows z. `back` keeps the same of the cotangent of the state, in reversed time,
/// where r and k, a and b, v and dy change places (cpu/chunked_back.hpp); its outputs are gradients of v.
enum class Sweep { run, ahead, back };

/// The vector that changes places with another in reversed time.
constexpr TokenPart::Name reversed(TokenPart::Name part) {
  switch (part) {
    case TokenPart::read: return TokenPart::write;
    case TokenPart::write: return TokenPart::read;
    case TokenPart::a: return TokenPart::b;
    case TokenPart::b: return TokenPart::a;
    case TokenPart::value: return TokenPart::cotangent;
    case TokenPart::cotangent: return TokenPart::value;
    default: return part;
  }
}
/// The part that a vector plays in a sweep.
template <Sweep way, TokenPart::Name part>
inline constexpr TokenPart::Name part_in = way == Sweep::back ? reversed(part) : part;

/// The adjoint has positions in time instead of tokens: a cell that reads after its update reads what the next token reads
/// before its own, so there r and dy of token t belong to position t + 1.
template <class C, TokenPart::Name part>
inline constexpr bool is_moved = detail::reads_after_update<C> &&
                                 (part == TokenPart::read || part == TokenPart::cotangent);

/// What the adjoint keeps of every chunk of every head, [slot, head]: states [lane, component] with padding; the rows z of
/// its positions, [position, lane]; and gradients of v where these are summed over tokens, as the rows z.
template <class T>
struct KeptChunks {
  T *states, *removed, *dvalues;
};

/// The shared memory of a sweep.
template <int Tokens, int Kinds>
struct SweepLayout {
  static RWKV_HD constexpr Index numbers(int size, int lanes) {
    constexpr int written = Kinds * Tokens;
    return written * (size + written + chunk_spare) + (written + Tokens + 1) * (size + chunk_spare) +
           (size + written) * (lanes + chunk_spare);
  }
};

/// A chunk of Tokens tokens of a head with N components, and the lanes of a block; both padded.
template <int Tokens, Index N, int Kinds, class T>
struct SweepShape {
  using Layout = SweepLayout<Tokens, Kinds>;
  static constexpr int tokens = Tokens, kinds = Kinds;
  static constexpr int written = kinds * tokens;  ///< rows that a chunk writes to the state
  static constexpr int groups = written / 4;      ///< of rows of g, in products
  static constexpr Index fixed_lanes = N == dyn ? dyn : slice_of<Layout>(padded(N), sizeof(T));
  static constexpr int most_lanes = N == dyn ? chunk_slice : static_cast<int>(fixed_lanes);
  static constexpr int most_threads = (groups * most_lanes / 4 + warp_size - 1) / warp_size * warp_size;
  /// Blocks of a multiprocessor, which registers must have room for, as shared memory has on large devices.
  static constexpr int resident = most_threads > 64 || padded(N == dyn ? 64 : N) > 64 ? 3 : 6;

  [[no_unique_address]] PaddedSize<N> size;
  [[no_unique_address]] PaddedSize<fixed_lanes> lanes;

  RWKV_HD explicit SweepShape(Index length) : size(length), lanes(slice_of<Layout>(padded(length), sizeof(T))) {}
  RWKV_HD unsigned slices() const { return static_cast<unsigned>((size + lanes - 1) / lanes); }
  unsigned threads() const {
    return static_cast<unsigned>((groups * lanes / 4 + warp_size - 1) / warp_size * warp_size);
  }
  std::size_t shared_bytes() const { return static_cast<std::size_t>(Layout::numbers(size, lanes)) * sizeof(T); }
};

/// One chunk in the shared memory of a block. Reads: it has outputs. After: a token reads after its own update.
template <class Shape, class T, bool Reads, bool After, bool Bonus>
class SweptChunk {
 public:
  using E = detail::SharedElement<T>;
  static constexpr int tokens = Shape::tokens, kinds = Shape::kinds, written = Shape::written, groups = Shape::groups;

  __device__ explicit SweptChunk(const Shape& shape)
      : shape_(shape), thread_(static_cast<int>(threadIdx.x)), threads_(static_cast<int>(blockDim.x)),
        factors_(detail::dynamic_shared<T>()), keys_(factors_ + written * factor_row()),
        decays_(keys_ + written * key_row()), decayed_(decays_ + tokens * key_row()), state_(decayed_ + key_row()) {
    // What a token reads of later ones is never computed.
    for (int at = thread_; at < written * written; at += threads_) {
      factors_[at / written * factor_row() + size() + at % written] = T(0);
    }
  }

  __device__ int size() const { return shape_.size; }
  __device__ int lanes() const { return shape_.lanes; }

  /// The rows of a part of the chunk, one behind the other, `row` numbers apart.
  struct Rows {
    E* data;
    int row;
  };
  template <TokenPart::Name part>
  __device__ Rows rows() const {
    if constexpr (part == TokenPart::read) return {factors_, factor_row()};
    else if constexpr (part == TokenPart::a) return {factors_ + tokens * factor_row(), factor_row()};
    else if constexpr (part == TokenPart::write) return {keys_, key_row()};
    else if constexpr (part == TokenPart::b) return {keys_ + tokens * key_row(), key_row()};
    else if constexpr (part == TokenPart::decay) return {decays_, key_row()};
    else return {state_ + size() * lane_row(), lane_row()};
  }
  __device__ E& state(int component, int lane) const { return state_[component * lane_row() + lane]; }

  /// Phase 2. bonus(token, component) is the bonus.
  template <class F>
  __device__ void pair_tokens(const F& bonus) const {
    constexpr int sums_at_once = half * half < warp_size ? half * half : warp_size;
    constexpr int first_kind = Reads ? 0 : 1, tasks = (kinds - first_kind) * kinds * 3;
    const int lane = thread_ % warp_size;
    for (int task = thread_ / warp_size; task < tasks; task += threads_ / warp_size) {
      const int part = task % 3, x = task / 3 % kinds, g = first_kind + task / 3 / kinds;
      T sums[half * half] = {};
      for (int n = lane; n < size(); n += warp_size) {
        if (part < 2) pair_half(sums, g, x, part * half, n, bonus);
        else pair_halves(sums, g, x, n);
      }
      E* const to = coefficients(g, x) + (part > 0 ? half * factor_row() : 0) + (part == 1 ? half : 0);
      RWKV_KERNEL_UNROLL for (int begin = 0; begin < half * half; begin += sums_at_once) {
        const T sum = sums_warp<sums_at_once>(sums + begin, lane);
        const int at = begin + lane / (warp_size / sums_at_once);
        if (lane % (warp_size / sums_at_once) == 0) to[at / half * factor_row() + at % half] = sum;
      }
    }
  }

  /// Phase 3.
  __device__ void decay_rows() const {
    constexpr int first = Reads ? 0 : 1;  // without outputs, r is not there
    for (int item = first * size() + thread_; item < 2 * kinds * size(); item += threads_) {
      const int n = item % size(), kind = item / size();
      T through(1);
      if (kind < kinds) {
        for (int t = 0; t < tokens; ++t) {
          const T before = through;
          through *= decay(t, n);
          E& number = factor(kind, t, n);
          number = static_cast<T>(number) * (After && kind == 0 ? through : before);
        }
      } else {
        for (int t = tokens; t-- > 0;) {
          E& number = key(kind - kinds, t, n);
          number = static_cast<T>(number) * through;
          through *= decay(t, n);
        }
        if (kind == kinds) decayed_[n] = through;
      }
    }
  }

  /// Phases 4 and 5. keep_removed(token, lane, z); emit(token, lane, y of four lanes).
  template <class Keep, class Emit>
  __device__ void read_state(const Keep& keep_removed, const Emit& emit) const {
    if constexpr (Reads || kinds == 2) {
      constexpr int high = Reads ? 4 : 2, outputs = Reads ? 4 / kinds : 0;
      const int group = thread_ / (lanes() / 4), lane = thread_ % (lanes() / 4) * 4;
      const bool busy = group < groups;
      E* const first = factors_ + (group + (Reads ? 0 : tokens)) * factor_row();
      T sums[high][4] = {};
      if (busy) multiply_rows(sums, first, groups * factor_row(), state_ + lane, lane_row(), size() + tokens);
      if constexpr (kinds == 2) {
        RWKV_KERNEL_UNROLL for (int i = outputs; i < high; ++i) {
          if (busy) store_four(removed(group + (i - outputs) * groups) + lane, sums[i]);
        }
        __syncthreads();
        for (int v = thread_; v < lanes(); v += threads_) substitute(v, keep_removed);
      }
      __syncthreads();
      if constexpr (Reads) {
        T y[outputs][4];
        RWKV_KERNEL_UNROLL for (int i = 0; i < outputs; ++i) {
          RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) y[i][c] = sums[i][c];
        }
        if constexpr (kinds == 2) {
          if (busy) {
            multiply_rows(y, first + size() + tokens, groups * factor_row(), removed(0) + lane, lane_row(), tokens);
          }
        }
        RWKV_KERNEL_UNROLL for (int i = 0; i < outputs; ++i) {
          if (busy) emit(group + i * groups, lane, static_cast<const T(&)[4]>(y[i]));
        }
      }
    }
  }

  /// Phase 6.
  __device__ void finish() const {
    constexpr int fixed = decltype(Shape::size)::fixed, blocks = fixed > 0 && fixed % (8 * groups) == 0 ? 2 : 1;
    const int group = thread_ / (lanes() / 4), lane = thread_ % (lanes() / 4) * 4;
    if (group >= groups) return;
    for (int first = group * 4; first < size(); first += 4 * groups * blocks) {
      T sums[blocks][4][4];
      RWKV_KERNEL_UNROLL for (int b = 0; b < blocks; ++b) {
        RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) {
          const int n = first + b * 4 * groups + i;
          const T through = decayed_[n];
          const auto now = load_four<T>(&state(n, lane));
          RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) sums[b][i][c] = through * now.v[c];
        }
      }
      for (int j = 0; j < written; ++j) {
        const auto f = load_four<T>(&state(size() + j, lane));
        RWKV_KERNEL_UNROLL for (int b = 0; b < blocks; ++b) {
          const auto x = load_four<T>(keys_ + j * key_row() + first + b * 4 * groups);
          RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) {
            RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) sums[b][i][c] += x.v[i] * f.v[c];
          }
        }
      }
      RWKV_KERNEL_UNROLL for (int b = 0; b < blocks; ++b) {
        RWKV_KERNEL_UNROLL for (int i = 0; i < 4; ++i) {
          store_four(&state(first + b * 4 * groups + i, lane), sums[b][i]);
        }
      }
    }
  }

 private:
  static constexpr int half = tokens / 2;

  __device__ int factor_row() const { return size() + written + chunk_spare; }
  __device__ int key_row() const { return size() + chunk_spare; }
  __device__ int lane_row() const { return lanes() + chunk_spare; }
  __device__ T decay(int t, int n) const { return decays_[t * key_row() + n]; }
  __device__ E& factor(int kind, int t, int n) const { return factors_[(kind * tokens + t) * factor_row() + n]; }
  __device__ E& key(int kind, int t, int n) const { return keys_[(kind * tokens + t) * key_row() + n]; }
  __device__ E* removed(int t) const { return state_ + (size() + tokens + t) * lane_row(); }
  /// Those of g with x, [token of g, token of x].
  __device__ E* coefficients(int g, int x) const { return &factor(g, 0, size() + x * tokens); }
  static __device__ void store_four(E* to, const T (&numbers)[4]) {
    detail::Piece<T, 4> piece;
    RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) piece.v[c] = numbers[c];
    detail::store_shared<T, 4>(to, piece);
  }

  /// Adds component n to the sums of the pairs in the half that begins at token `first`.
  template <class F>
  __device__ void pair_half(T (&sums)[half * half], int g, int x, int first, int n, const F& bonus) const {
    T decayed[half];
    RWKV_KERNEL_UNROLL for (int t = 0; t < half; ++t) {
      const T w = decay(first + t, n), vector = factor(g, first + t, n), written_now = key(x, first + t, n);
      const T reading = After && g == 0 ? vector * w : vector;
      RWKV_KERNEL_UNROLL for (int j = 0; j < t; ++j) {
        sums[t * half + j] += reading * decayed[j];
        decayed[j] *= w;
      }
      decayed[t] = written_now;
      if constexpr (After) sums[t * half + t] += g == 0 ? vector * written_now : T(0);
      else if constexpr (Bonus) sums[t * half + t] += vector * bonus(first + t, n) * written_now;
    }
  }
  /// The same for the pairs between the halves.
  __device__ void pair_halves(T (&sums)[half * half], int g, int x, int n) const {
    T later[half], earlier[half], through(1);
    RWKV_KERNEL_UNROLL for (int t = 0; t < half; ++t) {
      const T before = through;
      through *= decay(half + t, n);
      later[t] = static_cast<T>(factor(g, half + t, n)) * (After && g == 0 ? through : before);
    }
    through = T(1);
    RWKV_KERNEL_UNROLL for (int j = half - 1; j >= 0; --j) {
      earlier[j] = static_cast<T>(key(x, j, n)) * through;
      through *= decay(j, n);
    }
    RWKV_KERNEL_UNROLL for (int t = 0; t < half; ++t) {
      RWKV_KERNEL_UNROLL for (int j = 0; j < half; ++j) sums[t * half + j] += later[t] * earlier[j];
    }
  }
  /// Adds to the rows z of lane v what earlier tokens of the chunk put back.
  template <class Keep>
  __device__ void substitute(int v, const Keep& keep_removed) const {
    const E* const factors = coefficients(1, 1);
    T z[tokens];
    RWKV_KERNEL_UNROLL for (int t = 0; t < tokens; ++t) {
      z[t] = removed(t)[v];
      RWKV_KERNEL_UNROLL for (int j = 0; j < t; ++j) z[t] += static_cast<T>(factors[t * factor_row() + j]) * z[j];
      removed(t)[v] = z[t];
      keep_removed(t, v, z[t]);
    }
  }

  Shape shape_;
  int thread_, threads_;
  E* factors_;  ///< [written, size + written]: r, then a; behind each its coefficients with v, then with z
  E* keys_;     ///< [written, size]: k, then b
  E* decays_;   ///< [tokens, size]
  E* decayed_;  ///< [size]: the decays of the chunk, multiplied
  E* state_;    ///< [size + written, lanes]: S; behind it v, then z
};

/// Writes the outputs of four lanes at token t, of which `left` are there: y, or gradients of v. Where these are summed over
/// tokens, they are left at summed().
template <Sweep way, class C, class T, class Order, class Summed, class... Op>
RWKV_HD void write_lanes(Order order, Index b, Index t, Index channel, Index left, const T (&y)[4],
                         [[maybe_unused]] const Summed& summed, const Op&... ops) {
  const auto write = [&](const auto& op) {
    using Operand = std::remove_cvref_t<decltype(op)>;
    RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) {
      if (c >= left) continue;
      if constexpr (detail::is_sum<Operand>) {
        summed()[c] = y[c];
      } else if constexpr (detail::is_output<Operand>) {
        using R = Several<T, 1>;
        detail::Slot<R, Operand, detail::AllLanes> slot(op, b, t, channel + c, {});
        slot.value = R(y[c]);
        slot.finish();
      }
    }
  };
  if constexpr (way == Sweep::run) {
    (write(ops), ...);
  } else {
    each_part<C, true>(
        order,
        [&](auto name, const auto& op) {
          if constexpr (decltype(name)::value == TokenPart::value) write(op);
        },
        ops...);
  }
}

/// One sweep over the chunks of every sequence. from: the state before it; to: receives the state after it, may be null.
template <Sweep way, class Shape, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(Shape::most_threads, Shape::resident)
    sweep_kernel(Sequences sequences, Index length, Mat<const T> from, Mat<T> to, KeptChunks<T> kept, Op... ops) {
  constexpr int tokens = Shape::tokens;
  constexpr bool keeps = way != Sweep::run, after = !keeps && detail::reads_after_update<C>;
  constexpr auto order = std::index_sequence_for<Op...>();
  using Chunk = SweptChunk<Shape, T, way != Sweep::ahead, after, detail::has_bonus<C>()>;
  const Shape shape(length);
  const Chunk chunk(shape);
  const int size = chunk.size(), lanes = chunk.lanes();
  const auto thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const auto heads = static_cast<unsigned>(detail::written(ops...).width / length);
  const Index first_lane = static_cast<Index>(blockIdx.x % shape.slices()) * lanes;
  const Index head = blockIdx.x / shape.slices() % heads, s = blockIdx.x / shape.slices() / heads;
  const Index begin = head * length, lanes_left = length - first_lane;
  const Span span = sequences[s];
  const auto each_number = [&](auto state, const auto& visit) {
    for (int at = thread; at < size * lanes; at += threads) {
      const int n = at / lanes, v = at % lanes;
      const bool real = n < length && v < lanes_left;
      visit(chunk.state(n, v), real ? state.row(s) + (head * length + n) * length + first_lane + v : nullptr);
    }
  };
  each_number(from, [](auto& number, const T* there) { number = there != nullptr ? *there : T(0); });
  __syncthreads();

  const Index positions = span.end - span.begin + Index{keeps && detail::reads_after_update<C>};
  const auto chunks = static_cast<int>((positions + tokens - 1) / tokens);
  for (int nth = 0; nth < chunks; ++nth) {
    const int c = way == Sweep::back ? chunks - 1 - nth : nth;
    const auto place_of = [&](int i) { return way == Sweep::back ? tokens - 1 - i : i; };
    // The token that the i-th vector of a part belongs to; span.end if there is none.
    const auto token_of = [&](Index moved, int i) {
      const Index t = span.begin + (Index{c} * tokens + place_of(i) - moved);
      return t >= span.begin && t < span.end ? t : span.end;
    };
    // The rows that are kept of this chunk of this head.
    const auto kept_in = [&](T* of, int rows) {
      return of + (sequences.slot({s, c}, tokens) * heads + head) * rows * size;
    };
    if constexpr (keeps) {
      for (int at = thread; at < lanes * size; at += threads) {
        const int v = at / size, n = at % size;
        if (first_lane + v < size) kept_in(kept.states, size)[(first_lane + v) * size + n] = chunk.state(n, v);
      }
    }
    each_part<C, false>(
        order,
        [&](auto name, const auto& op) {
          constexpr TokenPart::Name vector = decltype(name)::value, part = part_in<way, vector>;
          constexpr Index moved{keeps && is_moved<C, vector>};
          if constexpr (part != TokenPart::bonus && part != TokenPart::cotangent &&
                        (part != TokenPart::read || way != Sweep::ahead)) {
            constexpr bool over_lanes = part == TokenPart::value;
            const auto to_rows = chunk.template rows<part>();
            const Index channel = begin + (over_lanes ? first_lane : 0);
            copy_rows<tokens>(to_rows.data, to_rows.row, over_lanes ? lanes : size, over_lanes ? lanes_left : length,
                              T(part == TokenPart::decay ? 1 : 0), [&](int i) {
                                const Index t = token_of(moved, i);
                                return t < span.end ? op.row(span.b, t) + channel : nullptr;
                              });
          }
        },
        ops...);
    __syncthreads();
    chunk.pair_tokens([&](int i, int n) {
      T bonus(0);
      each_part<C, false>(
          order,
          [&](auto name, const auto& op) {
            if constexpr (decltype(name)::value == TokenPart::bonus) {
              const Index t = token_of(0, i);
              if (t < span.end && n < length) bonus = widen<T>(op.row(span.b, t)[begin + n]);
            }
          },
          ops...);
      return bonus;
    });
    __syncthreads();
    chunk.decay_rows();
    __syncthreads();
    chunk.read_state(
        [&](int i, int v, T z) {
          if constexpr (keeps) {
            if (first_lane + v < size) kept_in(kept.removed, tokens)[place_of(i) * size + first_lane + v] = z;
          }
        },
        [&](int i, int v, const T(&y)[4]) {
          const Index t = token_of(0, i);
          if (t == span.end) return;
          const auto summed = [&] { return kept_in(kept.dvalues, tokens) + place_of(i) * size + first_lane + v; };
          write_lanes<way, C>(order, span.b, t, begin + first_lane + v, lanes_left - v, y, summed, ops...);
        });
    chunk.finish();
    __syncthreads();
  }
  if (to.data != nullptr) {
    each_number(to, [](const auto& number, T* there) {
      if (there != nullptr) *there = number;
    });
  }
}

/// Launches sweep_kernel for heads with N components.
template <Sweep way, class C, int Tokens, Index N, class T, class Sequences, class... Op>
void sweep(const CudaStream& stream, Sequences sequences, Extent<N> length, Mat<const T> from, Mat<T> to,
           KeptChunks<T> kept, const Op&... ops) {
  using Shape = SweepShape<Tokens, N, detail::is_rank_one<C> ? 2 : 1, T>;
  const Shape shape{length};
  const Index heads = detail::written(ops...).width / length;
  stream.launch({.grid = {static_cast<unsigned>(heads * sequences.count()) * shape.slices()},
                 .block = {shape.threads()},
                 .shared_bytes = shape.shared_bytes()},
                sweep_kernel<way, Shape, C, T, Sequences, Op...>, sequences, Index(length), from, to, kept, ops...);
}

/// The verb `recur` in chunks of time. A length of 64, as in published models, becomes static.
template <class C, Index N, class T, class Sequences, class... Op>
void recur_chunks(const CudaStream& stream, Sequences sequences, Extent<N> length, Mat<T> state, const Op&... ops) {
  if constexpr (N == dyn) {
    if (length == 64) return recur_chunks<C>(stream, sequences, Extent<64>{}, state, ops...);
  }
  with_chunk_tokens<T>(length, [&](auto tokens) {
    sweep<Sweep::run, C, decltype(tokens)::value, N, T>(stream, sequences, length, state, state, {}, ops...);
  });
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
