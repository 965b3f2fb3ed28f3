// error: rwkv: the embedding, the body and the head of a model must share one backend and one computing scalar
#include <rwkv/blocks.hpp>

using namespace rwkv;

using Plain = Layer<TimeMix<config::AnyVersion, float, Cpu>, ChannelMix<config::AnyVersion, float, Cpu>>;
template class rwkv::Model<Embedding<float, Cpu>, Stack<Plain>, Head<float, Reference>>;
