/// The recurrences of the library and a user's own as GPU kernels: they must compile without a warning, spill or local
/// array, within the registers of registers.txt.
#include "leaky_gate.hpp"
#include "recur_kernel.cuh"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv7.hpp"

namespace simt {

using In = rwkv::arg::In<float, rwkv::dyn>;
using Chan = rwkv::arg::Chan<float, rwkv::dyn>;
using Head = rwkv::arg::Shared<In>;
using Out = rwkv::arg::Out<float, rwkv::dyn>;
using State = rwkv::Mat<float>;

template __global__ void recur_kernel<rwkv::WKV4, 1, float, Without::nothing>(State, Chan, Chan, In, In, Out);
template __global__ void recur_kernel<rwkv::WKV7, 64, float, Without::nothing>(State, In, Head, Head, Head, Head, Head,
                                                                               Out);
template __global__ void recur_kernel<LeakyGate, 1, float, Without::nothing>(State, In, In, Out);

}  // namespace simt
