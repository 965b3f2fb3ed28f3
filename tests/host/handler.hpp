#pragma once
// Where the errors of the library go in a host without exceptions: they end the program with status 3.
#include <cstdio>
#include <cstdlib>

[[noreturn]] inline void host_error(const char* sentence) {
  std::puts(sentence);
  std::fflush(stdout);
  std::_Exit(3);
}
