#pragma once
/// The CUDA backend: the verbs as kernels in a stream.
#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "rwkv/backend/concept.hpp"
#include "rwkv/backend/cuda/product/gemm.cuh"
#include "rwkv/backend/cuda/recur/recur.cuh"
#include "rwkv/backend/cuda/recur/recur_back.cuh"
#include "rwkv/backend/cuda/rows/flat_rows.cuh"
#include "rwkv/backend/cuda/rows/loss.cuh"
#include "rwkv/backend/cuda/rows/memory.cuh"
#include "rwkv/backend/cuda/rows/rows.cuh"
#include "rwkv/backend/cuda/runtime/graph.cuh"
#include "rwkv/backend/cuda/step/decode.cuh"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// A CUDA device and a stream on it; copies share both. Verbs return when their kernels are queued; `sync` waits for
/// them. Arithmetic is in float, or in double for operands in double. Numbers of 16 bits are widened when they are read
/// and rounded when they are written. `Gemm` multiplies matrices, see OwnGemm.
///
/// Operands are memory of the device. Spans of tokens, targets and losses are memory from `allocate_host`. Every result
/// has the same bits in every run of one program on devices of one architecture.
template <class Gemm>
class BasicCuda {
 public:
  /// What record() returns: a CUDA graph.
  using Recording = CudaGraph;

  /// While set, verbs only take their scratch and return: a pass then measures it, see scratch_for.
  bool dry = false;

  /// Errors    no device, a driver older than the runtime, no such device, or one that the program has no code for
  BasicCuda() : BasicCuda(0) {}
  /// On the device of this number. Errors: no such device, or one that this program has no code for.
  explicit BasicCuda(int device, Gemm gemm = {})
      : stream_(std::make_shared<CudaStream>(device)), gemm_(std::move(gemm)) {}

  /// The same device with another stream; neither stream waits for the other.
  BasicCuda independent() const {
    sync();
    // A Gemm may keep something for each stream, which must not outlive the stream.
    if constexpr (requires { gemm_.independent(); }) return BasicCuda(stream_->device(), gemm_.independent());
    else return BasicCuda(stream_->device(), gemm_);
  }

  /// The queue that all work of this handle goes to.
  const CudaStream& stream() const { return *stream_; }

  template <class T>
  T* allocate(Index count) {
    return static_cast<T*>(allocate_with("device memory", count * Index{sizeof(T)},
                                         [](void** block, std::size_t bytes) { return cudaMalloc(block, bytes); }));
  }
  void free(void* block) {
    sync_quietly();
    static_cast<void>(cudaFree(block));
  }
  /// Pinned memory of the host, which the device reaches too, but slowly.
  template <class T>
  T* allocate_host(Index count) {
    return static_cast<T*>(allocate_with(
        "pinned host memory", count * Index{sizeof(T)},
        [](void** block, std::size_t bytes) { return cudaHostAlloc(block, bytes, cudaHostAllocDefault); }));
  }
  void free_host(void* block) {
    sync_quietly();
    static_cast<void>(cudaFreeHost(block));
  }

  void sync() const { stream_->sync(); }

  /// Either side may be memory of the host.
  template <class T, class U, Index N, Index M>
  void copy(Mat<T, N> from, Mat<U, M> to) {
    static_assert(std::is_same_v<std::remove_const_t<T>, U>, "rwkv: a copy does not convert");
    if (dry) return;
    detail::check_copy(from, to);
    if (to.rows == 0 || to.cols == 0) return;
    const gpu::CurrentDevice current(stream_->device());
    const auto bytes = [](Index numbers) { return static_cast<std::size_t>(numbers) * sizeof(U); };
    if (to.rows == 1 ||
        (to.stride == to.cols && from.stride == from.cols)) {  // contiguous; a pitched copy has a limit on the stride
      RWKV_CUDA_TRY(
          cudaMemcpyAsync(to.data, from.data, bytes(to.rows * to.cols), cudaMemcpyDefault, stream_->handle()));
    } else {
      RWKV_CUDA_TRY(cudaMemcpy2DAsync(to.data, bytes(to.stride), from.data, bytes(from.stride), bytes(to.cols),
                                      static_cast<std::size_t>(to.rows), cudaMemcpyDefault, stream_->handle()));
    }
    stream_->settle();
  }

  template <class T, Index N>
  void fill(Mat<T, N> to, T value) {
    if (dry) return;
    gpu::fill(*stream_, Mat<T>(to), value);
  }

