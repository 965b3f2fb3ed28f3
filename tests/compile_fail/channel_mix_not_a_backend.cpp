// error: rwkv: a backend must have gemm(products...)
#include <rwkv/blocks.hpp>

struct Gpu {};
template class rwkv::ChannelMix<config::AnyVersion, float, Gpu>;
