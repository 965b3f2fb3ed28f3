// Every kernel of a decoding step, for nvcc: a layer, an embedding and a head of each type of weights, and the sampler.
#include "rwkv/backend/cuda/product/gemm.cuh"
#include "rwkv/backend/cuda/sample/sample.cuh"
#include "rwkv/backend/cuda/step/decode.cuh"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/model/embedding.hpp"
#include "rwkv/model/head.hpp"
#include "rwkv/model/layer.hpp"

#ifndef RWKV_SCALARS
#define RWKV_SCALARS float, rwkv::bf16, rwkv::f16
#endif

namespace decode_kernels {

/// As much of a backend as these kernels are launched through.
struct Backend {
  const rwkv::CudaStream* own = nullptr;
  bool dry = false;

  const rwkv::CudaStream& stream() const { return *own; }
  template <class T>
  T* allocate(rwkv::Index) {
    return nullptr;
  }
  template <class T>
  T* allocate_host(rwkv::Index) {
    return nullptr;
  }
  void free(void*) {}
  void free_host(void*) {}
  void sync() {}
  void copy(auto&&...) {}
  void fill(auto&&...) {}
  void gather_rows(auto&&...) {}
  void gemm(auto&&...) {}
  template <class Epilogue, class Work, class... P>
  void gemm_then(rwkv::gpu::Turn* turn, const Work& work, const P&... products) {
    rwkv::gpu::gemm_then<Epilogue>(*own, turn, work, products...);
  }
  void rows(auto&&...) {}
  void recur(auto&&...) {}
};

template <class S>
void instantiate(Backend& be, rwkv::Arena ws, const rwkv::ModelSizes& sizes) {
  using T = rwkv::compute_t<S>;
  using L = rwkv::Layer<rwkv::TimeMix<rwkv::V4, S, Backend>, rwkv::ChannelMix<rwkv::V4, S, Backend>>;
  const L layer(sizes, 0);
  typename L::State state;
  const rwkv::Seq<T> y;
  rwkv::gpu::layer_step(be, ws, layer, rwkv::Seq<const T>(y), state, y);
  rwkv::gpu::embedding_step(be.stream(), rwkv::Embedding<S, Backend>(sizes), static_cast<const rwkv::Token*>(nullptr),
                            y);
  rwkv::gpu::head_step(be.stream(), false, rwkv::Head<S, Backend>(sizes), rwkv::Seq<const T>(y), y);
}

template <class... S>
void instantiate_all(Backend& be, rwkv::Arena ws, const rwkv::ModelSizes& sizes) {
  (instantiate<S>(be, ws, sizes), ...);
}

void run(Backend& be, rwkv::Arena ws, const rwkv::ModelSizes& sizes) {
  instantiate_all<RWKV_SCALARS>(be, ws, sizes);
  rwkv::CudaSampler<Backend>(be, 1, 1)(be, rwkv::Mat<float>{}, nullptr);
}

}  // namespace decode_kernels
