// Hostile vocabulary files: whatever the bytes, the reader accepts them or throws rwkv::Error, and a tokenizer that
// comes out decodes what it encodes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/text/tokenizer.hpp"

namespace {

// Lines for all single bytes, with ids from 1000, so that ids from 1 are left to the input.
std::string single_bytes() {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned byte = 0; byte < 256; ++byte) {
    text += std::to_string(byte + 1000) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  }
  return text;
}

void check_tokenizer(std::string_view vocabulary, std::string_view sample) {
  try {
    const rwkv::Tokenizer tokenizer = rwkv::Tokenizer::world(vocabulary, "fuzz");
    const std::vector<rwkv::Token> tokens = tokenizer.encode(sample);
    if (tokenizer.decode(tokens) != sample) std::abort();
    for (const rwkv::Token token : tokens) {
      if (tokenizer.encode(tokenizer.decode(token)) != std::vector<rwkv::Token>{token}) std::abort();
    }
  } catch (const rwkv::Error&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string bytes = single_bytes();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // Alone the input is rarely a whole vocabulary; behind the single bytes every one of its lines counts.
  check_tokenizer(input, input);
  check_tokenizer(bytes + std::string(input), input);
  return 0;
}
