// error: rwkv: there is no ChannelMix for this version; pass a version tag
#include <rwkv/blocks.hpp>

template class rwkv::ChannelMix<float, float, rwkv::Cpu>;
