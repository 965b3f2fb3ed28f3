#pragma once
/// The fused step: layers, embeddings and heads at one token of each sequence. Between the products of a layer lies
/// work that needs all rows of a product. Up to most_decoded sequences it is the next kernel; for more sequences it
/// is done by further blocks of the same launch.
///
/// The fused step may prefetch weights before earlier queued work has ended. If you change weights through verbs, call
/// sync() before the step. Inside a model nothing changes weights between embedding and head, and the embedding is
/// launched without programmatic dependent launch, so it waits for everything in front.
#include <concepts>
#include <type_traits>
#include <utility>

#include "rwkv/backend/cuda/runtime/alignment.cuh"
#include "rwkv/backend/cuda/step/decode_product.cuh"
#include "rwkv/backend/cuda/step/decode_rows.cuh"
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// The types that these kernels are written for: T in registers, W in memory.
template <class T, class W>
concept Decodes = std::floating_point<T> &&(std::floating_point<W> || std::same_as<W, bf16> || std::same_as<W, f16>);

/// A version whose cell, gate and decay are functions of one channel.
template <class V>
concept ByChannel =
    std::derived_from<V, V4> && !RowCell<typename V::Cell> && detail::stages_of<typename V::Gate>::type::count == 0 &&
    detail::stages_of<typename V::Decay>::type::count == 0;

/// The overloads for all that is not fused.
template <class... Anything>
bool layer_step(const Anything&...) {
  return false;
}
template <class... Anything>
bool embedding_step(const Anything&...) {
  return false;
}
template <class... Anything>
bool head_step(const Anything&...) {
  return false;
}

/// The rows x under a norm, to be mixed with the tokens before.
template <class Rule, class Norm, class T>
auto normed_rows(const Norm& norm, const T* x, const Mat<T>& before, T* normed) {
  const Index width = norm.dims.width;
  expects(width <= (Index{1} << 27), "rwkv: a width of ", width, " is more than a step on a GPU takes");
  return NormedRows<decltype(norm.program()), Rule, T, typename Norm::storage>{
      norm.program(), x, static_cast<int>(width), norm.params.scale.data, norm.params.shift.data, before, normed};
}

/// The works that follow the products of a layer, as one type: so the launches of all products share one kernel.
template <class Cell, class Norm, class Gate>
struct LayerWork {
  enum class Part { none, cell, norm, gate };
  Cell cell;
  Norm norm;
  Gate gate;
  Part part = Part::none;
  unsigned blocks = 0;

  LayerWork only(Part wanted) const {
    LayerWork work = *this;
    work.part = wanted;
    work.blocks = wanted == Part::cell   ? cell.blocks
                  : wanted == Part::norm ? norm.blocks
                  : wanted == Part::gate ? gate.blocks
                                         : 0;
    return work;
  }
  template <class Wait>
  __device__ __forceinline__ void run_block(unsigned block, const Wait& wait) const {
    if (part == Part::cell) cell.run_block(block, wait);
    else if (part == Part::norm) norm.run_block(block, wait);
    else if (part == Part::gate) gate.run_block(block, wait);
  }
};

template <class Cell, class Norm, class Gate>
LayerWork(Cell, Norm, Gate) -> LayerWork<Cell, Norm, Gate>;

/// A layer of RWKV-4, or of a version derived from it, at one token of each sequence; see Layer::forward.
template <class B, class L, class State, class V, class VF, class T>
class LayerStep {
  using P = typename L::Norm::storage;

 public:
  LayerStep(B& be, Arena& ws, const L& layer, const T* x, State& state, T* y, Index batch)
      : be_(be), layer_(layer), x_(x), state_(state), y_(y), batch_(batch), width_(layer.att.dims.width),
        ffn_(layer.ffn.dims.ffn) {
    const auto take = [&](Index numbers) { return ws.take<T>(batch * numbers); };
    for (T** rows : {&normed_, &r_, &v_, &gated_}) *rows = take(width_);
    k_ = take(width_ > ffn_ ? width_ : ffn_);
    if (many()) {
      for (T*& rows : mixed_) rows = take(width_);
      turns_ = ws.take<Turn>(turns);
    }
  }

