// The checked integer against 128-bit arithmetic, and the UTF-8 check against the definition.
#include "rwkv/core/checked.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/utf8.hpp"

using rwkv::Checked;

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t top = std::numeric_limits<std::uint64_t>::max();

void check_equals(Checked number, Wide exact, bool exists) {
  const bool fits = exists && exact <= top;
  CHECK(number.valid() == fits);
  if (fits) CHECK(number.to<std::uint64_t>() == static_cast<std::uint64_t>(exact));
  if (!fits) CHECK_THROWS_AS(number.to<std::uint64_t>("too large"), rwkv::Error);
}

bool is_scalar_value(std::uint32_t code) { return code < 0xd800 || (code > 0xdfff && code < 0x110000); }

std::string encode(std::uint32_t code) {
  const auto part = [&](unsigned shift) { return static_cast<char>(0x80u | (code >> shift & 0x3fu)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0u | code >> 6), part(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0u | code >> 12), part(6), part(0)};
  return {static_cast<char>(0xf0u | code >> 18), part(12), part(6), part(0)};
}

}  // namespace

TEST_CASE("checked integers agree with wider arithmetic") {
  const std::vector<std::uint64_t> edges{0,          1,           2,       3,           7,       8,  64,
                                         0xffffffff, 0x100000000, top / 2, top / 2 + 1, top - 1, top};
  for (const std::uint64_t a : edges) {
    for (const std::uint64_t b : edges) {
      CAPTURE(a);
      CAPTURE(b);
      check_equals(Checked(a) + b, Wide{a} + b, true);
      check_equals(Checked(a) * b, Wide{a} * b, true);
      check_equals(Checked(a) - b, Wide{a} - b, a >= b);
      check_equals(Checked(a).aligned(b), b == 0 ? 0 : (Wide{a} + b - 1) / b * b, b != 0);
      CHECK(Checked(a).equals(b) == (a == b));
      CHECK(Checked(a).at_most(b) == (a <= b));
    }
  }
}

TEST_CASE("an overflow is never forgotten") {
  const Checked lost = Checked(top) + 1;
  for (const Checked number : {lost, lost - 1, lost * 0, lost + 0, Checked(5) - lost, lost.aligned(8), Checked(-1)}) {
    CHECK_FALSE(number.valid());
    CHECK_FALSE(number.equals(0));
    CHECK_FALSE(number.at_most(top));
    CHECK_THROWS_WITH_AS(number.to<int>("the sentence ", 7), "the sentence 7", rwkv::Error);
  }
  CHECK_THROWS_AS(Checked(128).to<std::int8_t>("too large"), rwkv::Error);
  CHECK(Checked(127).to<std::int8_t>() == 127);
}

TEST_CASE("UTF-8: every code point and every pair of bytes") {
  for (std::uint32_t code = 0; code < 0x120000; ++code) {
    const std::string text = encode(code);
    const bool right = rwkv::is_utf8(text) == is_scalar_value(code);
    if (!right) FAIL("code point ", code);
    if (text.size() > 1 && rwkv::is_utf8(text.substr(0, text.size() - 1))) FAIL("cut code point ", code);
  }
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      const std::string text{static_cast<char>(first), static_cast<char>(second)};
      const bool ascii = first < 0x80 && second < 0x80;
      const bool pair = first >= 0xc2 && first < 0xe0 && (second & 0xc0u) == 0x80u;
      if (rwkv::is_utf8(text) != (ascii || pair)) FAIL("bytes ", first, " ", second);
    }
  }
  CHECK_FALSE(rwkv::is_utf8("\xc0\x80"));          // overlong NUL
  CHECK_FALSE(rwkv::is_utf8("\xe0\x80\xaf"));      // overlong slash
  CHECK_FALSE(rwkv::is_utf8("\xf0\x80\x80\xaf"));  // overlong slash
}

TEST_CASE("names from files are checked and shown harmlessly") {
  CHECK(rwkv::detail::is_clean_name("blocks.0.att.key.weight"));
  CHECK(rwkv::detail::is_clean_name("\xe4\xb8\xad"));
  CHECK(rwkv::detail::is_clean_name(std::string(1024, 'a')));
  CHECK_FALSE(rwkv::detail::is_clean_name(std::string(1025, 'a')));
  CHECK_FALSE(rwkv::detail::is_clean_name(""));
  CHECK_FALSE(rwkv::detail::is_clean_name("a\nb"));
  CHECK_FALSE(rwkv::detail::is_clean_name("a\x7f"));
  CHECK_FALSE(rwkv::detail::is_clean_name("\xff"));
  CHECK(rwkv::detail::in_quotes("a\x1b[31m\xff") == "'a\\x1b[31m\\xff'");
  CHECK(rwkv::detail::in_quotes(std::string(200, 'x')) == "'" + std::string(100, 'x') + "...'");
}
