/// Says of each file on the standard input what the library reads in it, for tests/tools/differential.py. A file is its size
/// in 8 bytes, then its bytes. The answer is one line: `error`, a tab and the sentence, or `ok` and for each tensor a tab
/// and its name as hexadecimal digits, number type, sizes and CRC-32, or its name alone where it cannot be read.
#include <cstdint>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/crc32.hpp"

namespace {

std::string hexadecimal(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += digits[byte / 16];
    out += digits[byte % 16];
  }
  return out;
}

std::string answer(std::span<const std::byte> bytes) {
  try {
    const rwkv::TensorFile file = rwkv::open_tensors(bytes, "file");
    std::string line = "ok";
    for (const rwkv::TensorView& tensor : file.tensors()) {
      const std::span<const rwkv::Index> shape = tensor.shape;
      line += rwkv::join("\t", hexadecimal(tensor.name), " ", rwkv::name_of(tensor.dtype), " ", shape, " ",
                         rwkv::detail::crc32(tensor.bytes));
    }
    for (const rwkv::UnreadableTensor& tensor : file.unreadable()) line += "\t" + hexadecimal(tensor.name);
    return line;
  } catch (const rwkv::Error& error) {
    std::string said = error.what();
    for (char& c : said) {
      if (c == '\n') c = ' ';
    }
    return "error\t" + said;
  }
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  std::vector<char> bytes;
  for (std::uint64_t size = 0; std::cin.read(reinterpret_cast<char*>(&size), sizeof size);) {
    bytes.resize(size);
    if (!std::cin.read(bytes.data(), static_cast<std::streamsize>(size))) return 1;
    std::cout << answer(std::as_bytes(std::span(bytes))) << std::endl;
  }
}
