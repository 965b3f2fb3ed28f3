#pragma once
/// Text to tokens and back.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
struct Vocabulary;
}

/// Turns bytes into tokens by greedy longest match, and tokens into bytes. Any string of bytes can be encoded, valid
/// UTF-8 or not, and decodes to itself. A cheap value: copies share one immutable vocabulary.
class Tokenizer {
 public:
  /// One token per byte: token = byte, 256 tokens, no end of text.
  static Tokenizer bytes();

  /// The World tokenizer from the text of its vocabulary file: a line `id literal size` per token, LF or CRLF; token 0,
  /// which the file does not list, is the end of text. `name` stands for the file in errors. Throws an Error naming the
  /// line for every deviation from the format.
  static Tokenizer world(std::string_view text, std::string_view name);

  /// The World tokenizer from its vocabulary file.
  static Tokenizer open(const std::filesystem::path& path, FileSystem& files = system_files());

  /// The tokens of any bytes.
  std::vector<Token> encode(std::string_view text) const;

  /// The bytes of one token, possibly a part of a character (see Utf8Stream); none for the end of text. They live as
  /// long as any copy of the tokenizer. Throws an Error when there is no such token.
  std::string_view decode(Token token) const;

  /// The bytes of all tokens.
  std::string decode(std::span<const Token> tokens) const;

  /// Tokens are below this number, the end of text included. A model may have more rows than that, see missing().
  Index size() const;

  /// The ids below `vocab`, the rows of a model, that stand for no token, as ranges [first, last) in order: those that
  /// the vocabulary leaves out, and those from size() on. RWKV World has 65536 rows and 65530 tokens.
  std::vector<std::pair<Token, Token>> missing(Index vocab) const;

  /// The token that ends a text, if the vocabulary has one.
  std::optional<Token> end_of_text() const;

 private:
  explicit Tokenizer(detail::Vocabulary vocabulary);

  std::shared_ptr<const detail::Vocabulary> vocabulary_;
};

/// The tokens whose text is a piece of " \t0123456789", the end of text included: those that the official Python package
/// exempts from the frequency penalty (Sampler::exempt).
std::vector<Token> digits_and_blanks(const Tokenizer& tokenizer);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/text/tokenizer.ipp"
#endif
