// error: rwkv: the layers of a chain must share one backend and one computing scalar
#include <rwkv/blocks.hpp>

using namespace rwkv;

template <class B>
using Plain = Layer<TimeMix<config::AnyVersion, float, B>, ChannelMix<config::AnyVersion, float, B>>;
template class rwkv::Chain<Plain<Cpu>, Plain<Reference>>;
