#pragma once
/// The one exception type of the library and the helpers that raise it.
#include <charconv>
#include <concepts>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What the library throws for bad input. The text names the thing, and both shapes where shapes disagree.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

/// A part of a sentence: text, a number, or a shape (a span of sizes), which is printed as `[2048, 2560]`. The kind is
/// a run-time value, so that one function joins the parts of every sentence and the code stays small.
class Part {
 public:
  template <std::convertible_to<std::string_view> T>
  Part(const T& text) : kind_(Kind::text), text_(text) {}
  Part(char letter) : kind_(Kind::letter), letter_(letter) {}
  template <std::signed_integral T>
  Part(T number) : kind_(Kind::integer), integer_(number) {}
  template <std::unsigned_integral T>
  Part(T number) : kind_(Kind::natural), natural_(number) {}
  Part(float number) : kind_(Kind::single), single_(number) {}
  Part(double number) : kind_(Kind::real), real_(number) {}
  template <std::size_t N>
  Part(std::span<Index, N> sizes) : kind_(Kind::shape), shape_(sizes) {}
  template <std::size_t N>
  Part(std::span<const Index, N> sizes) : kind_(Kind::shape), shape_(sizes) {}

  void append_to(std::string& text) const {
    switch (kind_) {
      case Kind::text: text += text_; break;
      case Kind::letter: text += letter_; break;
      case Kind::integer: append(text, integer_); break;
      case Kind::natural: append(text, natural_); break;
      case Kind::single: append(text, single_); break;
      case Kind::real: append(text, real_); break;
      case Kind::shape:
        text += '[';
        for (std::size_t i = 0; i < shape_.size(); ++i) {
          if (i != 0) text += ", ";
          append(text, shape_[i]);
        }
        text += ']';
        break;
    }
  }

 private:
  enum class Kind : unsigned char { text, letter, integer, natural, single, real, shape };

  template <class T>
  static void append(std::string& text, T number) {
    char digits[64];
    text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }

  Kind kind_;
  union {
    std::string_view text_;
    char letter_;
    long long integer_;
    unsigned long long natural_;
    float single_;
    double real_;
    std::span<const Index> shape_;
  };
};

inline std::string joined(std::initializer_list<Part> parts) {
  std::string text;
  for (const Part& part : parts) part.append_to(text);
  return text;
}

}  // namespace detail

/// Joins strings, numbers (but long double) and shapes (spans of Index) into one sentence.
template <class... Parts>
std::string join(const Parts&... parts) {
  return detail::joined({detail::Part(parts)...});
}

/// Throws an Error whose text is the joined parts.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  RWKV_THROW(Error(detail::joined({detail::Part(parts)...})));
}

/// Throws an Error with the joined parts unless `holds`.
template <class... Parts>
void expects(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    fail(parts...);
}

/// Checks a condition that only a programming mistake can break; compiled away when RWKV_CHECKED is 0.
template <class... Parts>
void asserts([[maybe_unused]] bool holds, [[maybe_unused]] const Parts&... parts) {
  if constexpr (RWKV_CHECKED != 0) expects(holds, parts...);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
