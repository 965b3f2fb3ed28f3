#pragma once
// What the options of examples name: backends and versions.
#include <rwkv/rwkv.hpp>

#include <string>
#include <string_view>
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

/// The names of the versions without "RWKV-", such as "5.2", oldest first.
inline std::vector<std::string> version_names() {
  std::vector<std::string> names;
  for (const auto* version : rwkv::official_versions) {
    names.insert(names.begin(), std::string(version->name.substr(std::string_view("RWKV-").size())));
  }
  return names;
}

}  // namespace example
