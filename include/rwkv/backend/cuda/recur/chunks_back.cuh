#pragma once
/// The adjoint of a row cell in chunks of time; the formulas are those of cpu/chunked_back.hpp. Two sweeps
/// (chunk_sweep.cuh) run through time: one forwards, which keeps the state S in front of every chunk, and one backwards,
/// which keeps the cotangent C behind it and writes the gradients of v. The other gradients are sums over lanes, and chunks
/// are independent of each other:
///
///     dg_t = S_{t-1} e_t    dx_t = C_t f_t    dw_t = S_{t-1} C_t
///
/// with g = r, a and e = dy, dz, which the adjoint writes to C as g (x) e, and x = k, b and f = v, z, which tokens write to
/// S as x (x) f.
///
/// chunk_gradients_kernel: a block takes a chunk of a head and a slice of its components.
///
/// 1. All threads copy f and e of the chunk to shared memory. A thread takes a component, and copies g, x and w.
/// 2. A thread takes tokens: the pairs <e_i, f_j>. It takes tokens and four components: S e_i from the start of the chunk,
///    C f_j from the end. It takes a component: S C from the ends of the chunk.
/// 3. A thread takes a component, and halves the chunk until single tokens are left. With W the decays of a half,
///    multiplied, the state in the middle is diag(W) S and what the first half writes; the cotangent there is diag(W) C and
///    what the second half writes, all decayed towards the middle. So to halve a stretch of tokens,
///
///        S e_i of the second half becomes  W_first * S e_i  + sum over j of the first half of  x_j <e_i, f_j>
///        C f_j of the first half becomes   W_second * C f_j + sum over i of the second half of g_i <e_i, f_j>
///        S C becomes  W_second * S C + sum of g_i * S e_i   in the first half,
///                     W_first * S C  + sum of x_j * C f_j   in the second
///
/// 4. It adds what the bonus gives, and writes the gradients token after token. Sums over tokens are stored for each chunk;
///    partial_sums.cuh adds them.
///
/// Decays are only multiplied, so a decay of 0 has an exact gradient.
#include "rwkv/backend/cuda/recur/chunk_sweep.cuh"
#include "rwkv/backend/cuda/runtime/partial_sums.cuh"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The shared memory for the gradients of `columns` components. Only with one kind of vectors there may be a bonus.
template <int Tokens, int Kinds>
struct GradientLayout {
  static RWKV_HD constexpr Index numbers(int size, int columns) {
    constexpr int rows = Kinds * Tokens, own = 2 * rows + (Kinds == 1 ? 2 : 1) * Tokens;
    return 2 * rows * (size + chunk_spare) + rows * (rows + chunk_spare) + own * columns;
  }
};

/// A chunk of Tokens tokens of a head with N components, and the components of a block; both padded.
template <int Tokens, Index N, int Kinds, class T>
struct GradientShape {
  using Layout = GradientLayout<Tokens, Kinds>;
  static constexpr int tokens = Tokens, kinds = Kinds, rows = kinds * tokens;
  static constexpr Index fixed_columns = N == dyn ? dyn : slice_of<Layout>(padded(N), sizeof(T));

  [[no_unique_address]] PaddedSize<N> size;
  [[no_unique_address]] PaddedSize<fixed_columns> columns;

  RWKV_HD explicit GradientShape(Index length) : size(length), columns(slice_of<Layout>(padded(length), sizeof(T))) {}
  RWKV_HD unsigned slices() const { return static_cast<unsigned>((size + columns - 1) / columns); }
  unsigned threads() const { return static_cast<unsigned>((columns + warp_size - 1) / warp_size * warp_size); }
  std::size_t shared_bytes() const { return static_cast<std::size_t>(Layout::numbers(size, columns)) * sizeof(T); }
};

/// One component of a chunk: its vectors in shared memory, its gradients in the registers of a thread. Rows: r or k of
/// every token, then a or b.
template <class Shape, class T>
struct ComponentGradients {
  using E = detail::SharedElement<T>;
  static constexpr int tokens = Shape::tokens, kinds = Shape::kinds, rows = Shape::rows;

  T of_reads[rows];     ///< S e_i; in the end the gradients of r and a
  T of_keys[rows];      ///< C f_j; in the end those of k and b
  T of_decays[tokens];  ///< S C, at the first token of every stretch; in the end the gradients of w
  E* own;               ///< r and a, k and b, w, u; `keep` puts their gradients in the same places
  const E* pairs;       ///< <e_i, f_j>
  int columns;

