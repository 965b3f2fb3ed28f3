#pragma once
/// A model of whatever version and number type a checkpoint has, for programs that do not choose at compile time.
#include <filesystem>
#include <string_view>
#include <utility>

#include "rwkv/fwd.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/model/any_model.hpp"
#include "rwkv/model/model.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Calls f(V()) with the version tag V of a checkpoint, and returns what it returns.
/// Errors    a file with the names of no version
template <class F>
auto with_version_of(const OfficialNames& names, F&& f) {
  const OfficialVersion* version = version_named_by(names);
  if (version == nullptr) {
    static_cast<void>(sizes_of_model(names));  // says what the file is, if it is no checkpoint at all
    fail(detail::path_text(names.file().path()), ": its names are those of no version of RWKV");
  }
  return with_version(version->name, std::forward<F>(f));
}

namespace detail {
/// Whether a backend fuses the steps of a version's layers where the compiler knows the type of the weights.
template <class V, class B, class L = Layer<TimeMix<V, float, B>, ChannelMix<V, float, B>>>
concept FusesSteps = requires(B be, Arena ws, const L& layer, Seq<const float> x, typename L::State& state,
                              Seq<float> y) {
  be.layer_step(ws, layer, x, state, y);
};
}  // namespace detail

/// A model from a .safetensors, .pth or .gguf file, an index of shards or a folder (see open_tensors), which runs in float on
/// the backend B and keeps the number types of the file, as AsStored<float> does; where a backend fuses steps, all weights
/// take the type of the embedding. Every version is compiled, by rwkv::compiled once; a program that knows its version saves
/// the others with load_checkpoint. For errors and options see there.
template <class B = Cpu>
AnyModel load_model(const std::filesystem::path& path, B backend = {}, const LoadOptions& options = {},
                    FileSystem& files = system_files()) {
  const TensorFile file = open_tensors(path, {options.access, options.verify_checksums}, files);
  return with_version_of(file, [&]<class V>(V) {
    const auto load = [&]<class S>(S) {
      return AnyModel(load_checkpoint<LanguageModel<V, S, B>>(file, options, std::move(backend)));
    };
    if constexpr (detail::FusesSteps<V, B>) {
      const OfficialNames names(file);
      const OfficialTensor* embedding = names.find("emb.weight");
      const DType type = embedding == nullptr ? DType::f32 : embedding->dtype;
      if (type == DType::bf16) return load(bf16());
      if (type == DType::f16) return load(f16());
      return load(float());
    } else {
      return load(AsStored<float>());
    }
  });
}

#ifdef RWKV_COMPILED
extern template AnyModel load_model(const std::filesystem::path&, Cpu, const LoadOptions&, FileSystem&);
#endif

}  // namespace RWKV_ABI
}  // namespace rwkv
