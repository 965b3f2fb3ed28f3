// error: rwkv: the matrices of an AsStored model have the types of their file, so that they are no parameters() of one type
#include <rwkv/blocks.hpp>

void parameters(rwkv::LanguageModel<config::AnyVersion, rwkv::AsStored<float>, rwkv::Cpu>& net) { net.parameters(); }
