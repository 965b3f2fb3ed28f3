/// A language model in one scalar, and its gradient.
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

template class rwkv::Gradient<rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>>;
