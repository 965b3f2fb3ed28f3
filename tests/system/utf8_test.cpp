// The laws of the UTF-8 stream: same text for any cut, whole characters only, one U+FFFD per maximal subpart.
#include "rwkv/system/utf8.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using rwkv::is_utf8;
using rwkv::Utf8Stream;

constexpr std::string_view bad = "\xef\xbf\xbd";

// One byte of every class that the standard tells apart, and both ends of the ranges of continuation bytes.
constexpr std::string_view boundary_bytes = "\x41\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xe0\xe1\xed\xf0\xf1\xf4\xf5";

// Decodes a whole string by looking up rows of the table of well-formed sequences.
std::string decode(std::string_view bytes) {
  struct Row {
    std::string_view low, high;
  };
  constexpr std::string_view zero{"\0", 1};
  const std::vector<Row> table = {
      {zero, "\x7f"},
      {"\xc2\x80", "\xdf\xbf"},
      {"\xe0\xa0\x80", "\xe0\xbf\xbf"},
      {"\xe1\x80\x80", "\xec\xbf\xbf"},
      {"\xed\x80\x80", "\xed\x9f\xbf"},
      {"\xee\x80\x80", "\xef\xbf\xbf"},
      {"\xf0\x90\x80\x80", "\xf0\xbf\xbf\xbf"},
      {"\xf1\x80\x80\x80", "\xf3\xbf\xbf\xbf"},
      {"\xf4\x80\x80\x80", "\xf4\x8f\xbf\xbf"},
  };
  const auto byte = [](char c) { return static_cast<unsigned char>(c); };
  std::string text;
  while (!bytes.empty()) {
    std::size_t consumed = 1;
    bool whole = false;
    for (const Row& row : table) {
      std::size_t matched = 0;
      while (matched < row.low.size() && matched < bytes.size() && byte(row.low[matched]) <= byte(bytes[matched]) &&
             byte(bytes[matched]) <= byte(row.high[matched])) {
        ++matched;
      }
      if (matched > 0) {
        consumed = matched;
        whole = matched == row.low.size();
        break;
      }
    }
    text += whole ? bytes.substr(0, consumed) : bad;
    bytes.remove_prefix(consumed);
  }
  return text;
}

// Calls visit(bytes) for all strings of 1 to 4 boundary bytes.
template <class Visit>
void for_all_short_strings(Visit visit) {
  std::vector<std::string> shorter{""};
  for (int length = 1; length <= 4; ++length) {
    std::vector<std::string> strings;
    for (const std::string& head : shorter) {
      for (const char c : boundary_bytes) strings.push_back(head + c);
    }
    for (const std::string& bytes : strings) visit(bytes);
    shorter = std::move(strings);
  }
}

std::string stream_all(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.push(bytes);
  return text += stream.flush();
}

TEST_CASE("the examples of the Unicode Standard for U+FFFD") {
  const auto times = [](int n) {
    std::string text;
    for (int i = 0; i < n; ++i) text += bad;
    return text;
  };
  CHECK(stream_all("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") == times(8) + "A");
  CHECK(stream_all("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41") == times(8) + "A");
  CHECK(stream_all("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42") == times(5) + "A" + times(2) + "B");
  CHECK(stream_all("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == times(4) + "A");
  CHECK(stream_all("\xe2\x82\xac \xf0\x9f\x98\x80") == "\xe2\x82\xac \xf0\x9f\x98\x80");
}

// The hash is that of bytes.decode("utf-8", "replace") in Python 3.11 over the same strings in the same order.
TEST_CASE("all strings of 1 to 4 boundary bytes decode as in Python") {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for_all_short_strings([&](const std::string& bytes) {
    for (const char c : stream_all(bytes)) add(static_cast<unsigned char>(c));
    add(0xff);
  });
  CHECK(hash == 0xff6a82d0a60eab42u);
}

TEST_CASE("all cuts of all strings of 1 to 4 boundary bytes give the same whole characters") {
  int failures = 0;
  for_all_short_strings([&](const std::string& bytes) {
    const std::string expected = decode(bytes);
    const unsigned cut_sets = 1u << (bytes.size() - 1);  // bit i: cut behind byte i
    for (unsigned cuts = 0; cuts < cut_sets; ++cuts) {
      Utf8Stream stream;
      std::string text;
      std::size_t begin = 0;
      for (std::size_t end = 1; end <= bytes.size(); ++end) {
        if (end < bytes.size() && (cuts >> (end - 1) & 1u) == 0) continue;
        const std::string piece = stream.push(std::string_view(bytes).substr(begin, end - begin));
        failures += decode(piece) != piece;
        text += piece;
        begin = end;
      }
      const std::string rest = stream.flush();
      failures += !rest.empty() && rest != bad;
      failures += text + rest != expected;
      failures += !stream.flush().empty();
    }
  });
  CHECK(failures == 0);
}

TEST_CASE("random bytes in random pieces") {
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::size_t i = below(80); i > 0; --i) {
      const bool any = below(2) == 0;
      bytes += any ? static_cast<char>(below(256)) : boundary_bytes[below(boundary_bytes.size())];
    }
    Utf8Stream stream;
    std::string text;
    for (std::size_t begin = 0; begin < bytes.size();) {
      const std::size_t size = std::min(below(6), bytes.size() - begin);
      const std::string piece = stream.push(std::string_view(bytes).substr(begin, size));
      REQUIRE(decode(piece) == piece);
      text += piece;
      begin += size;
    }
    text += stream.flush();
    REQUIRE(text == decode(bytes));
    REQUIRE(is_utf8(bytes) == (decode(bytes) == bytes));
  }
}

TEST_CASE("an unfinished character is held back, a finished one never") {
  Utf8Stream stream;
  CHECK(stream.push("a\xf0") == "a");
  CHECK(stream.push("\x9f").empty());
  CHECK(stream.push("\x98").empty());
  CHECK(stream.push("\x80") == "\xf0\x9f\x98\x80");
  CHECK(stream.flush().empty());
  CHECK(stream.push("\xe2\x82").empty());
  CHECK(stream.flush() == bad);
  CHECK(stream.push("\x82") == bad);
}

}  // namespace
