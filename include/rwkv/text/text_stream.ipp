#pragma once
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/text/text_stream.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) expects(!stop.empty(), "rwkv: a stop string is empty");
}

RWKV_BODY std::string TextStream::push(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    if (stopped()) break;
    held_ += byte;
    ++pushed_;
    // held_ was the longest end of the stream that begins a stop string, so a stop string that ends here lies in it.
    for (const std::string& stop : stops_) {
      if (held_.ends_with(stop) && stop.size() > stop_.size()) stop_ = stop;
    }
    if (stopped()) {
      stop_begin_ = pushed_ - stop_.size();
      release(held_.size() - stop_.size(), text);
      held_.clear();
      text += characters_.flush();
      break;
    }
    const auto begins_a_stop = [&](std::size_t from) {
      const std::string_view end = std::string_view(held_).substr(from);
      return std::any_of(stops_.begin(), stops_.end(), [&](const std::string& stop) { return stop.starts_with(end); });
    };
    std::size_t free = 0;
    while (free < held_.size() && !begins_a_stop(free)) ++free;
    release(free, text);
  }
  return text;
}

RWKV_BODY std::string TextStream::flush() {
  std::string text;
  release(held_.size(), text);
  return text + characters_.flush();
}

RWKV_BODY void TextStream::release(std::size_t bytes, std::string& text) {
  text += characters_.push(std::string_view(held_).substr(0, bytes));
  held_.erase(0, bytes);
}

RWKV_BODY std::size_t TextStream::longest_stop() const {
  std::size_t longest = 0;
  for (const std::string& stop : stops_) longest = std::max(longest, stop.size());
  return longest;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
