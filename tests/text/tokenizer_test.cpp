// The tokenizers against the official vectors, the law that decoding undoes encoding, and hostile vocabulary files.
#include "rwkv/text/tokenizer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

using rwkv::Error;
using rwkv::Token;
using rwkv::Tokenizer;

std::string golden(const std::string& name) {
  std::ifstream file(RWKV_GOLDEN_DIR "/text/" + name, std::ios::binary);
  REQUIRE_MESSAGE(file.is_open(), name);
  return {std::istreambuf_iterator<char>(file), {}};
}

const Tokenizer& world() {
  static const Tokenizer tokenizer = Tokenizer::open(RWKV_GOLDEN_DIR "/text/rwkv_vocab_v20230424.txt");
  return tokenizer;
}

std::string with_crlf(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\n') result += '\r';
    result += c;
  }
  return result;
}

// Lines for tokens 1 to 256: the single bytes. A smallest valid vocabulary.
std::string single_bytes() {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned byte = 0; byte < 256; ++byte) {
    text += std::to_string(byte + 1) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  }
  return text;
}

std::string error_of(std::string_view text) {
  try {
    Tokenizer::world(text, "hostile.txt");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("the World tokenizer gives the official tokens") {
  std::istringstream lines(golden("world_tokenizer_vectors.tsv"));
  std::string line;
  std::getline(lines, line);
  REQUIRE(line.starts_with("#"));
  int vectors = 0;
  while (std::getline(lines, line)) {
    const std::size_t tab = line.find('\t');
    REQUIRE(tab != std::string::npos);
    std::string text;
    if (line[0] != '-') {
      for (std::size_t i = 0; i < tab; i += 2) text += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
    }
    std::vector<Token> tokens;
    if (line[tab + 1] != '-') {
      std::istringstream ids(line.substr(tab + 1));
      for (Token id = 0; ids >> id;) tokens.push_back(id);
    }
    CAPTURE(line);
    CHECK(world().encode(text) == tokens);
    CHECK(world().decode(tokens) == text);
    ++vectors;
  }
  CHECK(vectors == 300);
}

TEST_CASE("every World token encodes to itself") {
  CHECK(world().size() == 65530);
  CHECK(world().end_of_text() == Token{0});
  CHECK(world().decode(0).empty());
  int failures = 0;
  for (Token token = 1; token < world().size(); ++token) {
    failures += world().encode(world().decode(token)) != std::vector<Token>{token};
  }
  CHECK(failures == 0);
}

TEST_CASE("line ends and a missing last line end do not matter") {
  const std::string text = golden("rwkv_vocab_v20230424.txt");
  const std::vector<Token> tokens = world().encode(text);
  CHECK(tokens.size() < text.size() / 2);
  CHECK(world().decode(tokens) == text);
  const std::string unfinished = text.substr(0, text.size() - 1);
  for (const std::string& variant : {with_crlf(text), unfinished, with_crlf(unfinished)}) {
    const Tokenizer other = Tokenizer::world(variant, "variant");
    REQUIRE(other.size() == world().size());
    int failures = 0;
    for (Token token = 0; token < world().size(); ++token) failures += other.decode(token) != world().decode(token);
    CHECK(failures == 0);
    CHECK(other.encode(text) == tokens);
  }
}

TEST_CASE("any bytes are encoded greedily and decode to themselves") {
  std::map<std::string, Token, std::less<>> table;
  for (Token token = 1; token < world().size(); ++token) table.emplace(world().decode(token), token);
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (std::size_t i = random() % 12; i > 0; --i) {
      // Bytes, and whole or cut literals, so that long matches are tried and break off late.
      const std::string_view literal = world().decode(static_cast<Token>(random() % 65530));
      text += random() % 3 == 0
                  ? std::string(1, static_cast<char>(random()))
                  : std::string(literal.substr(0, random() % 2 == 0 ? literal.size() : literal.size() / 2));
    }
    std::vector<Token> expected;
    for (std::string_view rest = text; !rest.empty();) {
      std::size_t size = std::min<std::size_t>(rest.size(), 128);
      while (table.find(rest.substr(0, size)) == table.end()) --size;
      expected.push_back(table.find(rest.substr(0, size))->second);
      rest.remove_prefix(size);
    }
    REQUIRE(world().encode(text) == expected);
    REQUIRE(world().decode(world().encode(text)) == text);
    const std::vector<Token> bytes = Tokenizer::bytes().encode(text);
    REQUIRE(bytes.size() == text.size());
    REQUIRE(Tokenizer::bytes().decode(bytes) == text);
  }
}

TEST_CASE("the byte tokenizer is the identity") {
  const Tokenizer bytes = Tokenizer::bytes();
  CHECK(bytes.size() == 256);
  CHECK_FALSE(bytes.end_of_text().has_value());
  CHECK(bytes.encode(std::string_view("a\0\xff", 3)) == std::vector<Token>{97, 0, 255});
  for (Token token = 0; token < 256; ++token) {
    CHECK(bytes.decode(token) == std::string(1, static_cast<char>(token)));
  }
  CHECK(bytes.encode("").empty());
}

TEST_CASE("copies share one vocabulary, which outlives the original") {
  std::optional<Tokenizer> original = Tokenizer::world(single_bytes() + "257 'ab' 2\n", "small");
  const Tokenizer copy = *original;
  const std::string_view piece = original->decode(257);
  CHECK(piece.data() == copy.decode(257).data());
  original.reset();
  CHECK(piece == "ab");
  CHECK(copy.encode("aab") == std::vector<Token>{98, 257});
}

TEST_CASE("decoding a token that does not exist is an error") {
  const Tokenizer sparse = Tokenizer::world(single_bytes() + "300 'ab' 2\n", "sparse");
  const auto decode_error = [](const Tokenizer& tokenizer, Token token) -> std::string {
    try {
      tokenizer.decode(std::vector<Token>{1, token});
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK(sparse.size() == 301);
  CHECK(sparse.decode(300) == "ab");
  CHECK(mentions(decode_error(sparse, 299), "token 299 is missing from the vocabulary of 301 tokens"));
  CHECK(mentions(decode_error(sparse, 301), "token 301 is out of range: the vocabulary has 301 tokens"));
  CHECK(mentions(decode_error(world(), -1), "token -1 is out of range: the vocabulary has 65530 tokens"));
  CHECK(mentions(decode_error(world(), 65530), "token 65530 "));
  CHECK(mentions(decode_error(world(), std::numeric_limits<Token>::max()), "token 2147483647 "));
  CHECK(mentions(decode_error(world(), std::numeric_limits<Token>::min()), "token -2147483648 "));
  CHECK(mentions(decode_error(Tokenizer::bytes(), 256), "token 256 "));
  CHECK(decode_error(world(), 0) == "no error");
}

TEST_CASE("literals are those of Python") {
  struct Case {
    std::string literal, bytes;
  };
  const std::vector<Case> cases = {
      {R"('ab')", "ab"},
      {R"("it's")", "it's"},
      {R"('"x"')", "\"x\""},
      {R"('\'"')", "'\""},
      {R"("\"'")", "\"'"},
      {R"('\\\\')", "\\\\"},
      {R"('\r\n\t')", "\r\n\t"},
      {R"('\x00\x7f')", std::string("\0\x7f", 2)},
      {R"('\xe9')", "\xc3\xa9"},
      {R"(b'\xe9\xC3')", "\xe9\xc3"},
      {R"(b"\x00'")", std::string("\0'", 2)},
      {R"(b'\n\r\t\\\'\"')", "\n\r\t\\'\""},
      {R"('\u00e9\u20AC')", "\xc3\xa9\xe2\x82\xac"},
      {R"('\u07ff\u0800\ud7ff\ue000\uffff')", "\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"},
      {R"('\U00010000\U0010ffff')", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
      {R"('\u0041b')", "Ab"},
      {"'\xe2\x82\xac\xf0\x9f\x98\x80'", "\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"'b b '", "b b "},
      {"' 2'", " 2"},
      {R"('bytes: b\'x\'')", "bytes: b'x'"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.literal);
    const std::string line = "257 " + c.literal + " " + std::to_string(c.bytes.size());
    for (const std::string& text :
         {single_bytes() + line + "\n", single_bytes() + line, line + "\r\n" + single_bytes()}) {
      const Tokenizer tokenizer = Tokenizer::world(text, "case");
      CHECK(tokenizer.decode(257) == c.bytes);
      CHECK(tokenizer.encode(c.bytes) == std::vector<Token>{257});
    }
  }
}

TEST_CASE("a malformed line is an error that names file, line and reason") {
  struct Case {
    std::string line, reason;
  };
  const std::string nul(1, '\0');
  const std::vector<Case> cases = {
      {"", "the token id is not a decimal number"},
      {" 257 'ab' 2", "the token id is not a decimal number"},
      {"x 'ab' 2", "the token id is not a decimal number"},
      {"-1 'ab' 2", "the token id is not a decimal number"},
      {"+257 'ab' 2", "the token id is not a decimal number"},
      {"# comment", "the token id is not a decimal number"},
      {"\xef\xbb\xbf"
       "257 'ab' 2",
       "the token id is not a decimal number"},
      {"0 'ab' 2", "token id 0 is not between 1 and 1048576"},
      {"1048577 'ab' 2", "token id 1048577 is not between 1 and 1048576"},
      {"4294967552 'ab' 2", "the token id is too large"},
      {"99999999999999999999999 'ab' 2", "the token id is too large"},
      {"256 'ab' 2", "token id 256 appears for the second time"},
      {"257", "a space must follow the token id"},
      {"257.5 'ab' 2", "a space must follow the token id"},
      {"257\t'ab' 2", "a space must follow the token id"},
      {"0x101 'ab' 2", "token id 0 is not between"},
      {"257 ", "the literal does not begin with a quote"},
      {"257 ab 2", "the literal does not begin with a quote"},
      {"257  'ab' 2", "the literal does not begin with a quote"},
      {"257 b", "the literal does not begin with a quote"},
      {"257 B'ab' 2", "the literal does not begin with a quote"},
      {"257 bb'ab' 2", "the literal does not begin with a quote"},
      {"257 r'ab' 2", "the literal does not begin with a quote"},
      {"257 '' 0", "the literal is empty"},
      {"257 b\"\" 0", "the literal is empty"},
      {"257 'ab", "the literal has no closing quote"},
      {"257 'ab\" 2", "the literal has no closing quote"},
      {"257 'ab\\", "the literal has no closing quote"},
      {"257 'ab\\' 2", "the literal has no closing quote"},
      {"257 'it's' 4", "a space must follow the literal"},
      {"257 'ab'", "a space must follow the literal"},
      {"257 'ab'2", "a space must follow the literal"},
      {"257 'ab' ", "the size is not a decimal number"},
      {"257 'ab' -2", "the size is not a decimal number"},
      {"257 'ab'  2", "the size is not a decimal number"},
      {"257 'ab' 4294967298", "the size is too large"},
      {"257 'ab' 2 ", "the line goes on behind the size"},
      {"257 'ab' 2\r\r", "the line goes on behind the size"},
      {"257 'ab' 2.0", "the line goes on behind the size"},
      {"257 'ab' 3", "the literal has 2 bytes, but the line says 3"},
      {"257 'ab' 1", "the literal has 2 bytes, but the line says 1"},
      {"257 '\xc3\xa9x' 2", "the literal has 3 bytes, but the line says 2"},
      {"257 '\\xe9' 1", "the literal has 2 bytes, but the line says 1"},
      {"257 'a' 1", "the literal is the same as that of token 98"},
      {"257 '\\x61' 1", "the literal is the same as that of token 98"},
      {"257 '\\a' 1", "unknown escape"},
      {"257 '\\0b' 2", "unknown escape"},
      {"257 '\\N{DIGIT ONE}b' 2", "unknown escape"},
      {"257 '\\X41b' 2", "unknown escape"},
      {"257 '\\x4' 2", "an escape needs 2 hexadecimal digits"},
      {"257 '\\x", "an escape needs 2 hexadecimal digits"},
      {"257 '\\xg0b' 2", "an escape needs 2 hexadecimal digits"},
      {"257 '\\x-1b' 2", "an escape needs 2 hexadecimal digits"},
      {"257 '\\x+1b' 2", "an escape needs 2 hexadecimal digits"},
      {"257 '\\u12' 2", "an escape needs 4 hexadecimal digits"},
      {"257 '\\U0001f60' 4", "an escape needs 8 hexadecimal digits"},
      {"257 '\\ud800' 3", "U+d800, which is no character"},
      {"257 '\\udfff' 3", "U+dfff, which is no character"},
      {"257 '\\U00110000' 4", "U+110000, which is no character"},
      {"257 '\\Uffffffff' 4", "U+ffffffff, which is no character"},
      {"257 b'\\u0041b' 2", "a bytes literal has no escape"},
      {"257 b'\xc3\xa9' 2", "a character beyond ASCII that is not escaped"},
      {"257 'a\tb' 3", "a control character that is not escaped"},
      {"257 'a\x7f' 2", "a control character that is not escaped"},
      {"257 'a\rb' 3", "a control character that is not escaped"},
      {"257 '\xff\xfe' 2", "the line is not UTF-8"},
      {"257 '\xed\xa0\x80' 3", "the line is not UTF-8"},
      {"257 '\xe2\x82' 2", "the line is not UTF-8"},
      {"257 'a" + nul + "' 2", "the line holds a NUL byte"},
      {nul, "the line holds a NUL byte"},
      {"257 '" + std::string(1014, 'a') + "' 1014", "the line is longer than 1024 bytes"},
      {std::string(100000, '1'), "the line is longer than 1024 bytes"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.line);
    const std::string text = single_bytes() + c.line + "\n258 'cd' 2\n";
    CHECK(error_of(text).starts_with("hostile.txt, line 257: "));
    CHECK_MESSAGE(mentions(error_of(text), c.reason), error_of(text));
    CHECK(mentions(error_of(with_crlf(text)), "hostile.txt, line 257: "));
  }
  CHECK(error_of(single_bytes() + "257 '" + std::string(1009, 'a') + "' 1009\n") == "no error");
}

TEST_CASE("errors of the whole file") {
  CHECK(error_of("") == "hostile.txt, line 0: the file ends, and no token stands for the single byte 0");
  const std::string bytes = single_bytes();
  CHECK(error_of(bytes) == "no error");
  // Every byte is needed.
  std::size_t begin = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const std::size_t end = bytes.find('\n', begin) + 1;
    const std::string missing = bytes.substr(0, begin) + bytes.substr(end);
    CHECK(error_of(missing) ==
          "hostile.txt, line 255: the file ends, and no token stands for the single byte " + std::to_string(byte));
    begin = end;
  }
  // Of several repeated literals, the one that comes first in the file is reported.
  CHECK(error_of(bytes + "257 'zz' 2\n258 'yy' 2\n259 'zz' 2\n260 'yy' 2\n261 'zz' 2\n") ==
        "hostile.txt, line 259: the literal is the same as that of token 257");
  CHECK(mentions(error_of(std::string((std::size_t{1} << 26) + 1, '\n')), "larger than 67108864 bytes"));
  // Two megabytes of token ids without tokens.
  CHECK(mentions(error_of(std::string(std::size_t{1} << 21, '\n') + "x"), "line 1: "));
  CHECK(mentions(error_of(std::string(std::size_t{1} << 21, '\n')), "line 0: the file ends, and no token"));
  CHECK(error_of("\xef\xbb\xbf" + bytes) ==
        "hostile.txt: the vocabulary begins with a byte-order mark; save it as UTF-8 without one");
  for (const std::string blank : {"\n", "\n\n", "\r\n", "\r\n\r\n"}) CHECK(error_of(bytes + blank) == "no error");
  CHECK(mentions(error_of(bytes + "\n257 'ab' 2\n"), "line 257: the token id is not a decimal number"));
  CHECK(mentions(error_of(bytes + " \n"), "line 257: "));
}

TEST_CASE("a file cut anywhere is refused or means what its whole lines say") {
  const std::string text = with_crlf(single_bytes() + "1048576 'ab' 2\n300 b'\\xff\\x00' 2\n400 '\xe2\x82\xac!' 4\n");
  const std::string bytes = with_crlf(single_bytes());
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const std::string cut = text.substr(0, size);
    // A line is whole when its size has been read; the line end may be missing.
    const bool whole_line = cut.ends_with("\n") || cut.ends_with("\r") || text.substr(size, 1) == "\r";
    const bool valid = size + 2 >= bytes.size() && whole_line;
    CAPTURE(size);
    if (valid) {
      CHECK(error_of(cut) == "no error");
    } else {
      CHECK(error_of(cut).starts_with("hostile.txt, line "));
    }
  }
}

TEST_CASE("a file that cannot be read is an error that names it") {
  const auto open_error = [](const std::string& path) -> std::string {
    try {
      Tokenizer::open(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK(mentions(open_error(RWKV_GOLDEN_DIR "/text/absent.txt"), "absent.txt: cannot open the file"));
  CHECK(mentions(open_error(RWKV_GOLDEN_DIR "/text"), "/text: this is a folder, not a file"));
  CHECK(mentions(open_error(RWKV_GOLDEN_DIR "/text/world_tokenizer_vectors.tsv"),
                 "world_tokenizer_vectors.tsv, line 1: "));
}

TEST_CASE("digits and blanks are those that the official package exempts") {
  const std::vector<Token> bytes = rwkv::digits_and_blanks(Tokenizer::bytes());
  CHECK(bytes == std::vector<Token>{'\t', ' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'});
  const Tokenizer sparse = Tokenizer::world(single_bytes() + "300 '23' 2\n301 '32' 2\n303 ' \\t0' 3\n", "sparse");
  CHECK(rwkv::digits_and_blanks(sparse) ==
        std::vector<Token>{0, 10, 33, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 300, 303});
  CHECK(rwkv::digits_and_blanks(world()).size() == 23);
}

}  // namespace