  void run() const {
    if (many()) run_many();
    else run_few();
  }

 private:
  static constexpr const P* none = nullptr;  ///< the mix of tokens that are not mixed
  static constexpr int turns = 4;            ///< one for each launch of products

  bool many() const { return batch_ > most_decoded; }
  const CudaStream& stream() const { return be_.stream(); }

  auto att_rows() const { return normed_rows<typename V::Mix>(layer_.ln1, x_, state_.att.shift, normed_); }
  auto ffn_rows() const {
    return normed_rows<typename VF::Mix>(layer_.ln2, static_cast<const T*>(y_), state_.ffn.shift, normed_);
  }
  template <class Rows, class Out, std::same_as<DecodeProduct<P, Out>>... More>
  void multiply(const Rows& rows, const ShiftCopy<T>& shift, const DecodeProduct<P, Out>& first,
                const More&... more) const {
    decode(stream(), rows,
           DecodeProducts<P, Out, int{1 + sizeof...(More)}>{{first, more...}, static_cast<int>(batch_), rows.width},
           shift);
  }
  template <class Rows, class Out, class... More>
  void multiply(const Rows& rows, const DecodeProduct<P, Out>& first, const More&... more) const {
    multiply(rows, ShiftCopy<T>{}, first, more...);
  }

  void run_few() const {
    const auto& att = layer_.att.params;
    const auto& ffn = layer_.ffn.params;
    const auto width = static_cast<int>(width_), hidden = static_cast<int>(ffn_);
    using Plain = StoreSums<Identity, T>;
    using Activated = StoreSums<typename VF::Activation, T>;
    multiply(att_rows(), decode_product(att.key, att.mix_k.data, Plain{k_, width}),
             decode_product(att.value, att.mix_v.data, Plain{v_, width}),
             decode_product(att.receptance, att.mix_r.data, Plain{r_, width}));
    launch_work(stream(), true, cell_work());
    multiply(PlainRows<T>{gated_, width}, decode_product(att.output, none, AddSums<T>{x_, y_, width}));
    multiply(ffn_rows(), decode_product(ffn.key, ffn.mix_k.data, Activated{k_, hidden, true}),
             decode_product(ffn.receptance, ffn.mix_r.data, Activated{r_, width}));
    multiply(PlainRows<T>{k_, hidden}, ShiftCopy<T>{normed_, state_.ffn.shift},
             decode_product(ffn.value, none, GateSums<typename VF::Gate, T>{r_, y_, width}));
  }

  void run_many() const {
    const auto& att = layer_.att.params;
    const auto& ffn = layer_.ffn.params;
    const bool aligned = is_aligned<16 / sizeof(T)>(x_, width_) && is_aligned<16 / sizeof(T)>(v_, width_);
    const LayerWork work{
        cell_work(),
        norm_work(batch_, SummedRows<T>{x_, v_, y_, width_}, aligned, ffn_rows(),
                  RowMixes<T, P, 2>{{ffn.mix_k.data, ffn.mix_r.data}, {mixed_[0], mixed_[1]}}),
        GateWork<typename VF::Gate, T>{r_, v_, y_, normed_, state_.ffn.shift, channel_blocks(batch_, width_)}};
    using Part = typename decltype(work)::Part;

    launch_work(stream(), true,
                norm_work(batch_, FirstRows{.turns_to_clear = turns_, .count = turns}, true, att_rows(),
                          RowMixes<T, P, 3>{{att.mix_k.data, att.mix_v.data, att.mix_r.data},
                                            {mixed_[0], mixed_[1], mixed_[2]}}));
    multiply_then(turns_, work.only(Part::cell), product(mixed_[0], att.key, k_), product(mixed_[1], att.value, v_),
                  product(mixed_[2], att.receptance, r_));
    multiply_then(turns_ + 1, work.only(Part::norm), product(gated_, att.output, v_));
    multiply_then(turns_ + 2, work.only(Part::none), product(mixed_[0], ffn.key, k_, typename VF::Activation{}),
                  product(mixed_[1], ffn.receptance, r_));
    multiply_then(turns_ + 3, work.only(Part::gate), product(k_, ffn.value, v_));
  }
  template <class Work, class... Product>
  void multiply_then(Turn* turn, const Work& work, const Product&... products) const {
    be_.template gemm_then<typename VF::Activation>(turn, work, products...);
  }

