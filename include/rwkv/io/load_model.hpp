#pragma once
/// A model of whatever version and number type a checkpoint has, for programs that do not choose at compile time.
#include <filesystem>
#include <string>
#include <utility>

#include "rwkv/backend/cpu.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/model/any_model.hpp"
#include "rwkv/model/model.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Calls f(V()) with the version tag V of a checkpoint, and returns what it returns.
/// Errors    names of a version that the library does not run; of no version
template <class F>
auto with_version_of(const OfficialNames& names, F&& f) {
  const std::string_view version = version_named_by(names);
  if (version == "RWKV-7") return f(V7());
  if (version == "RWKV-6") return f(V6());
  if (version == "RWKV-5.2") return f(V5());
  if (version != "RWKV-4") {
    static_cast<void>(sizes_of_model(names));  // says what the file is, if it is no checkpoint at all
    fail(detail::path_text(names.file().path()), version.empty() ? ": its names are those of no version of RWKV" : ": ",
         version, version.empty() ? "" : " is no version that this library runs");
  }
  return f(V4());
}

/// A model from a .safetensors or .pth file, an index of shards or a folder (see open_tensors), which runs in float on the backend B and keeps the
/// number types of the file, as AsStored<float> does on the CPU. Every version is compiled, by rwkv::compiled once; a
/// program that knows its version saves the others with load_checkpoint. For errors and options see there.
template <class B>
AnyModel load_model(const std::filesystem::path& path, B backend = {}, const LoadOptions& options = {},
                    FileSystem& files = system_files()) {
  const TensorFile file = open_tensors(path, {options.access, options.verify_checksums}, files);
  return with_version_of(file, [&]<class V>(V) {
    const auto load = [&]<class S>(S) {
      return AnyModel(load_checkpoint<LanguageModel<V, S, B>>(file, options, std::move(backend)));
    };
    if constexpr (host_reaches<B>) {
      return load(AsStored<float>());
    } else {
      // Steps are fused for types that the compiler knows.
      const OfficialNames names(file);
      const OfficialTensor* embedding = names.find("emb.weight");
      const DType type = embedding == nullptr ? DType::f32 : embedding->dtype;
      if (type == DType::bf16) return load(bf16());
      if (type == DType::f16) return load(f16());
      return load(float());
    }
  });
}

#ifdef RWKV_COMPILED
extern template AnyModel load_model(const std::filesystem::path&, Cpu, const LoadOptions&, FileSystem&);
#endif

}  // namespace RWKV_ABI
}  // namespace rwkv
