/// The building blocks as a CUDA compiler sees them: a .cu file may hold a model that runs on the CPU.
#include "rwkv/blocks.hpp"

template class rwkv::Model<
    rwkv::Embedding<float, rwkv::Cpu>,
    rwkv::Stack<rwkv::Layer<rwkv::TimeMix<rwkv::V4, float, rwkv::Cpu>, rwkv::ChannelMix<rwkv::V4, float, rwkv::Cpu>>>,
    rwkv::Head<float, rwkv::Cpu>>;
template class rwkv::TimeMix<rwkv::V4, double, rwkv::Reference>;
template class rwkv::ChannelMix<rwkv::V4, double, rwkv::Reference>;
