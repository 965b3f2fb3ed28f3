// error: rwkv: the body of a model is a Stack, which repeats a layer or a chain: Stack<Chain<...>, 1> for one
#include <rwkv/blocks.hpp>

using namespace rwkv;

using Plain = Layer<TimeMix<config::AnyVersion, float, Cpu>, ChannelMix<config::AnyVersion, float, Cpu>>;
template class rwkv::Model<Embedding<float, Cpu>, Chain<Plain, Plain>, Head<float, Cpu>>;