  template <class T, class W, Index N, Index M>
  void gather_rows(Mat<W, M> table, std::span<const Token> rows, Mat<T, N> to) {
    if (dry) return;
    detail::check_gather(table, rows, to);
    gpu::gather_rows<T, std::remove_const_t<W>>(*stream_, table, reached(rows), to);
  }

  template <class T, class W, Index N, Index M>
  void scatter_add_rows(Arena scratch, Mat<T, N> from, std::span<const Token> rows, Mat<W, M> table) {
    const Index count = std::ssize(rows);
    Token* const here = scratch.take<Token>(count);  // in memory of the device, because every block reads all of them
    if (dry) return;
    detail::check_gather(table, rows, from);
    copy(matrix(reached(rows), 1, count), matrix(here, 1, count));
    gpu::scatter_add_rows<std::remove_const_t<T>, W>(*stream_, from, here, table);
  }

  template <class T>
  void cross_entropy(Mat<T> logits, std::span<const Token> targets, const CrossEntropyWeights& weights,
                     std::span<T> losses) {
    if (dry) return;
    detail::check_cross_entropy(logits, targets, losses);
    gpu::cross_entropy(*stream_, logits, reached(targets), weights, reached(losses));
  }

  /// Waits for the result.
  template <class T, Index N>
  double sum_of_squares(Arena scratch, Mat<T, N> x) {
    const Mat<const T> only = x;
    return sum_of_squares(scratch, std::span<const Mat<const T>>(&only, 1));
  }
  /// The sum over several matrices.
  template <class T>
  double sum_of_squares(Arena scratch, std::span<const Mat<const T>> matrices) {
    Index blocks = 0;
    for (const auto& x : matrices) blocks += gpu::squares_blocks(x.rows * x.cols);
    double* const sums = scratch.take<double>(blocks + 1);
    if (dry) return 0;
    gpu::sum_of_squares<T>(*stream_, matrices, sums + 1, sums);
    double sum = 0;
    copy(Mat<const double>(matrix(sums, 1, 1)), matrix(&sum, 1, 1));
    sync();
    return sum;
  }

  template <class... P>
  void gemm(const P&... products) {
    if (dry) return;
    if constexpr ((detail::is_stored_product<P> && ...)) gemm_stored(products...);
    else gemm_(*stream_, products...);
  }

  /// Products of more than 8 rows, with `Epilogue` or Identity, and work that waits for them
  /// (backend/cuda/step/work.cuh). In one launch where `Gemm` has `then`. turn: zero, in memory of the device; used
  /// up by the call.
  template <class Epilogue, class Work, class... P>
  void gemm_then(gpu::Turn* turn, const Work& work, const P&... products) {
    if (dry) return;
    if constexpr (requires { gemm_.template then<Epilogue>(*stream_, turn, work, products...); }) {
      gemm_.template then<Epilogue>(*stream_, turn, work, products...);
    } else {
      gemm_(*stream_, products...);
      gpu::launch_work(*stream_, true, work);
    }
  }

  template <class P, class... Op>
  void rows(const P& program, const Op&... ops) {
    static_assert(detail::explain_rows_without_scratch<Op...>());
    gpu::rows(*stream_, dry, Arena(nullptr, 0), program, ops...);
  }
  template <class P, class... Op>
  void rows(Arena scratch, const P& program, const Op&... ops) {
    gpu::rows(*stream_, dry, scratch, program, ops...);
  }

  template <class P, class T, std::size_t Inputs, std::size_t Outputs>
  void rows_each(std::span<const FlatRows<P, T, Inputs, Outputs>> tasks) {
    if (dry) return;
    gpu::rows_each(*stream_, tasks);
  }

  template <class Schedule, class C, Index N, class T, Index M, class... Op>
  void recur(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<T, M> state, const Op&... ops) {
    static_assert(detail::explain_recur<Schedule, C, Op...>());
    if (!dry) detail::check_recur<C>(length, state, ops...);
    gpu::recur(*stream_, dry, scratch, schedule, cell, length, state, ops...);
  }

  template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class... Op>
  void recur_back(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<const T, F> first,
                  Mat<const T, L> dlast, Mat<T, M> dfirst, const Op&... ops) {
    static_assert(detail::explain_recur_back<Schedule, C, Op...>());
    if (!dry) detail::check_recur_back<C>(length, first, dlast, dfirst, ops...);
    gpu::recur_back(*stream_, dry, scratch, schedule, cell, length, first, dlast, dfirst, ops...);
  }

