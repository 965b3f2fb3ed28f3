/// Stop strings of generate() on real models: afterwards it is as if the text before them had been all.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../model/live.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::live;

namespace {

const ModelSizes sizes{.vocab = 512, .width = 16, .depth = 2, .head_size = 8};

/// All bytes (token = byte + 1), and tokens that lie across the borders of stop strings.
Tokenizer words() {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned byte = 0; byte < 256; ++byte)
    text += std::to_string(byte + 1) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  return Tokenizer::world(
      text + "257 'Us' 2\n258 'er: ' 4\n259 '.\\n' 2\n260 '\\n\\n' 2\n261 '\\nUser:' 6\n262 'so\\nUser: a' 10\n",
      "words");
}

struct Case {
  std::vector<Token> script;  // what is picked, whatever the logits
  std::string text, stop;     // that is emitted, and why it ends
  Finish finish = Finish::stop;
};

template <class C>
void check_case(C context, C straight, const Case& c) {
  const Tokenizer tokenizer = words();
  std::size_t next = 0;
  const auto pick = [&](std::span<const float>) { return c.script[next++]; };
  std::string text;
  const auto stats = generate(context, tokenizer, "Hi", std::ssize(c.script), pick,
                              [&](std::string_view piece) {
                                text += piece;
                                return true;
                              },
                              {"\nUser:", "\n\nUser:", "!"});
  CHECK(text == c.text);
  CHECK(stats.stop == c.stop);
  CHECK(stats.finish == c.finish);

  // A context that reads the text, and nothing else; in the tokens that were picked, as far as they go.
  straight.prefill(tokenizer.encode("Hi"));
  Index tokens = 0;
  std::size_t done = 0;
  const auto read = [&](Token token) {
    straight.step(token);
    done += tokenizer.decode(token).size();
    ++tokens;
  };
  for (const Token token : c.script) {
    if (token == 0) break;  // the end of text
    if (done + tokenizer.decode(token).size() <= text.size()) read(token);
    else break;
  }
  for (const Token token : tokenizer.encode(text.substr(done))) read(token);
  CHECK(context.state() == straight.state());
  CHECK(context.position(0) == straight.position(0));
  CHECK(stats.new_tokens == tokens);
}

std::vector<Token> spelled(std::string_view text) {
  std::vector<Token> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c) + 1);
  return tokens;
}

const std::vector<Case> cases = {
    {spelled("Hello.\n\nUser: and"), "Hello.", "\n\nUser:"},  // in tokens of one byte
    {{'a' + 1, 259, '\n' + 1, 257, 258}, "a.", "\n\nUser:"},  // '.' and the line end are one token, ':' and ' ' another
    {{'a' + 1, 260, 257, 258}, "a", "\n\nUser:"},             // from border to border, but for the end
    {{'a' + 1, 261, 'b' + 1}, "a", "\nUser:"},                // in one token
    {{'a' + 1, 262, 'b' + 1}, "aso", "\nUser:"},              // in the middle of one
    {{'a' + 1, 259, 261, 'b' + 1}, "a.", "\n\nUser:"},        // the longer of two that are complete
    {spelled("\n\n\n\n\nUse\n\nUsers!"), "\n\n\n\n\nUse\n\nUsers", "!"},  // begun again and again
    {spelled("!"), "", "!"},
    {spelled("a\n\nUser"), "a\n\nUser", "", Finish::length},  // held back to the end, for nothing
    {{'a' + 1, '\n' + 1, 257, 0}, "a\nUs", "", Finish::end_of_text},
};

}  // namespace

TEST_CASE("a stop string across tokens is never emitted, and the context has not seen it") {
  config::each_version([&]<class V>() {
    const auto net = live<LanguageModel<V, float, Cpu>>(sizes, Cpu());
    for (const Case& c : cases) {
      CAPTURE(c.text);
      check_case(net.context(), net.context(), c);
    }
  });
  const AnyModel net(live<LanguageModel<V7, float, Cpu>>(sizes, Cpu()));
  check_case(net.context(), net.context(), cases[1]);
}
