#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"
#include "rwkv/system/file_kind.hpp"
#include "rwkv/system/utf8.hpp"
#include "rwkv/text/tokenizer.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// One token while a vocabulary is being made: a piece of the pool of literals, and where it came from.
struct Literal {
  std::uint32_t begin = 0;
  std::uint32_t size = 0;
  Token token = 0;
  std::uint32_t line = 0;
};

/// The byte trie of all literals. A node is a string that begins some literal. Nodes are numbered breadth first, so the
/// children of a node lie side by side, ordered by the byte that leads to them, and need no pointers.
class ByteTrie {
 public:
  struct Match {
    Token token;
    std::size_t size;
  };

  ByteTrie() = default;
  /// `literals`, pieces of `pool`, are sorted by their bytes and distinct, and every single byte is one of them.
  ByteTrie(std::string_view pool, std::span<const Literal> literals) {
    // The literals below a node are a range of the sorted ones, and each child takes a part of its parent's range.
    struct Range {
      std::size_t begin, end, depth;
    };
    std::vector<Range> ranges{{0, literals.size(), 0}};
    labels_.push_back(0);
    for (std::size_t node = 0; node < ranges.size(); ++node) {
      Range below = ranges[node];
      nodes_.push_back({static_cast<std::uint32_t>(ranges.size()), no_token});
      if (literals[below.begin].size == below.depth) nodes_[node].token = literals[below.begin++].token;
      while (below.begin < below.end) {
        const auto next_byte = [&](std::size_t i) { return pool[literals[i].begin + below.depth]; };
        const char label = next_byte(below.begin);
        std::size_t split = below.begin + 1;
        while (split < below.end && next_byte(split) == label) ++split;
        ranges.push_back({below.begin, split, below.depth + 1});
        labels_.push_back(label);
        below.begin = split;
      }
    }
    nodes_.push_back({static_cast<std::uint32_t>(ranges.size()), no_token});
  }

  /// The longest literal that `text`, which is not empty, begins with.
  Match longest_match(std::string_view text) const {
    // All 256 bytes are literals, so the children of the root are the nodes 1 to 256.
    std::size_t node = std::size_t{1} + static_cast<unsigned char>(text[0]);
    Match match{nodes_[node].token, 1};
    for (std::size_t i = 1; i < text.size(); ++i) {
      const std::size_t children = nodes_[node].first_child;
      const std::size_t found =
          std::string_view(labels_).substr(children, nodes_[node + 1].first_child - children).find(text[i]);
      if (found == std::string_view::npos) break;
      node = children + found;
      if (nodes_[node].token != no_token) match = {nodes_[node].token, i + 1};
    }
    return match;
  }

 private:
  static constexpr Token no_token = -1;
  struct Node {
    std::uint32_t first_child;  // the children end where those of the next node begin
    Token token;
  };

  std::vector<Node> nodes_;  // and one behind the last
  std::string labels_;       // the byte that leads to each node
};

/// What all copies of a tokenizer share.
struct Vocabulary {
  struct Piece {
    std::uint32_t begin = 0;
    std::uint32_t size = 0;
  };

  std::string pool;           // the literals, back to back
  std::vector<Piece> pieces;  // by token; size 0 where there is no literal
  ByteTrie trie;
  std::optional<Token> end_of_text;
};

/// Reads the text of a World vocabulary file. It trusts nothing: every deviation from the format is an Error that names
/// the file, the line and the reason. Apart from the table of at most 2^20 tokens, memory is proportional to the text.
class WorldReader {
 public:
  WorldReader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  static constexpr std::size_t max_file = std::size_t{1} << 26;  // about 60 times the official file
  static constexpr std::size_t max_line = 1024;                  // the official file has at most 140
  static constexpr Token max_token = Token{1} << 20;

  Vocabulary read() {
    const std::string_view kind = kind_of_file(text_);
    expects(kind.empty(), name_, ": this is no World vocabulary (rwkv_vocab_v20230424.txt) but ", kind);
    const bool is_model =
        text_.starts_with("PK\x03\x04") || text_.substr(0, 9).ends_with(std::string_view("\0\0\0\0{", 5));
    expects(!is_model, name_, ": this is a model file, where a vocabulary was expected");
    expects(!text_.starts_with("\xef\xbb\xbf"), name_,
            ": the vocabulary begins with a byte-order mark; save it as UTF-8 without one");
    expects(text_.size() <= max_file, name_, ": the vocabulary is larger than ", max_file, " bytes");
    vocabulary_.pieces.resize(1);
    vocabulary_.end_of_text = 0;
    text_ = text_.substr(0, text_.find_last_not_of("\r\n") + 1);  // blank lines at the end mean nothing
    while (!text_.empty()) {
      ++line_;
      const std::size_t end = text_.find('\n');
      rest_ = text_.substr(0, end);
      text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
      if (rest_.ends_with('\r')) rest_.remove_suffix(1);
      read_line();
    }
    check_bytes();
    sort_literals();
    vocabulary_.trie = ByteTrie(vocabulary_.pool, literals_);
    return std::move(vocabulary_);
  }