  /// `recur` and `recur_back` over packed sequences: sequences of different lengths, one after the other in one row.
  /// starts    [sequences + 1], int or Index, in memory that the device reaches, ascending from 0 to tokens: sequence s
  ///           has the tokens [starts[s], starts[s + 1]) and may be empty
  /// Shapes    operands: [1, tokens, width]; states: [sequences, numbers]
  template <class Schedule, class C, Index N, class T, Index M, class I, class... Op>
  void recur_packed(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<T, M> state, const I* starts,
                    const Op&... ops) {
    gpu::recur_packed(*stream_, dry, scratch, schedule, cell, length, state, starts, ops...);
  }
  template <class Schedule, class C, Index N, class T, Index F, Index L, Index M, class I, class... Op>
  void recur_back_packed(Arena scratch, Schedule schedule, C cell, Extent<N> length, Mat<const T, F> first,
                         Mat<const T, L> dlast, Mat<T, M> dfirst, const I* starts, const Op&... ops) {
    gpu::recur_back_packed(*stream_, dry, scratch, schedule, cell, length, first, dlast, dfirst, starts, ops...);
  }

  /// The fused step: a layer, an embedding or a head at one token of each sequence, in few launches. Returns false for
  /// what is not fused; the caller then uses verbs. The fused step may prefetch weights before earlier queued work has
  /// ended: if you change weights through verbs, call sync() first.
  template <class L, class T, Index N, Index M>
  bool layer_step(Arena scratch, const L& layer, Seq<const T, N> x, typename L::State& state, Seq<T, M> y) {
    return gpu::layer_step(*this, scratch, layer, x, state, y);
  }
  template <class E, class T, Index N>
  bool embedding_step(const E& embedding, std::span<const Token> tokens, Seq<T, N> y) {
    if (dry) return true;
    with_typed<T>(embedding.params.table, [&](auto table) { detail::check_gather(table, tokens, y.flat()); });
    return gpu::embedding_step(*stream_, embedding, static_cast<const Token*>(reached(tokens)), y);
  }
  template <class H, class T, Index N, Index M>
  bool head_step(const H& head, Seq<const T, N> x, Seq<T, M> logits) {
    return gpu::head_step(*stream_, dry, head, x, logits);
  }

  /// Records the work that f() queues in this stream, to be launched again at less cost. It does not run now.
  template <class F>
  CudaGraph record(F&& f) {
    return CudaGraph(*stream_, std::forward<F>(f));
  }
  void replay(const CudaGraph& graph) { graph.launch(*stream_); }

 private:
  template <class Allocate>
  void* allocate_with(const char* kind, Index bytes, const Allocate& allocate) {
    if (bytes == 0) return nullptr;
    const gpu::CurrentDevice current(stream_->device());
    void* block = nullptr;
    const cudaError_t status = allocate(&block, static_cast<std::size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      std::size_t left = 0, all = 0;
      static_cast<void>(cudaMemGetInfo(&left, &all));
      fail("rwkv: CUDA device ", stream_->device(), " is out of memory: ", bytes, " bytes of ", kind,
           " were asked for, ", left, " of the device's ", all, " are free");
    }
    gpu::check_cuda(status, "allocate");
    return block;
  }

  /// Before memory is freed, which queued work may still use. An error is left to the next call.
  void sync_quietly() const { static_cast<void>(cudaStreamSynchronize(stream_->handle())); }

  /// The address by which the device reaches memory of the host.
  /// Errors    memory that the device does not reach
  template <class T>
  T* reached(std::span<T> numbers) const {
    if (numbers.empty()) return nullptr;
    const gpu::CurrentDevice current(stream_->device());
    cudaPointerAttributes attributes{};
    RWKV_CUDA_TRY(cudaPointerGetAttributes(&attributes, numbers.data()));
    expects(attributes.type != cudaMemoryTypeUnregistered && attributes.devicePointer != nullptr,
            "rwkv: the device cannot reach the given tokens, targets or losses; their memory must come from "
            "allocate_host");
    return static_cast<T*>(attributes.devicePointer);
  }

  /// Products AsStored of one type share launches, as those of a checkpoint do; others run one by one.
  template <class T, class E, class... P>
  void gemm_stored(const Product<T, AnyStorage, E>& first, const P&... more) {
    if (((more.w.dtype == first.w.dtype) && ...)) {
      with_typed<T>(first.w, [&]<class W>(Mat<const W>) {
        gemm_(*stream_, detail::as_type<W>(first), detail::as_type<W>(more)...);
      });
    } else {
      gemm_stored(first);
      (gemm_stored(more), ...);
    }
  }

  std::shared_ptr<CudaStream> stream_;
  Gemm gemm_;
};

/// The CUDA backend with the library's own matrix products, which need nothing but the CUDA runtime.
using Cuda = BasicCuda<OwnGemm>;

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
