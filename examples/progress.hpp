#pragma once
// What a long computation shows while it runs.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace example {

/// Seconds since some fixed moment.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// As printf.
template <class... Numbers>
std::string text(const char* format, Numbers... numbers) {
  char line[200];
  std::snprintf(line, sizeof line, format, numbers...);
  return line;
}

/// `4:05` or `1:04:05`.
inline std::string clock_time(double seconds) {
  const long all = static_cast<long>(seconds);
  return all < 3600 ? text("%ld:%02ld", all / 60, all % 60)
                    : text("%ld:%02ld:%02ld", all / 3600, all / 60 % 60, all % 60);
}

/// On a terminal one line that is rewritten in place, in a file or pipe a plain line every ten seconds; and lines that
/// stay.
class Progress {
 public:
  /// Shows what `line()` returns when it is time to.
  template <class Line>
  void update(const Line& line) {
    if (now() - shown_ < (terminal_ ? 0.2 : 10)) return;
    shown_ = now();
    std::printf(terminal_ ? "\r%s\x1b[K" : "%s\n", line().c_str());
    std::fflush(stdout);
  }

  void print(const std::string& line) {
    std::printf(terminal_ ? "\r%s\x1b[K\n" : "%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  double shown_ = now();
};

}  // namespace example