 private:
  /// `id literal size`, one space between them; `rest_` is what remains of the line.
  void read_line() {
    check(rest_.size() <= max_line, "the line is longer than ", max_line, " bytes");
    check(rest_.find('\0') == std::string_view::npos, "the line holds a NUL byte");
    check(is_utf8(rest_), "the line is not UTF-8");

    const std::uint32_t id = read_number("the token id");
    check(1 <= id && id <= static_cast<std::uint32_t>(max_token), "the token id ", id, " is not between 1 and ",
          max_token);
    check(accept(' '), "a space must follow the token id");

    auto& pool = vocabulary_.pool;
    const std::size_t begin = pool.size();
    read_literal();
    const std::size_t size = pool.size() - begin;
    check(size != 0, "the literal is empty");
    check(accept(' '), "a space must follow the literal");

    const std::uint32_t stated = read_number("the size");
    check(rest_.empty(), "the line goes on behind the size");
    check(stated == size, "the literal has ", size, " bytes, but the line says ", stated);

    auto& pieces = vocabulary_.pieces;
    if (pieces.size() <= id) pieces.resize(id + std::size_t{1});
    check(pieces[id].size == 0, "the token id ", id, " appears for the second time");
    pieces[id] = {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(size)};
    literals_.push_back({pieces[id].begin, pieces[id].size, static_cast<Token>(id), line_});
  }

  std::uint32_t read_number(std::string_view what) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    check(error != std::errc::invalid_argument, what, " is not a decimal number");
    check(error == std::errc{}, what, " is too large");
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return number;
  }

  /// A Python literal: '..' or ".." stand for the UTF-8 of their characters, b'..' or b".." for bytes.
  void read_literal() {
    const bool is_bytes = accept('b');
    check(!rest_.empty() && (rest_[0] == '\'' || rest_[0] == '"'), "the literal does not begin with a quote");
    const char quote = take();
    for (;;) {
      check(!rest_.empty(), "the literal has no closing quote");
      const char c = take();
      if (c == quote) return;
      if (c == '\\') {
        read_escape(is_bytes);
        continue;
      }
      const auto byte = static_cast<unsigned char>(c);
      check(byte >= 0x20 && byte != 0x7f, "the literal holds a control character that is not escaped");
      check(!is_bytes || byte < 0x80, "the bytes literal holds a character beyond ASCII that is not escaped");
      vocabulary_.pool += c;
    }
  }

  void read_escape(bool is_bytes) {
    check(!rest_.empty(), "the literal has no closing quote");
    const char c = take();
    switch (c) {
      case 'n': vocabulary_.pool += '\n'; return;
      case 'r': vocabulary_.pool += '\r'; return;
      case 't': vocabulary_.pool += '\t'; return;
      case '\\':
      case '\'':
      case '"': vocabulary_.pool += c; return;
      case 'x':
        if (is_bytes) vocabulary_.pool += static_cast<char>(read_hex(2));
        else append_character(read_hex(2));
        return;
      case 'u':
      case 'U':
        check(!is_bytes, "a bytes literal has no escape \\u or \\U");
        append_character(read_hex(c == 'u' ? 4 : 8));
        return;
      default: check(false, "the literal holds an unknown escape");
    }
  }

  std::uint32_t read_hex(std::size_t digits) {
    std::uint32_t value = 0;
    const char* const begin = rest_.data();
    const char* const end = begin + std::min(digits, rest_.size());
    const auto [stop, error] = std::from_chars(begin, end, value, 16);
    check(error == std::errc{} && stop == begin + digits, "an escape needs ", digits, " hexadecimal digits");
    rest_.remove_prefix(digits);
    return value;
  }

  void append_character(std::uint32_t c) {
    check(c <= 0x10ffff && (c < 0xd800 || c > 0xdfff), "an escape names U+", hex(c), ", which is no character");
    auto& pool = vocabulary_.pool;
    const auto tail = [&](int shift) { pool += static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
    if (c < 0x80) {
      pool += static_cast<char>(c);
    } else if (c < 0x800) {
      pool += static_cast<char>(0xc0 | (c >> 6));
      tail(0);
    } else if (c < 0x10000) {
      pool += static_cast<char>(0xe0 | (c >> 12));
      tail(6), tail(0);
    } else {
      pool += static_cast<char>(0xf0 | (c >> 18));
      tail(12), tail(6), tail(0);
    }
  }

  /// Greedy matching can always go on only when every byte is a token of its own.
  void check_bytes() const {
    std::array<bool, 256> found{};
    for (const Literal& literal : literals_) {
      if (literal.size == 1) found[static_cast<unsigned char>(vocabulary_.pool[literal.begin])] = true;
    }
    const auto missing = std::find(found.begin(), found.end(), false) - found.begin();
    check(missing == 256, "the file ends, and no token stands for the single byte ", missing);
  }

  /// Sorts the literals by their bytes. When some are equal, reports the first line that repeats an earlier one.
  void sort_literals() {
    const auto bytes = [&](const Literal& l) { return std::string_view(vocabulary_.pool).substr(l.begin, l.size); };
    std::sort(literals_.begin(), literals_.end(), [&](const Literal& a, const Literal& b) {
      const int order = bytes(a).compare(bytes(b));
      return order != 0 ? order < 0 : a.line < b.line;
    });
    const Literal* original = nullptr;
    for (std::size_t i = 1; i < literals_.size(); ++i) {
      if (bytes(literals_[i - 1]) != bytes(literals_[i])) continue;
      if (original == nullptr || literals_[i].line < original[1].line) original = &literals_[i - 1];
    }
    if (original == nullptr) return;
    line_ = original[1].line;
    check(false, "the literal is the same as that of token ", original->token);
  }

  static std::string hex(std::uint32_t value) {
    char digits[8];
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, value, 16).ptr);
  }

  bool accept(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  char take() {
    const char c = rest_[0];
    rest_.remove_prefix(1);
    return c;
  }

  template <class... Parts>
  void check(bool holds, const Parts&... reason) const {
    expects(holds, name_, ", line ", line_, ": ", reason...);
  }

  std::string_view text_;
  std::string_view name_;
  std::string_view rest_;
  std::uint32_t line_ = 0;
  Vocabulary vocabulary_;
  std::vector<Literal> literals_;
};

}  // namespace detail