  CellWork<V, T, P> cell_work() const {
    return {.decay = layer_.att.params.decay.data,
            .bonus = layer_.att.params.first.data,
            .key = k_,
            .value = v_,
            .receptance = r_,
            .state = state_.att.wkv.numbers,
            .gated = gated_,
            .normed = normed_,
            .shift = state_.att.shift,
            .blocks = channel_blocks(batch_, width_)};
  }

  template <Index N, class Epilogue = Identity>
  auto product(const T* x, Mat<P, N> w, T* y, Epilogue epilogue = {}) const {
    return mul(matrix(y, batch_, w.rows), matrix(x, batch_, w.cols), transposed(w), epilogue);
  }

  B& be_;
  const L& layer_;
  const T* x_;
  State& state_;
  T* y_;
  Index batch_, width_, ffn_;
  T *normed_ = nullptr, *r_ = nullptr, *v_ = nullptr, *gated_ = nullptr, *k_ = nullptr;  // [batch, width]; k: or ffn
  T* mixed_[3] = {};                                                                     // [batch, width]
  Turn* turns_ = nullptr;                                                                // [turns]
};

/// A layer in five launches. For more than most_decoded sequences, a backend that cannot launch products and their work
/// together has four launches beside those of the products.
template <class B, class V, class VF, class S, class D, class T, Index N, Index M, class State>
requires ByChannel<V> && ByChannel<VF> && Decodes<compute_t<S>, storage_t<S>>
bool layer_step(B& be, Arena ws, const Layer<TimeMix<V, S, B, D>, ChannelMix<VF, S, B, D>>& layer, Seq<const T, N> x,
                State& state, Seq<T, M> y) {
  using L = std::remove_cvref_t<decltype(layer)>;
  const LayerStep<B, L, State, V, VF, T> step(be, ws, layer, x.data, state, y.data, x.batch);
  if (be.dry) return true;
  detail::check_operand(arg::prev(x, state.att.shift), y.batch, 1, y.width);
  detail::check_operand(arg::prev(x, state.ffn.shift), y.batch, 1, y.width);
  step.run();
  return true;
}

/// Gathers the rows of the tokens and normalises them, in one launch.
template <class S, class B, class D, class T, Index N>
requires Decodes<compute_t<S>, storage_t<S>>
bool embedding_step(const CudaStream& stream, const Embedding<S, B, D>& embedding, const Token* tokens, Seq<T, N> y) {
  using P = storage_t<S>;
  const Mat<const P> table = embedding.params.table;
  const auto rows = normed_rows<NoMix>(embedding.ln0, static_cast<const T*>(y.data), Mat<T>{}, y.data);
  launch_work(stream, false,
              norm_work(y.batch * y.time, GatheredRows<T, P>{table, tokens, y.data},
                        is_aligned<16 / sizeof(T)>(table.data, table.stride), rows, RowMixes<T, P, 0>{}));
  return true;
}

/// The norm and the product in one launch, for up to most_decoded tokens.
template <class S, class B, class D, class T, Index N, Index M>
requires Decodes<compute_t<S>, storage_t<S>>
bool head_step(const CudaStream& stream, bool dry, const Head<S, B, D>& head, Seq<const T, N> x, Seq<T, M> logits) {
  const Index rows = x.batch * x.time;
  if (rows > most_decoded) return false;
  if (dry || rows == 0) return true;
  using P = storage_t<S>;
  const auto normed = normed_rows<NoMix>(head.ln_out, x.data, Mat<T>{}, static_cast<T*>(nullptr));
  const auto product = decode_product(Mat<const P>(head.params.table), static_cast<const P*>(nullptr),
                                      StoreSums<Identity, T>{logits.data, static_cast<int>(Index(logits.width))});
  decode<T>(stream, normed,
            DecodeProducts<P, StoreSums<Identity, T>, 1>{{product}, static_cast<int>(rows), normed.width});
  return true;
}

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
