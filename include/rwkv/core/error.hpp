#pragma once
/// The one exception type of the library and the helpers that raise it.
#include <charconv>
#include <concepts>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What the library throws for bad input. The text names the thing, and both shapes where shapes disagree.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, char part) { text += part; }

template <class T>
requires(std::integral<T> || std::floating_point<T>) void append(std::string& text, T part) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, part).ptr;
  text.append(digits, end);
}

/// A shape, printed as `[2048, 2560]`.
template <class T, std::size_t N>
void append(std::string& text, std::span<T, N> sizes) {
  text += '[';
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (i != 0) text += ", ";
    append(text, sizes[i]);
  }
  text += ']';
}

}  // namespace detail

/// Joins strings, numbers and shapes (spans of integers) into one sentence.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::string text;
  (detail::append(text, parts), ...);
  return text;
}

/// Throws an Error whose text is the joined parts.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  RWKV_THROW(Error(join(parts...)));
}

/// Throws an Error with the joined parts unless `holds`.
template <class... Parts>
void expects(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    fail(parts...);
}

/// Checks what only a programming mistake can break; compiled away when RWKV_CHECKED is 0.
template <class... Parts>
void asserts([[maybe_unused]] bool holds, [[maybe_unused]] const Parts&... parts) {
  if constexpr (RWKV_CHECKED != 0) expects(holds, parts...);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