RWKV_BODY Tokenizer::Tokenizer(detail::Vocabulary vocabulary)
    : vocabulary_(std::make_shared<const detail::Vocabulary>(std::move(vocabulary))) {}

RWKV_BODY Tokenizer Tokenizer::bytes() {
  detail::Vocabulary vocabulary;
  std::vector<detail::Literal> literals;
  // std::string orders characters as unsigned bytes, so these literals come sorted.
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    vocabulary.pool += static_cast<char>(byte);
    vocabulary.pieces.push_back({byte, 1});
    literals.push_back({.begin = byte, .size = 1, .token = static_cast<Token>(byte)});
  }
  vocabulary.trie = detail::ByteTrie(vocabulary.pool, literals);
  return Tokenizer(std::move(vocabulary));
}

RWKV_BODY Tokenizer Tokenizer::world(std::string_view text, std::string_view name) {
  return Tokenizer(detail::WorldReader(text, name).read());
}

RWKV_BODY Tokenizer Tokenizer::open(const std::filesystem::path& path, FileSystem& files) {
  const Bytes bytes = read_file(path, Access::automatic, files);
  return world(detail::as_text(bytes.view()), bytes.name());
}

RWKV_BODY std::vector<Token> Tokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens;
  while (!text.empty()) {
    const auto [token, size] = vocabulary_->trie.longest_match(text);
    tokens.push_back(token);
    text.remove_prefix(size);
  }
  return tokens;
}

RWKV_BODY std::string_view Tokenizer::decode(Token token) const {
  expects(0 <= token && token < size(), "rwkv: token ", token, " is out of range: the vocabulary has ", size(),
          " tokens");
  const auto [begin, count] = vocabulary_->pieces[static_cast<std::size_t>(token)];
  expects(count != 0 || token == end_of_text(), "rwkv: token ", token, " is missing from the vocabulary of ", size(),
          " tokens");
  return std::string_view(vocabulary_->pool).substr(begin, count);
}

RWKV_BODY std::string Tokenizer::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += decode(token);
  return text;
}

RWKV_BODY Index Tokenizer::size() const { return static_cast<Index>(vocabulary_->pieces.size()); }

RWKV_BODY std::vector<std::pair<Token, Token>> Tokenizer::missing(Index vocab) const {
  std::vector<std::pair<Token, Token>> ranges;
  const auto has = [&](Index id) {
    return id < size() && (vocabulary_->pieces[static_cast<std::size_t>(id)].size != 0 || id == end_of_text());
  };
  for (Index id = 0; id < vocab; ++id) {
    if (has(id)) continue;
    const Index first = id;
    id = id < size() ? id + 1 : vocab;
    while (id < vocab && !has(id)) ++id;
    ranges.emplace_back(static_cast<Token>(first), static_cast<Token>(id));
  }
  return ranges;
}

RWKV_BODY std::optional<Token> Tokenizer::end_of_text() const { return vocabulary_->end_of_text; }

RWKV_BODY std::vector<Token> digits_and_blanks(const Tokenizer& tokenizer) {
  constexpr std::string_view all = " \t0123456789";
  std::vector<Token> tokens;
  Token next = 0;
  auto missing = tokenizer.missing(tokenizer.size());
  missing.emplace_back(static_cast<Token>(tokenizer.size()), static_cast<Token>(tokenizer.size()));
  for (const auto& [first, last] : missing) {
    for (; next < first; ++next) {
      if (all.find(tokenizer.decode(next)) != std::string_view::npos) tokens.push_back(next);
    }
    next = last;
  }
  return tokens;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
