#pragma once
// The backend of an example from its options, and the version and scalar that suit a file.
#include <rwkv/io/names.hpp>
#include <rwkv/rwkv.hpp>

namespace example {

/// Backends that divide their work among threads.
template <class Backend>
concept Threaded = requires(const Backend& backend) {
  backend.threads();
};

template <class Backend>
Backend backend_for(int threads) {
  if constexpr (Threaded<Backend>) return Backend(threads);
  else return Backend();
}

/// Calls f with the scalar to run a checkpoint in. On the CPU one model runs every number type. On a GPU a step is fused
/// into few kernels where the type is known to the compiler, so there is a model for each.
template <class Backend, class F>
auto with_scalar_for(const std::string& checkpoint, const F& f) {
  if constexpr (Threaded<Backend>) {
    return f(rwkv::AsStored<float>());
  } else {
    const auto file = rwkv::open_tensors(checkpoint);
    const auto* embedding = file.find("emb.weight");
    const auto dtype = embedding == nullptr ? rwkv::DType::f32 : embedding->dtype;
    if (dtype == rwkv::DType::bf16) return f(rwkv::bf16());
    if (dtype == rwkv::DType::f16) return f(rwkv::f16());
    return f(float());
  }
}

/// Calls f with the version of a checkpoint. One that the library does not run is left to loading, which says so.
template <class F>
auto with_version_for(const std::string& checkpoint, const F& f) {
  const auto file = rwkv::open_tensors(checkpoint, {.verify_checksums = false});
  if (rwkv::version_named_by(file) == "RWKV-5.2") return f(rwkv::V5());
  return f(rwkv::V4());
}

}  // namespace example
