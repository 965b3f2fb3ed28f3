#pragma once
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

RWKV_BODY std::string in_quotes(std::string_view name) {
  constexpr std::size_t longest = 100;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text = "'";
  for (const char c : name.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      text += c;
    } else {
      text += "\\x";
      text += digits[byte >> 4];
      text += digits[byte & 15u];
    }
  }
  return text + (name.size() > longest ? "...'" : "'");
}

RWKV_BODY bool is_clean_name(std::string_view name) {
  if (name.empty() || name.size() > 1024) return false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    const auto next = static_cast<unsigned char>(i + 1 < name.size() ? name[i + 1] : 0);
    const bool is_control = byte < 0x20 || byte == 0x7f || (byte == 0xc2 && next < 0xa0);
    if (is_control) return false;
  }
  return is_utf8(name);
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
