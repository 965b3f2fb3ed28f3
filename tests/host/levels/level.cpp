// Compiled once for each instruction set, with LOAD defined as the name of its function.
#include "level.hpp"

#include <rwkv/rwkv.hpp>

rwkv::AnyModel LOAD(const std::filesystem::path& path, int threads) {
  using Net = rwkv::LanguageModel<rwkv::V4, rwkv::AsStored<float>, rwkv::Cpu>;
  return rwkv::AnyModel(rwkv::load_checkpoint<Net>(path, {}, rwkv::Cpu(threads)));
}
