#include "gpu_model.hpp"

#include <rwkv/cuda.cuh>

rwkv::AnyModel load_on_gpu(const std::filesystem::path& checkpoint) {
  using Net = rwkv::LanguageModel<rwkv::V4, rwkv::bf16, rwkv::Cuda>;
  return rwkv::AnyModel(rwkv::load_checkpoint<Net>(checkpoint, {}, rwkv::Cuda()));
}
