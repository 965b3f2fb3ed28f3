// error: rwkv: the scalar parameter must be float, double, bf16, f16, Dual<double> or a Numerics<storage, compute>
// bundle
#include <rwkv/blocks.hpp>

template class rwkv::TimeMix<config::AnyVersion, int, rwkv::Cpu>;