  /// The row of the first token of a part.
  template <detail::TokenPart::Name part>
  static constexpr int row_of = part == detail::TokenPart::read    ? 0
                                : part == detail::TokenPart::a     ? tokens
                                : part == detail::TokenPart::write ? rows
                                : part == detail::TokenPart::b     ? rows + tokens
                                : part == detail::TokenPart::decay ? 2 * rows
                                                                   : 2 * rows + tokens;
  __device__ E& at(int row) const { return own[row * columns]; }
  __device__ T read(int row) const { return at(row); }
  __device__ T key(int row) const { return at(rows + row); }
  __device__ T decay(int t) const { return at(2 * rows + t); }
  __device__ T pair(int i, int j) const { return pairs[i * (rows + chunk_spare) + j]; }

  /// Stores the gradients, with those by the bonus.
  template <bool Bonus>
  __device__ __forceinline__ void keep() const {
    RWKV_KERNEL_UNROLL for (int i = 0; i < rows; ++i) {
      T of_read = of_reads[i], of_key = of_keys[i];
      if constexpr (Bonus) {
        const T same = pair(i, i), r = read(i), k = key(i), u = at(2 * rows + tokens + i);
        of_read += u * k * same;
        of_key += u * r * same;
        at(2 * rows + tokens + i) = r * k * same;
      }
      at(i) = of_read;
      at(rows + i) = of_key;
    }
    RWKV_KERNEL_UNROLL for (int t = 0; t < tokens; ++t) at(2 * rows + t) = of_decays[t];
  }

  /// Halves every stretch of 2 * Half tokens, and the halves.
  template <int Half>
  __device__ __forceinline__ void halve() {
    RWKV_KERNEL_UNROLL for (int begin = 0; begin < tokens; begin += 2 * Half) {
      const int middle = begin + Half;
      T g[kinds][Half], x[kinds][Half], first(1), second(1), to_first(0), to_second(0);
      RWKV_KERNEL_UNROLL for (int i = 0; i < Half; ++i) {
        RWKV_KERNEL_UNROLL for (int kind = 0; kind < kinds; ++kind) {
          const int row = kind * tokens + middle + i;
          g[kind][i] = second * read(row);
          to_first += g[kind][i] * of_reads[row];
        }
        second *= decay(middle + i);
      }
      RWKV_KERNEL_UNROLL for (int j = Half - 1; j >= 0; --j) {
        RWKV_KERNEL_UNROLL for (int kind = 0; kind < kinds; ++kind) {
          const int row = kind * tokens + begin + j;
          x[kind][j] = first * key(row);
          to_second += x[kind][j] * of_keys[row];
        }
        first *= decay(begin + j);
      }
      of_decays[middle] = first * of_decays[begin] + to_second;
      of_decays[begin] = second * of_decays[begin] + to_first;
      RWKV_KERNEL_UNROLL for (int kind = 0; kind < kinds; ++kind) {
        RWKV_KERNEL_UNROLL for (int i = 0; i < Half; ++i) {
          of_reads[kind * tokens + middle + i] *= first;
          of_keys[kind * tokens + begin + i] *= second;
        }
      }
      RWKV_KERNEL_UNROLL for (int of = 0; of < kinds; ++of) {
        RWKV_KERNEL_UNROLL for (int i = 0; i < Half; ++i) {
          RWKV_KERNEL_UNROLL for (int with = 0; with < kinds; ++with) {
            RWKV_KERNEL_UNROLL for (int j = 0; j < Half; ++j) {
              const int later = of * tokens + middle + i, earlier = with * tokens + begin + j;
              const T product = pair(later, earlier);
              of_reads[later] += product * x[with][j];
              of_keys[earlier] += product * g[of][i];
            }
          }
        }
      }
    }
    if constexpr (Half > 1) halve<Half / 2>();
  }
};

