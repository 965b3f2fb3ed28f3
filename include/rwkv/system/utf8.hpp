#pragma once
/// UTF-8 that arrives in pieces.
#include <cstddef>
#include <string>
#include <string_view>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Decodes a stream of bytes into well-formed UTF-8, whole characters only. Bytes that are no UTF-8 become U+FFFD, one
/// for every maximal subpart of an ill-formed sequence (Unicode Standard, section 3.9), as Python does with
/// errors="replace". The text is the same however the bytes are cut.
class Utf8Stream {
 public:
  /// The text that `bytes` complete. The beginning of an unfinished character is held back: at most three bytes.
  std::string push(std::string_view bytes) {
    std::string text;
    text.reserve(held_ + bytes.size());
    for (const char byte : bytes) take(byte, text);
    return text;
  }

  /// Ends the stream: U+FFFD if a character is unfinished, else nothing. A new stream may follow.
  std::string flush() {
    std::string text;
    if (held_ != 0) text = replacement;
    held_ = 0;
    return text;
  }

 private:
  static constexpr std::string_view replacement = "\xef\xbf\xbd";

  void take(char c, std::string& text) {
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
  void begin(unsigned char lead) {
    length_ = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    lowest_ = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    highest_ = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  }

  char character_[4] = {};
  std::size_t held_ = 0;    // bytes of the unfinished character
  std::size_t length_ = 0;  // bytes it will have
  // What its next byte may be.
  unsigned char lowest_ = 0x80;
  unsigned char highest_ = 0xbf;
};

/// Whether `bytes` are well-formed UTF-8.
inline bool is_utf8(std::string_view bytes) {
  Utf8Stream stream;
  return stream.push(bytes) == bytes && stream.flush().empty();
}

}  // namespace RWKV_ABI
}  // namespace rwkv
