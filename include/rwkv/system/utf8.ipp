#pragma once
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY std::string Utf8Stream::push(std::string_view bytes) {
  std::string text;
  text.reserve(held_ + bytes.size());
  for (const char byte : bytes) take(byte, text);
  return text;
}

RWKV_BODY std::string Utf8Stream::flush() {
  std::string text;
  if (held_ != 0) text = replacement;
  held_ = 0;
  return text;
}

RWKV_BODY void Utf8Stream::take(char c, std::string& text) {
  const auto byte = static_cast<unsigned char>(c);
  if (held_ != 0) {
    if (lowest_ <= byte && byte <= highest_) {
      character_[held_++] = c;
      lowest_ = 0x80;
      highest_ = 0xbf;
      if (held_ == length_) {
        text.append(character_, length_);
        held_ = 0;
      }
      return;
    }
    // The sequence breaks off here, and this byte begins anew.
    text += replacement;
    held_ = 0;
  }
  if (byte < 0x80) {
    text += c;
  } else if (0xc2 <= byte && byte <= 0xf4) {
    begin(byte);
    character_[held_++] = c;
  } else {
    text += replacement;
  }
}

/// What may follow a lead byte: table 3-7 of the Unicode Standard. The narrowed second bytes keep out overlong forms
/// (e0, f0), surrogates (ed) and everything above U+10FFFF (f4).
RWKV_BODY void Utf8Stream::begin(unsigned char lead) {
  length_ = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  lowest_ = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  highest_ = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
}

RWKV_BODY bool is_utf8(std::string_view bytes) {
  Utf8Stream stream;
  return stream.push(bytes) == bytes && stream.flush().empty();
}

}  // namespace RWKV_ABI
}  // namespace rwkv