/// ahead, back: what the sweeps have kept. partial: the sums over the tokens of a slot.
template <class Shape, class C, class T, class Sequences, class... Op>
RWKV_KERNEL void __launch_bounds__(chunk_slice, 4)
    chunk_gradients_kernel(Sequences sequences, Index length, KeptChunks<T> ahead, KeptChunks<T> back,
                           Partial<T> partial, Op... ops) {
  using E = detail::SharedElement<T>;
  using R = Several<T, 1>;
  using Gradients = ComponentGradients<Shape, T>;
  constexpr int tokens = Shape::tokens, kinds = Shape::kinds, rows = Shape::rows, rows_at_once = rows / 4;
  constexpr auto order = std::index_sequence_for<Op...>();
  const Shape shape(length);
  const int size = shape.size, columns = shape.columns, thread = static_cast<int>(threadIdx.x);
  const auto threads = static_cast<int>(blockDim.x);
  const auto heads = static_cast<unsigned>(detail::written(ops...).width / length);
  const int first_column = static_cast<int>(blockIdx.x % shape.slices()) * columns;
  const Index head = blockIdx.x / shape.slices() % heads, slot = blockIdx.x / shape.slices() / heads;
  const Index chunk = slot * heads + head, begin = head * length;
  const int column = first_column + thread;
  const bool is_component = thread < columns && column < length;

  Numbers<R, detail::sum_count<Op...> + 1> totals;  // of `sum` operands, over the tokens
  RWKV_UNROLL for (std::size_t n = 0; n <= detail::sum_count<Op...>; ++n) totals.v[n] = R(0);
  const Place place = sequences.place(slot, tokens);
  const Span span = sequences[place.s];
  const Index first = span.begin + place.n * tokens;
  if (first >= span.end + Index{detail::reads_after_update<C>}) {  // an empty slot
    if (is_component) partial.store(slot, begin + column, totals);
    return;
  }
  const auto moved = [](TokenPart::Name part) {
    return Index{detail::reads_after_update<C> && (part == TokenPart::read || part == TokenPart::cotangent)};
  };
  // The token that the i-th vector of a part belongs to; span.end if there is none.
  const auto token_of = [&](TokenPart::Name part, int i) {
    const Index t = first + i - moved(part);
    return t >= span.begin && t < span.end ? t : span.end;
  };

  const int row = size + chunk_spare, pair_row = rows + chunk_spare, sum_row = columns + chunk_spare;
  E* const f = detail::dynamic_shared<T>();
  E* const e = f + rows * row;
  E* const pairs = e + rows * row;
  E* const own = pairs + rows * pair_row + thread;
  each_part<C, false>(
      order,
      [&](auto name, const auto& op) {
        constexpr TokenPart::Name part = decltype(name)::value;
        if constexpr (part == TokenPart::value || part == TokenPart::cotangent) {
          copy_rows<tokens>(part == TokenPart::value ? f : e, row, size, length, T(0), [&](int i) {
            const Index t = token_of(part, i);
            return t < span.end ? op.row(span.b, t) + begin : nullptr;
          });
        } else {
          constexpr int to = Gradients::template row_of<part>;
          RWKV_KERNEL_UNROLL for (int i = 0; i < tokens; ++i) {
            const Index t = token_of(part, i);
            T number(part == TokenPart::decay ? 1 : 0);
            if (t < span.end && is_component) number = widen<T>(op.row(span.b, t)[begin + column]);
            if (thread < columns) own[(to + i) * columns] = number;
          }
        }
      },
      ops...);
  if constexpr (kinds == 2) {
    const auto copy_kept = [&](const T* kept, E* to) {
      copy_rows<tokens>(to + tokens * row, row, size, size, T(0),
                        [&](int i) { return kept + (chunk * tokens + i) * size; });
    };
    copy_kept(ahead.removed, f);
    copy_kept(back.removed, e);
  }
  __syncthreads();

  constexpr int tiles = rows / 4;
  for (int tile = thread; tile < tiles * tiles; tile += threads) {
    const int i = tile / tiles, j = tile % tiles;
    T sums[4][4] = {};
    multiply_pairs(sums, e + i * row, tiles * row, f + j * row, tiles * row, size);
    RWKV_KERNEL_UNROLL for (int m = 0; m < 4; ++m) {
      RWKV_KERNEL_UNROLL for (int n = 0; n < 4; ++n) { pairs[(i + m * tiles) * pair_row + j + n * tiles] = sums[m][n]; }
    }
  }
  const T* const state = ahead.states + chunk * size * size;
  const T* const cotangent = back.states + chunk * size * size;
  const int group = thread / (columns / 4), four = thread % (columns / 4) * 4;
  const bool multiplies = group < 4 && first_column + four < size;
  T of_reads[rows_at_once][4] = {}, of_keys[rows_at_once][4] = {};
  if (multiplies) {
    multiply_rows(of_reads, e + group * row, 4 * row, state + first_column + four, size, size);
    multiply_rows(of_keys, f + group * row, 4 * row, cotangent + first_column + four, size, size);
  }
  __syncthreads();  // e and f have been read; sums take their place
  RWKV_KERNEL_UNROLL for (int i = 0; i < rows_at_once; ++i) {
    if (multiplies) {
      RWKV_KERNEL_UNROLL for (int c = 0; c < 4; ++c) {
        e[(group + 4 * i) * sum_row + four + c] = of_reads[i][c];
        f[(group + 4 * i) * sum_row + four + c] = of_keys[i][c];
      }
    }
  }
  __syncthreads();
  if (!is_component) return;

  Gradients gradients;
  gradients.own = own;
  gradients.pairs = pairs;
  gradients.columns = columns;
  RWKV_KERNEL_UNROLL for (int i = 0; i < rows; ++i) {
    gradients.of_reads[i] = e[i * sum_row + thread];
    gradients.of_keys[i] = f[i * sum_row + thread];
  }
  T both(0);
  for (int v = 0; v < size; ++v) both += state[v * size + column] * cotangent[v * size + column];
  gradients.of_decays[0] = both;
  gradients.template halve<tokens / 2>();

  gradients.template keep<detail::has_bonus<C>()>();

  std::size_t nth = 0;
  each_part<C, true>(
      order,
      [&](auto name, const auto& op) {
        constexpr TokenPart::Name part = decltype(name)::value;
        using Operand = std::remove_cvref_t<decltype(op)>;
        constexpr bool summed = detail::is_sum<Operand>;
        if constexpr (part != TokenPart::value || summed) {
          const Index front = first - moved(part);
          const Index last = front + tokens < span.end ? front + tokens : span.end;
          for (Index t = front > span.begin ? front : span.begin; t < last; ++t) {
            const auto i = static_cast<int>(t - front);
            T number;
            if constexpr (part == TokenPart::value) number = back.dvalues[(chunk * tokens + i) * size + column];
            else number = gradients.at(Gradients::template row_of<part> + i);
            if constexpr (summed) {
              totals.v[nth] += R(number);
            } else {
              detail::Slot<R, Operand, detail::AllLanes> slot_of(op, span.b, t, begin + column, {});
              slot_of.value = R(number);
              slot_of.finish();
            }
          }
        }
        nth += summed;
      },
      ops...);
  partial.store(slot, begin + column, totals);
}

