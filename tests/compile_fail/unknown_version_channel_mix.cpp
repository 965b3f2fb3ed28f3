// error: rwkv: there is no ChannelMix for this version; pass a version tag such as rwkv::V4 or a type derived from one
#include <rwkv/blocks.hpp>

template class rwkv::ChannelMix<float, float, rwkv::Cpu>;
