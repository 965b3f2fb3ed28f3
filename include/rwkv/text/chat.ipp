#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/text/chat.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY std::string Chat::begin(std::string_view said) const {
  const std::string text = cleaned(said);
  return text.empty() ? text : system + ' ' + text + separator;
}

RWKV_BODY std::string Chat::ask(std::string_view said) const {
  return user + ' ' + cleaned(said) + separator + assistant + opening;
}

RWKV_BODY std::string Chat::cleaned(std::string_view said) {
  constexpr std::string_view white = " \t\r\n";
  std::string text;
  bool line_ended = false;
  for (const char c : said) {
    if (c == '\r' || c == '\n') {
      line_ended = true;
      continue;
    }
    if (line_ended) text += '\n';
    line_ended = false;
    text += c;
  }
  text.erase(text.find_last_not_of(white) + 1);
  text.erase(0, text.find_first_not_of(white));
  return text;
}

RWKV_BODY Chat Chat::named(std::string_view name) {
  Chat chat;
  if (name == "world") {
    chat.stops = {"\n\n"};
    return chat;
  }
  // The third is the character U+273F.
  chat.stops = {"\n\nUser:", "\nUser:", "\xe2\x9c\xbf", "\n\n### User", "\n### User"};
  if (name == "g1") return chat;
  if (name == "g1-think") {
    chat.opening = " <think";
    return chat;
  }
  expects(name == "g1-fake-think", "rwkv: there is no chat '", name,
          "'; there are world, g1, g1-think and g1-fake-think");
  chat.opening = " <think>\n</think";
  return chat;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
