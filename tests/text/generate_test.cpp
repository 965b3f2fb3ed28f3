// generate() with a context that plays back a script.
#include "rwkv/text/generate.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/text/sampler.hpp"

namespace {

using rwkv::argmax;
using rwkv::Error;
using rwkv::Finish;
using rwkv::generate;
using rwkv::GenerateStats;
using rwkv::Index;
using rwkv::Sampler;
using rwkv::Token;
using rwkv::Tokenizer;
using rwkv::Utf8Stream;

// Wants the tokens of a script one after the other, and remembers what it was fed.
struct Script {
  std::vector<Token> script;
  std::vector<Token> prompt{};
  std::vector<Token> stepped{};
  std::vector<float> logits = std::vector<float>(512);

  std::span<const float> prefill(std::span<const Token> tokens) {
    prompt.assign(tokens.begin(), tokens.end());
    return next();
  }
  std::span<const float> step(Token token) {
    stepped.push_back(token);
    return next();
  }
  std::span<const float> next() {
    std::fill(logits.begin(), logits.end(), -1.0f);
    if (stepped.size() < script.size()) logits[static_cast<std::size_t>(script[stepped.size()])] = 1;
    return logits;
  }
};

const auto greedy = [](std::span<const float> logits) { return argmax(logits); };

// A World vocabulary of the single bytes (token = byte + 1) and the tokens of `lines`.
Tokenizer small_world(const std::string& lines) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned byte = 0; byte < 256; ++byte) {
    text += std::to_string(byte + 1) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  }
  return Tokenizer::world(text + lines, "small");
}

TEST_CASE("text comes in whole characters, whatever the tokens cut") {
  const std::string text = "a\xe2\x82\xac\xf0\x9f\x98\x80!";
  const Tokenizer bytes = Tokenizer::bytes();
  Script context{bytes.encode(text)};
  std::vector<std::string> pieces;
  const GenerateStats stats = generate(context, bytes, "hi", 9, greedy, [&](std::string_view piece) {
    pieces.emplace_back(piece);
    return true;
  });
  CHECK(pieces == std::vector<std::string>{"a", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "!"});
  CHECK(stats.finish == Finish::length);
  CHECK(stats.prompt_tokens == 2);
  CHECK(stats.new_tokens == 9);
  CHECK(stats.prefill_seconds >= 0);
  CHECK(stats.decode_seconds > 0);
  CHECK(stats.decode_tokens_per_second() == 9 / stats.decode_seconds);
  CHECK(context.prompt == std::vector<Token>{'h', 'i'});
  CHECK(context.stepped == context.script);
}

TEST_CASE("an unfinished character at the end and bytes that are no text become U+FFFD") {
  const Tokenizer bytes = Tokenizer::bytes();
  const std::string noise = "x\xff\xe2\x82";
  for (std::size_t length = 0; length <= noise.size(); ++length) {
    Script context{bytes.encode(noise)};
    std::string text;
    generate(context, bytes, "p", static_cast<Index>(length), greedy, [&](std::string_view piece) {
      CHECK(rwkv::is_utf8(piece));
      CHECK_FALSE(piece.empty());
      text += piece;
      return true;
    });
    Utf8Stream stream;
    std::string expected = stream.push(noise.substr(0, length));
    expected += stream.flush();
    CHECK(text == expected);
  }
}

TEST_CASE("the end of text stops a World model, and is neither emitted nor fed back") {
  const Tokenizer tokenizer = small_world("257 'ab' 2\n258 b'\\x82\\xac!' 3\n");
  Script context{{257, 0xe2 + 1, 258, 257, 0, 257}};
  std::string text;
  const auto collect = [&](std::string_view piece) {
    text += piece;
    return true;
  };
  const GenerateStats stats = generate(context, tokenizer, "abc", 100, greedy, collect);
  CHECK(text == "ab\xe2\x82\xac!ab");
  CHECK(stats.finish == Finish::end_of_text);
  CHECK(stats.new_tokens == 4);
  CHECK(context.prompt == std::vector<Token>{257, 'c' + 1});
  CHECK(context.stepped == std::vector<Token>{257, 0xe2 + 1, 258, 257});

  // For the byte tokenizer, token 0 is the byte 0, a character like any other.
  Script zero{{0, 'a', 0}};
  text.clear();
  CHECK(generate(zero, Tokenizer::bytes(), "p", 3, greedy, collect).finish == Finish::length);
  CHECK(text == std::string("\0a\0", 3));
}

