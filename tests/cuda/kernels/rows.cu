// The kernels of row programs, of the loss and of memory, for nvcc: every program of RWKV-4 to 7 and of training, for each
// type of activations and parameters.
#include "rwkv/backend/cuda/rows/flat_rows.cuh"
#include "rwkv/backend/cuda/rows/loss.cuh"
#include "rwkv/backend/cuda/rows/memory.cuh"
#include "rwkv/backend/cuda/rows/rows.cuh"
#include "rwkv/backend/rows_back.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/initial_state.hpp"
#include "rwkv/op/mix.hpp"
#include "rwkv/op/norm.hpp"
#include "rwkv/op/time_mix_v7.hpp"
#include "rwkv/train/adamw.hpp"
#include "rwkv/train/average.hpp"
#include "rwkv/train/lora.hpp"

namespace rows_kernels {

using namespace rwkv;

template <class T, class W>
void instantiate(const CudaStream& stream, Arena ws, Seq<T> x, Mat<T> shift, Vec<W> p) {
  const auto run = [&](const auto& program, const auto&... ops) { gpu::rows(stream, false, ws, program, ops...); };
  const auto in = arg::in(x);
  const auto out = arg::out(x);
  const auto c = arg::chan(p);
  run(Normalise{}, in, c, c, out);
  run(NormaliseBack{}, in, c, in, arg::add(x), arg::sum(p), arg::sum(p));
  run(Mix<MixCurrent>{}, in, arg::prev(x, shift), c, c, out, out);
  run(Mix<MixCurrent>{}, in, arg::prev(x, shift), c, c, c, out, out, out);
  run(RowsBack<Mix<MixCurrent>>{}, in, arg::prev(x, shift), c, c, arg::cot(x), arg::cot(x), out,
      arg::back(x, shift, shift), arg::sum(p), arg::sum(p));
  run(RowsBack<Mix<MixCurrent>>{}, in, arg::prev(x, shift), c, c, c, arg::cot(x), arg::cot(x), arg::cot(x), out,
      arg::back(x, shift, shift), arg::sum(p), arg::sum(p), arg::sum(p));
  run(Mix<MixCurrent>{}, in, arg::prev(x, shift), c, c, c, c, out, out, out, out);
  run(RowsBack<Mix<MixCurrent>>{}, in, arg::prev(x, shift), c, c, c, c, arg::cot(x), arg::cot(x), arg::cot(x),
      arg::cot(x), out, arg::back(x, shift, shift), arg::sum(p), arg::sum(p), arg::sum(p), arg::sum(p));
  run(SiluGate{}, in, in, out);
  run(RowsBack<SiluGate>{}, in, in, arg::cot(x), out, out);
  run(NormaliseBack{}, in, c, in, out, arg::sum(p), arg::sum(p));
  run(ExpNegativeExp{}, c, out);
  run(RowsBack<ExpNegativeExp>{}, c, arg::cot(x), arg::sum(p));
  run(SigmoidGate{}, in, in, out);
  run(RowsBack<SigmoidGate>{}, in, in, arg::cot(x), out, out);
  run(EpilogueBack<SquaredRelu>{}, in, in, out);
  run(NegativeExp{}, c, out);
  run(RowsBack<NegativeExp>{}, c, arg::cot(x), arg::sum(p));
  run(Sum{}, in, in, out);
  run(Copy{}, in, arg::add(x));
  run(Copy{}, arg::prev(x, shift), out);
  gpu::fill(stream, shift, T{});
  gpu::gather_rows<T, W>(stream, Mat<const W>{}, nullptr, shift);
  gpu::scatter_add_rows<T, W>(stream, shift, nullptr, Mat<W>{});
  gpu::sum_of_squares<T>(stream, {}, nullptr, nullptr);
}

/// Of RWKV-6 and 7, where activations are float.
template <class W>
void instantiate_later(const CudaStream& stream, Arena ws, Seq<float> x, Mat<float> shift, Vec<W> p) {
  const auto run = [&](const auto& program, const auto&... ops) { gpu::rows(stream, false, ws, program, ops...); };
  const auto in = arg::in(x);
  const auto before = arg::prev(x, shift);
  const auto c = arg::chan(p);
  const auto out = arg::out(x);
  using Previous = Mix<MixPrevious>;
  run(Previous{}, in, before, c, out);
  run(Previous{}, in, before, c, c, out, out);
  run(DataMix<MixPrevious>{}, in, before, c, c, c, c, c, in, in, in, in, in, out, out, out, out, out);
  run(ExpNegativeExp{}, c, in, out);
  run(Previous{}, in, before, c, c, c, c, c, c, out, out, out, out, out, out);
  run(MixValues{}, in, in, in, c, out);
  run(PrepareKeys{}, in, in, in, c, c, c, c, out, out, out, out);
  run(ReadOut{}, in, in, in, in, in, c, c, c, out);
}

/// The adjoints of these.
void instantiate_later_back(const CudaStream& stream, Arena ws, Seq<float> x, Mat<float> shift, Vec<float> p) {
  const auto run = [&](const auto& program, const auto&... ops) { gpu::rows(stream, false, ws, program, ops...); };
  const auto in = arg::in(x);
  const auto before = arg::prev(x, shift);
  const auto c = arg::chan(p);
  const auto cot = arg::cot(x);
  const auto out = arg::out(x);
  const auto back = arg::back(x, shift, shift);
  const auto sum = arg::sum(p);
  using Previous = RowsBack<Mix<MixPrevious>>;
  run(Previous{}, in, before, c, cot, out, back, sum);
  run(Previous{}, in, before, c, c, cot, cot, out, back, sum, sum);
  run(MixCotangents<MixPrevious>{}, in, before, in, in, in, in, in, out, out, out, out, out);
  run(RowsBack<DataMix<MixPrevious, 1>>{}, in, before, c, c, c, c, c, c, in, in, in, in, in, cot, cot, cot, cot, cot,
      cot, out, back, sum, sum, sum, sum, sum, sum, out, out, out, out, out);
  run(RowsBack<ExpNegativeExp>{}, c, in, cot, sum, out);
  run(EpilogueBack<Tanh>{}, in, in, out);
  run(Previous{}, in, before, c, c, c, c, c, c, cot, cot, cot, cot, cot, cot, out, back, sum, sum, sum, sum, sum, sum);
  run(RowsBack<MixValues>{}, in, in, in, c, cot, out, arg::add(x), out, sum);
  run(StagedRowsBack<PrepareKeys, 7, 4>(PrepareKeys{}), in, in, in, c, c, c, c, cot, cot, cot, cot, out, out, out, sum,
      sum, sum, sum);
  run(StagedRowsBack<ReadOut, 8, 1>(ReadOut{}), in, in, in, in, in, c, c, c, cot, out, out, out, out, out, sum, sum,
      sum);
  run(EpilogueBack<Sigmoid>{}, in, in, out);
}

/// Of training alone, where weights are float.
void instantiate_training(const CudaStream& stream, Arena ws, Seq<float> x) {
  const auto run = [&](const auto& program, const auto&... ops) { gpu::rows(stream, false, ws, program, ops...); };
  const auto in = arg::in(x);
  const auto out = arg::out(x);
  run(Exchanged{}, in, in, out, out);
  run(AddScaled{}, in, in, out);
  run(Scaled{}, in, out);
  run(MakeValid<WKV4>{}, in, in, in, out, out, out);
  gpu::cross_entropy<float>(stream, {}, nullptr, {}, nullptr);
  gpu::rows_each<AdamWUpdate, float, 4, 3>(stream, {});
  gpu::rows_each<Averaged, float, 2, 1>(stream, {});
}

void run(const CudaStream& stream, Arena ws) {
  instantiate<float, float>(stream, ws, {}, {}, {});
  instantiate<float, bf16>(stream, ws, {}, {}, {});
  instantiate<float, f16>(stream, ws, {}, {}, {});
  instantiate<bf16, bf16>(stream, ws, {}, {}, {});
  instantiate<f16, f16>(stream, ws, {}, {}, {});
  instantiate_later<float>(stream, ws, {}, {}, {});
  instantiate_later<bf16>(stream, ws, {}, {}, {});
  instantiate_later<f16>(stream, ws, {}, {}, {});
  instantiate_later_back(stream, ws, {}, {}, {});
  instantiate_training(stream, ws, {});
}

}  // namespace rows_kernels
