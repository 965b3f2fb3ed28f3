/// The building blocks as a CUDA compiler sees them: a .cu file may hold a model that runs on the CPU.
#include "rwkv/blocks.hpp"

using Version = rwkv::V4;

template class rwkv::Model<
    rwkv::Embedding<float, rwkv::Cpu>,
    rwkv::Stack<rwkv::Layer<rwkv::TimeMix<Version, float, rwkv::Cpu>, rwkv::ChannelMix<Version, float, rwkv::Cpu>>>,
    rwkv::Head<float, rwkv::Cpu>>;
template class rwkv::TimeMix<Version, double, rwkv::Reference>;
template class rwkv::ChannelMix<Version, double, rwkv::Reference>;
