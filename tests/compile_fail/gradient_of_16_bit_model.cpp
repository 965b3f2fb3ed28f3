// error: rwkv: a model is trained in float or double; 16 bits would round small updates away
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

template class rwkv::Gradient<rwkv::LanguageModel<config::AnyVersion, rwkv::bf16, rwkv::Cpu>>;
