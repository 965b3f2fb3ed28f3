// Any bytes as a GGUF file. Input that does not start like one is taken as what stands behind the magic and the version.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "fuzz_tensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.starts_with("GGUF")) {
    open_and_check(std::as_bytes(std::span(data, size)), true);
  } else {
    std::string file("GGUF\3\0\0\0", 8);
    file += text;
    open_and_check(std::as_bytes(std::span(file)), true);
  }
  return 0;
}
