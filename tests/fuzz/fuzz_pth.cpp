// Any bytes as a .pth file. Input that does not start like a zip archive is taken as the pickle inside a good archive.
// Checksums are not verified, because no mutation would get past them.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "../io/builders.hpp"
#include "fuzz_tensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text.starts_with("PK")) {
    open_and_check(std::as_bytes(std::span(data, size)), false);
  } else {
    const std::string file = build::pth(text).file();
    open_and_check(std::as_bytes(std::span(file)), false);
  }
  return 0;
}
