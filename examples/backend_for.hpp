#pragma once
// The backend and the version of an example from its options.
#include <rwkv/rwkv.hpp>

#include <string>
#include <vector>

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

/// The versions of RWKV by name, and a call of f with the tag of one.
inline std::vector<std::string> version_names() { return {"4", "5.2", "6", "7"}; }
template <class F>
auto with_version(const std::string& name, const F& f) {
  if (name == "7") return f(rwkv::V7());
  if (name == "6") return f(rwkv::V6());
  if (name == "5.2") return f(rwkv::V5());
  return f(rwkv::V4());
}

}  // namespace example
