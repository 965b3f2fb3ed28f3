#pragma once
// How every example ends: with status 0, or with one sentence on the error output and status 1.
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <stdexcept>

namespace example {

/// Runs a program. What it throws is its sentence; output that did not arrive, on a full disk for example, is an error
/// as well.
template <class Body>
int run_program(const char* name, const Body& body) {
  try {
    const int status = body();
    std::cout.flush();
    if (!std::cout || std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      throw std::runtime_error("the output could not be written");
    }
    return status;
  } catch (const std::bad_alloc&) {
    std::cerr << name << ": there is not enough memory\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 1;
  }
}

}  // namespace example
