/// Models on the CUDA backend whose matrices keep the number types of their file.
#include <doctest/doctest.h>

#include <rwkv/cuda.cuh>
#include <rwkv/rwkv.hpp>

#include "../io/checks.hpp"
#include "../model/live.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using golden::relative_error;

namespace {

constexpr ModelSizes sizes{.vocab = 31, .width = 24, .depth = 2, .ffn = 40};

template <class S, class B>
std::vector<float> logits_of(const std::filesystem::path& path, const ContextOptions& options) {
  const auto net = load_checkpoint<LanguageModel<config::AnyVersion, S, B>>(path);
  return config::all_logits(net, config::some_tokens(7, sizes.vocab), options);
}

}  // namespace

TEST_CASE("simt: a model AsStored runs files of every type") {
  const build::Folder folder;
  const auto net = config::live<LanguageModel<config::AnyVersion, float, Cpu>>(sizes, Cpu());
  save_checkpoint<float>(net, folder / "f32");
  save_checkpoint<bf16>(net, folder / "bf16");
  save_checkpoint<f16>(net, folder / "f16");
  for (const char* name : {"f32", "bf16", "f16"}) {
    CAPTURE(name);
    const auto want = logits_of<AsStored<float>, Cpu>(folder / name, {});
    CHECK(relative_error(logits_of<AsStored<float>, Cuda>(folder / name, {}), want) < 2e-5);
    CHECK(relative_error(logits_of<AsStored<float>, Cuda>(folder / name, {.chunk = 1}), want) < 2e-5);
  }

  // Matrices of two types in one launch's list.
  std::vector<TensorView> tensors;
  std::vector<TensorFile> files{open_tensors(folder / "f32"), open_tensors(folder / "bf16")};
  for (const TensorView& tensor : files[0].tensors()) {
    tensors.push_back(tensor.name.ends_with("key.weight") ? *files[1].find(tensor.name) : tensor);
  }
  save_safetensors(folder / "mixed", tensors);
  CHECK(relative_error(logits_of<AsStored<float>, Cuda>(folder / "mixed", {}),
                       logits_of<AsStored<float>, Cpu>(folder / "mixed", {})) < 2e-5);
}
