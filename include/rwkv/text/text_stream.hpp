#pragma once
/// Text that arrives in pieces and ends at a stop string.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Turns the bytes of tokens into text to show: whole UTF-8 characters (see Utf8Stream), up to the first stop string.
/// Of several stop strings the one that is complete first counts; of those that are complete at the same byte, the
/// longest. The text is the same however the bytes are cut.
class TextStream {
 public:
  /// Errors    an empty stop string
  explicit TextStream(std::vector<std::string> stops = {});

  /// The text that `bytes` complete. What may begin a stop string, or a character, is held back. When a stop string is
  /// complete, the text before it is, too: an unfinished character there becomes U+FFFD, and later bytes are ignored.
  std::string push(std::string_view bytes);

  /// Ends the stream: what was held back, for it is no stop string; U+FFFD if a character is unfinished.
  std::string flush();

  /// Whether a stop string is complete; which it is, empty before; how many of the bytes pushed come before it.
  bool stopped() const { return !stop_.empty(); }
  /// The stop string that was met.
  const std::string& stop() const { return stop_; }
  /// Where it begins, in bytes of all that was pushed.
  std::size_t stop_begin() const { return stop_begin_; }

  /// How many of the last bytes may begin a stop string.
  std::size_t held() const { return held_.size(); }

  /// Bytes of the longest stop string.
  std::size_t longest_stop() const;

 private:
  void release(std::size_t bytes, std::string& text);

  std::vector<std::string> stops_;
  std::string held_, stop_;
  std::size_t pushed_ = 0, stop_begin_ = 0;
  Utf8Stream characters_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/text/text_stream.ipp"
#endif
