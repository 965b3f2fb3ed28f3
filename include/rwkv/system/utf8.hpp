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
  std::string push(std::string_view bytes);

  /// Ends the stream: U+FFFD if a character is unfinished, else nothing. A new stream may follow.
  std::string flush();

 private:
  static constexpr std::string_view replacement = "\xef\xbf\xbd";

  void take(char c, std::string& text);
  void begin(unsigned char lead);

  char character_[4] = {};
  std::size_t held_ = 0;    // bytes of the unfinished character
  std::size_t length_ = 0;  // bytes it will have
  // What its next byte may be.
  unsigned char lowest_ = 0x80;
  unsigned char highest_ = 0xbf;
};

/// Whether `bytes` are well-formed UTF-8.
bool is_utf8(std::string_view bytes);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/utf8.ipp"
#endif
