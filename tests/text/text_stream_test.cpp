// Text and stop strings against a search of the whole text, however it is cut.
#include "rwkv/text/text_stream.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"

namespace {

using rwkv::Error;
using rwkv::TextStream;
using rwkv::Utf8Stream;

using Strings = std::vector<std::string>;

struct Shown {
  std::string text, stop;
  std::size_t begin = 0;
  bool operator==(const Shown&) const = default;
};

// What a stream of the whole text shows, by a search: the end of each stop string, from the front on.
Shown searched(const std::string& bytes, const Strings& stops) {
  Shown shown;
  std::size_t end = std::string::npos;
  for (const std::string& stop : stops) {
    const std::size_t found = bytes.find(stop);
    if (found == std::string::npos) continue;
    if (found + stop.size() < end || (found + stop.size() == end && stop.size() > shown.stop.size())) {
      end = found + stop.size();
      shown = {"", stop, found};
    }
  }
  Utf8Stream characters;
  shown.text = characters.push(bytes.substr(0, shown.stop.empty() ? bytes.size() : shown.begin));
  shown.text += characters.flush();
  return shown;
}

Shown streamed(const Strings& pieces, const Strings& stops) {
  TextStream stream(stops);
  Shown shown;
  for (const std::string& piece : pieces) shown.text += stream.push(piece);
  shown.text += stream.flush();
  shown.stop = stream.stop();
  shown.begin = stream.stop_begin();
  return shown;
}

TEST_CASE("100 000 random cuts show one text, up to the first stop string") {
  const Strings parts = {
      "a",    "b",   "\n", "\n\n", "User:", "ab", "\xc3\xa9", "\xe2\x9c\xbf", "\xe2\x9c", "\xf0\x9f\x98\x80",
      "\xff", "\xe2"};
  const std::vector<Strings> kinds = {
      {}, {"\n\nUser:", "\nUser:", "\xe2\x9c\xbf"}, {"aab"}, {"aba", "b", "abab"}, {"\xc3\xa9\n", "a\xc3\xa9", "\n\n"}};
  std::mt19937 random(7);
  int failures = 0, stopped = 0;
  for (int text_number = 0; text_number < 2000; ++text_number) {
    std::string bytes;
    for (std::size_t i = random() % 14; i > 0; --i) bytes += parts[random() % parts.size()];
    const Strings& stops = kinds[random() % kinds.size()];
    const Shown expected = searched(bytes, stops);
    stopped += !expected.stop.empty();
    for (int cut = 0; cut < 50; ++cut) {
      Strings pieces;
      for (std::string_view rest = bytes; !rest.empty();) {
        const std::size_t size = std::min<std::size_t>(rest.size(), random() % 6);
        pieces.emplace_back(rest.substr(0, size));
        rest.remove_prefix(size);
      }
      failures += streamed(pieces, stops) != expected;
    }
  }
  CHECK(failures == 0);
  CHECK(stopped > 500);
  CHECK(stopped < 1500);
}

TEST_CASE("text is shown as soon as no stop string can begin in it") {
  TextStream stream({"\n\nUser:", "!"});
  CHECK(stream.longest_stop() == 7);
  CHECK(stream.push("Hi.\n") == "Hi.");
  CHECK(stream.held() == 1);
  CHECK(stream.push("\n") == "");
  CHECK(stream.push("\n") == "\n");
  CHECK(stream.held() == 2);
  CHECK(stream.push("User") == "");
  CHECK(stream.push("s") == "\n\nUsers");
  CHECK(stream.held() == 0);
  CHECK(stream.push("\xe2\x82") == "");
  CHECK(stream.held() == 0);  // part of a character, of no stop string
  CHECK_FALSE(stream.stopped());
  CHECK(stream.push("! and more") == "\xef\xbf\xbd");
  CHECK(stream.stopped());
  CHECK(stream.stop() == "!");
  CHECK(stream.stop_begin() == 13);
  CHECK(stream.push("more") == "");
  CHECK(stream.flush() == "");

  TextStream other({"\n\nUser:"});
  CHECK(other.push("Bye.\n\nUse") == "Bye.");
  CHECK(other.flush() == "\n\nUse");
  CHECK(TextStream().longest_stop() == 0);
  CHECK_THROWS_WITH_AS(TextStream({"a", ""}), "rwkv: a stop string is empty", Error);
}

}  // namespace
