// The kernels that RWKV-7a has beside those of RWKV-7, for each type of parameters.
#include "rwkv/backend/cuda/recur/recur.cuh"
#include "rwkv/backend/cuda/recur/recur_back.cuh"
#include "rwkv/backend/cuda/rows/rows.cuh"
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/channel_mix_deep_embed.hpp"

namespace deep_embed_kernels {

using namespace rwkv;

template <class W>
void scale(const CudaStream& stream, Arena ws, Seq<float> x, Vec<W> p) {
  gpu::rows(stream, false, ws, DeepEmbedGate{}, arg::in(x), arg::in(x), arg::chan(p), arg::out(x));
}

void run(const CudaStream& stream, Arena ws, Seq<float> x, Vec<float> p, Mat<float> state) {
  const auto in = arg::in(x);
  const auto out = arg::out(x);
  const auto cot = arg::cot(x);
  const auto head = arg::shared(in);
  const Mat<const float> first = state;
  scale<float>(stream, ws, x, {});
  scale<bf16>(stream, ws, x, {});
  scale<f16>(stream, ws, x, {});
  gpu::rows(stream, false, ws, RowsBack<DeepEmbedGate>{}, in, in, arg::chan(p), cot, out, out, arg::sum(p));
  gpu::recur(stream, false, ws, Sequential{}, ReadMatrix{}, Extent<>{32}, state, in, head, out);
  gpu::recur_back(stream, false, ws, Sequential{}, ReadMatrix{}, Extent<>{32}, first, first, state, in, head, cot, out,
                  out);
}

}  // namespace deep_embed_kernels
