// The kernels of recurrences, for ptxas to say what they take: no warning, no spill, no local array.
#include "../../gates.hpp"
#include "../../simt/cub_scan_kernel.cuh"
#include "rwkv/backend/cuda/recur/recur.cuh"
#include "rwkv/backend/cuda/recur/recur_back.cuh"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv5.hpp"
#include "rwkv/cell/wkv7.hpp"

namespace simt {

using namespace rwkv;

using ChannelCell = WKV4;

/// Every kernel of a forward pass and of its adjoint, with operands stored as U.
template <class U>
void all_kernels(const CudaStream& stream, Arena scratch, Seq<U> x, Vec<accumulator_t<U>> p,
                 Mat<accumulator_t<U>> state) {
  using T = accumulator_t<U>;
  const auto in = arg::in(x);
  const auto chan = arg::chan(p);
  const auto head = arg::shared(in);
  const auto cot = arg::cot(x);
  const auto out = arg::out(x);
  const auto sum = arg::sum(p);
  const Mat<const T> first = state;
  const int* const starts = nullptr;
  gpu::recur(stream, false, scratch, Auto{}, ChannelCell{}, Extent<1>{}, state, chan, chan, in, in, out);
  gpu::recur_packed(stream, false, scratch, Auto{}, ChannelCell{}, Extent<1>{}, state, starts, chan, chan, in, in, out);
  gpu::recur(stream, false, scratch, Auto{}, config::ScannedGate{}, Extent<1>{}, state, in, in, out);
  gpu::recur(stream, false, scratch, Auto{}, WKV7{}, Extent<>{64}, state, in, head, head, head, head, head, out);
  const auto same = arg::shared(chan);
  gpu::recur(stream, false, scratch, Auto{}, WKV5{}, Extent<>{64}, state, in, head, same, same, head, out);
  gpu::recur(stream, false, scratch, Auto{}, WKV5{}, Extent<>{64}, state, in, head, head, same, head, out);
  gpu::recur_back(stream, false, scratch, Auto{}, WKV5{}, Extent<>{64}, first, first, state, in, head, head, same, head,
                  cot, out, out, out, sum, out);
  gpu::recur_back(stream, false, scratch, Auto{}, WKV5{}, Extent<>{64}, first, first, state, in, head, same, same, head,
                  cot, out, out, sum, sum, out);
  gpu::recur_back(stream, false, scratch, Auto{}, WKV7{}, Extent<>{64}, first, first, state, in, head, head, head, head,
                  head, cot, arg::add(x), arg::add(x), out, arg::add(x), out, out);
  gpu::recur_back(stream, false, scratch, Auto{}, ChannelCell{}, Extent<1>{}, first, first, state, chan, chan, in, in,
                  cot, sum, sum, out, out);
  gpu::recur_back_packed(stream, false, scratch, Auto{}, ChannelCell{}, Extent<1>{}, first, first, state, starts, chan,
                         chan, in, in, cot, sum, sum, out, out);
  gpu::recur_back(stream, false, scratch, Auto{}, config::ScannedGate{}, Extent<1>{}, first, first, state, in, in, cot,
                  out, out);
}
/// The kernels of chunks, for heads of N components.
template <class U, Index N>
void chunk_kernels(const CudaStream& stream, Arena scratch, Extent<N> length, Seq<U> x, Vec<accumulator_t<U>> p,
                   Mat<accumulator_t<U>> state) {
  const auto in = arg::in(x);
  const auto head = arg::shared(in);
  const auto same = arg::shared(arg::chan(p));
  const auto cot = arg::cot(x);
  const auto out = arg::out(x);
  const auto sum = arg::sum(p);
  const Mat<const accumulator_t<U>> first = state;
  gpu::recur(stream, false, scratch, Chunked{}, WKV5{}, length, state, in, head, head, same, head, out);
  gpu::recur(stream, false, scratch, Chunked{}, WKV7{}, length, state, in, head, head, head, head, head, out);
  gpu::recur_back(stream, false, scratch, Chunked{}, WKV5{}, length, first, first, state, in, head, head, same, head,
                  cot, out, out, out, sum, out);
  gpu::recur_back(stream, false, scratch, Chunked{}, WKV7{}, length, first, first, state, in, head, head, head, head,
                  head, cot, arg::add(x), arg::add(x), out, arg::add(x), out, out);
}
template void chunk_kernels(const CudaStream&, Arena, Extent<>, Seq<float>, Vec<float>, Mat<float>);
template void chunk_kernels(const CudaStream&, Arena, Extent<64>, Seq<bf16>, Vec<float>, Mat<float>);
template void chunk_kernels(const CudaStream&, Arena, Extent<128>, Seq<bf16>, Vec<float>, Mat<float>);
template void chunk_kernels(const CudaStream&, Arena, Extent<16>, Seq<bf16>, Vec<float>, Mat<float>);

template void all_kernels(const CudaStream&, Arena, Seq<float>, Vec<float>, Mat<float>);
template void all_kernels(const CudaStream&, Arena, Seq<bf16>, Vec<float>, Mat<float>);
template void all_kernels(const CudaStream&, Arena, Seq<f16>, Vec<float>, Mat<float>);

/// Scans by CUB.
void cub_kernels(const CudaStream& stream, Arena scratch, const ChannelCell::Stretch<One<float>>* from,
                 ChannelCell::Stretch<One<float>>* to, const float* x, float* y) {
  scan_stretches<ChannelCell>(stream, false, scratch, from, to, 1000);
  stream.launch({.grid = {1}, .block = {128}}, block_scan_kernel<config::ScannedGate, float, 128>, x, 1000, y, y);
}

}  // namespace simt
