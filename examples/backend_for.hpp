#pragma once
// The backend of an example from its options.

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

}  // namespace example
