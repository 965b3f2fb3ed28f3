// error: rwkv: a model is trained in float or double
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

template class rwkv::Gradient<rwkv::LanguageModel<config::AnyVersion, rwkv::AsStored<float>, rwkv::Cpu>>;