TEST_CASE("emit cancels, and the context has seen what was emitted") {
  const Tokenizer bytes = Tokenizer::bytes();
  Script context{bytes.encode("abc\xe2")};
  std::string text;
  const auto until_b = [&](std::string_view piece) {
    text += piece;
    return piece != "b";
  };
  const GenerateStats stats = generate(context, bytes, "p", 100, greedy, until_b);
  CHECK(stats.finish == Finish::cancelled);
  CHECK(text == "ab");
  CHECK(stats.new_tokens == 2);
  CHECK(context.stepped == std::vector<Token>{'a', 'b'});

  // A token with the beginning of a character: after the cancellation its end is no U+FFFD.
  const Tokenizer tokenizer = small_world("257 b'z\\xe2' 2\n");
  Script split{{257}};
  int calls = 0;
  generate(split, tokenizer, "p", 5, greedy, [&](std::string_view piece) {
    ++calls;
    CHECK(piece == "z");
    return false;
  });
  CHECK(calls == 1);
}

TEST_CASE("nothing to do and nothing to go on from") {
  const Tokenizer bytes = Tokenizer::bytes();
  Script context{bytes.encode("abc")};
  const auto never = [](std::string_view) -> bool { throw 1; };
  const GenerateStats stats = generate(context, bytes, "p", 0, greedy, never);
  CHECK(stats.new_tokens == 0);
  CHECK(stats.prompt_tokens == 1);
  CHECK(stats.decode_tokens_per_second() == 0);
  CHECK(context.stepped.empty());
  CHECK_THROWS_WITH_AS(generate(context, bytes, "", 5, greedy, never), doctest::Contains("prompt is empty"), Error);
  CHECK_THROWS_WITH_AS(generate(context, bytes, "p", -1, greedy, never), doctest::Contains("not -1"), Error);
}

TEST_CASE("a sampler picks, and its errors pass through") {
  const Tokenizer bytes = Tokenizer::bytes();
  Script context{bytes.encode("hello")};
  Sampler pick{.temperature = 0};
  std::string text;
  const auto collect = [&](std::string_view piece) {
    text += piece;
    return true;
  };
  generate(context, bytes, "p", 5, pick, collect);
  CHECK(text == "hello");
  const auto stray = [](std::span<const float>) { return Token{300}; };
  CHECK_THROWS_WITH_AS(generate(context, bytes, "p", 5, stray, collect), doctest::Contains("token 300 "), Error);
}

TEST_CASE("a row that stands for no token is never drawn") {
  // The vocabulary leaves out 0, which is the end of text, 257, 258 and 260; the context has 512 rows.
  const Tokenizer tokenizer = small_world("259 'ab' 2\n261 'cd' 2\n");
  using Ranges = std::vector<std::pair<Token, Token>>;
  CHECK(tokenizer.missing(512) == Ranges{{257, 259}, {260, 261}, {262, 512}});
  CHECK(tokenizer.missing(262) == Ranges{{257, 259}, {260, 261}});
  CHECK(tokenizer.missing(258) == Ranges{{257, 258}});
  CHECK(tokenizer.missing(257).empty());
  CHECK(tokenizer.missing(0).empty());
  CHECK(Tokenizer::bytes().missing(256).empty());
  CHECK(Tokenizer::bytes().missing(65536) == Ranges{{256, 65536}});

  for (const Token wanted : {257, 258, 260, 262, 300, 511}) {
    CAPTURE(wanted);
    // The row that the context wants is the likeliest by far; token 'a' comes next.
    struct Likes : Script {
      std::span<const float> prefill(std::span<const Token> tokens) { return second_best(Script::prefill(tokens)); }
      std::span<const float> step(Token token) { return second_best(Script::step(token)); }
      std::span<const float> second_best(std::span<const float>) {
        logits['a' + 1] = 0;
        return logits;
      }
    };
    for (const double temperature : {0.0, 0.05}) {
      Likes context{{std::vector<Token>(20, wanted)}};
      std::string text;
      Sampler pick{.temperature = temperature, .seed = static_cast<std::uint64_t>(wanted)};
      generate(context, tokenizer, "p", 20, pick, [&](std::string_view piece) {
        text += piece;
        return true;
      });
      CHECK(text == std::string(20, 'a'));
      CHECK(context.stepped == std::vector<Token>(20, 'a' + 1));
    }
  }

  // A NaN in such a row is nobody's business.
  struct Nan : Script {
    std::span<const float> prefill(std::span<const Token>) {
      logits[300] = logits[257] = std::numeric_limits<float>::quiet_NaN();
      logits['a' + 1] = 1;
      return logits;
    }
  } nan;
  std::string text;
  generate(nan, tokenizer, "p", 1, greedy, [&](std::string_view piece) {
    text += piece;
    return true;
  });
  CHECK(text == "a");
}

}  // namespace