/// The slots of all chunks of `positions` more than tokens in every sequence.
RWKV_HD Index chunk_slots(const Whole& sequences, Index tokens, Index positions) {
  return Whole{sequences.batch, sequences.time + positions}.slots(tokens);
}
/// A packed sequence has a slot to spare.
template <class I>
RWKV_HD Index chunk_slots(const Packed<I>& sequences, Index tokens, Index) {
  return sequences.slots(tokens);
}

/// Whether the gradients of v are summed over tokens.
template <class C, class... Op>
consteval bool sums_values() {
  constexpr std::size_t first = 2 + detail::shared_count<C>;  // behind the inputs and the cotangent
  constexpr bool sums[] = {detail::is_sum<Op>...};
  return sums[first];
}

/// The adjoint of a row cell in chunks of time. A length of 64, as in published models, becomes static.
template <class C, Index N, class T, class Sequences, class... Op>
void recur_back_chunks(const CudaStream& stream, bool dry, Arena scratch, Sequences sequences, Extent<N> length,
                       Mat<const T> first, Mat<const T> dlast, Mat<T> dfirst, const Op&... ops) {
  if constexpr (N == dyn) {
    if (length == 64) {
      return recur_back_chunks<C>(stream, dry, scratch, sequences, Extent<64>{}, first, dlast, dfirst, ops...);
    }
  }
  with_chunk_tokens<T>(length, [&](auto per_chunk) {
    constexpr int tokens = decltype(per_chunk)::value, kinds = detail::is_rank_one<C> ? 2 : 1;
    const Index width = detail::written(ops...).width, heads = width / length, size = padded(length);
    const Index slots = chunk_slots(sequences, tokens, Index{detail::reads_after_update<C>}), chunks = slots * heads;
    Arena memory = scratch;
    const auto take = [&](bool needed, Index numbers) { return needed ? memory.take<T>(chunks * numbers) : nullptr; };
    const KeptChunks<T> ahead{take(true, size * size), take(kinds == 2, tokens * size), nullptr};
    const KeptChunks<T> back{take(true, size * size), take(kinds == 2, tokens * size),
                             take(sums_values<C, Op...>(), tokens * size)};
    const Partial<T> partial{memory.take<T>(slots * Index{detail::sum_count<Op...>} * width), width};
    if (dry) return;
    sweep<Sweep::ahead, C, tokens, N, T>(stream, sequences, length, first, Mat<T>{nullptr, 0, 0, 0}, ahead, ops...);
    sweep<Sweep::back, C, tokens, N, T>(stream, sequences, length, dlast, dfirst, back, ops...);
    using Shape = GradientShape<tokens, N, kinds, T>;
    const Shape shape{length};
    stream.launch({.grid = {static_cast<unsigned>(chunks) * shape.slices()},
                   .block = {shape.threads()},
                   .shared_bytes = shape.shared_bytes()},
                  chunk_gradients_kernel<Shape, C, T, Sequences, Op...>, sequences, Index(length), ahead, back, partial,
                  ops...);
    add_partial(stream, partial, slots, ops...);
  });
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
