#pragma once
// How a long computation is asked to end, by Ctrl-C for example.
#include <csignal>

namespace example {

/// The signal that asks the program to end, or 0. A second one ends it at once.
inline volatile std::sig_atomic_t stopped = 0;

inline void stop_when_asked() {
  for (const int signal : {SIGINT, SIGTERM}) {
    std::signal(signal, [](int asked) {
      stopped = asked;
      std::signal(asked, SIG_DFL);
    });
  }
}

}  // namespace example
