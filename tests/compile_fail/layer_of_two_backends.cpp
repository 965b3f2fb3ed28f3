// error: rwkv: the two blocks of a layer must share one backend and one computing scalar
#include <rwkv/blocks.hpp>

using namespace rwkv;

template class rwkv::Layer<TimeMix<config::AnyVersion, float, Cpu>, ChannelMix<config::AnyVersion, float, Reference>>;
