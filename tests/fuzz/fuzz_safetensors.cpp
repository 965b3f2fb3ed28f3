// Any bytes as a .safetensors file. Input that does not start like one is taken as a header that lacks only its length.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "fuzz_tensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  open_and_check(bytes, true);
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text.starts_with('{')) {
    std::string file(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(std::uint64_t{size} >> (8 * i) & 0xffu);
    file += text;
    open_and_check(std::as_bytes(std::span(file)), true);
  }
  return 0;
}
