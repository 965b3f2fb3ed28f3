#pragma once
/// The text to train on, as tokens, and the batches cut from it.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Bytes of a token in a file.
enum class TokenWidth : unsigned char { bits8 = 1, bits16 = 2, bits32 = 4 };

/// A text as tokens, in memory or in a file. Copies and slices share the memory and keep it alive.
class TokenData {
 public:
  /// Opens a file of little-endian unsigned integers and nothing else: any text for a byte model (bits8), or the token
  /// files of nanoGPT and llm.c (bits16, bits32). A large file is memory-mapped where the system can; see Access.
  /// Numbers too large for a Token are not checked here but by check_vocabulary().
  ///
  /// Errors    those of read_file(); a size that is no multiple of the width
  static TokenData open(const std::filesystem::path& path, TokenWidth width, Access access = Access::automatic,
                        FileSystem& files = system_files());

  /// Tokens in memory, from a tokenizer; errors use `name` in place of a path.
  ///
  /// Errors    a negative token
  explicit TokenData(std::vector<Token> tokens, std::string name = "tokens");

  /// Tokens.
  Index size() const { return size_; }
  /// Of the file.
  const std::string& name() const { return source_->bytes.name(); }

  /// Token i; i must be below size().
  Token operator[](Index i) const {
    asserts(i >= 0 && i < size_, name(), ": there is no token at position ", i, " of ", size_);
    return static_cast<Token>(number(i));
  }

  /// The tokens [begin, end).
  ///
  /// Errors    a range that is not within the tokens
  TokenData slice(Index begin, Index end) const;

  /// Copies the tokens from position `begin` on, as many as `to` holds.
  ///
  /// Errors    as for slice()
  void copy(Index begin, std::span<Token> to) const;

  /// Throws an Error that names the first token outside [0, vocab) and its position in the file.
  ///
  /// Cost      reads all tokens
  void check_vocabulary(Index vocab) const;

  /// Throws an Error when a mapped file has changed since it was opened; see Bytes::check_unchanged().
  void check_unchanged() const { source_->bytes.check_unchanged(); }

 private:
  static_assert(std::endian::native == std::endian::little, "rwkv: tokens are read on little-endian machines only");
  static_assert(sizeof(Token) == sizeof(std::uint32_t));

  struct Source {
    std::vector<Token> tokens;  // empty for a file
    Bytes bytes;
  };

  TokenData(std::shared_ptr<const Source> source, TokenWidth width, Index begin, Index size)
      : source_(std::move(source)), width_(width), begin_(begin), size_(size) {}

  static TokenData own(std::vector<Token> tokens, std::string name);

  /// The i-th integer from `begin_` on, which need not be aligned.
  template <class T>
  T load(Index i) const {
    T value;
    std::memcpy(&value, source_->bytes.view().data() + static_cast<std::size_t>(begin_ + i) * sizeof(T), sizeof(T));
    return value;
  }

  std::uint32_t number(Index i) const {
    switch (width_) {
      case TokenWidth::bits8: return load<std::uint8_t>(i);
      case TokenWidth::bits16: return load<std::uint16_t>(i);
      case TokenWidth::bits32: break;
    }
    return load<std::uint32_t>(i);
  }

  template <class T>
  void copy_as(std::span<Token> to) const;

  std::shared_ptr<const Source> source_;
  TokenWidth width_;
  Index begin_, size_;
};

/// The sizes of a batch.
struct BatchShape {
  Index batch = 1;   ///< sequences side by side
  Index length = 1;  ///< tokens of each

  /// Whether both are alike.
  bool operator==(const BatchShape&) const = default;
};

/// The input of one training step. A batch that is filled again with the same shape allocates nothing.
struct Batch {
  BatchShape shape;            ///< sequences and tokens of each
  std::vector<Token> tokens;   ///< [batch, length], what the model reads
  std::vector<Token> targets;  ///< [batch, length], the token that follows each of them
  bool fresh = true;           ///< whether the sequences begin here, so that the state must be reset
};

/// Batches of windows at random positions, each independent of the others. What a step gets depends on the data, the
/// shape, the seed and the number of the step alone, so a run that is resumed goes on as if it had not stopped. With
/// the same seed and length, two steps of a batch of four see the same windows as four steps of a batch of two.
class RandomWindows {
 public:
  /// Errors    a shape without tokens; data shorter than length + 1
  RandomWindows(TokenData data, BatchShape shape, Seed seed);

  /// Row b starts at floor(u (size - length)), where u is element `step * batch + b` of a sequence of uniform numbers.
  ///
  /// Errors    a negative step
  void fill(Index step, Batch& batch) const;

 private:
  TokenData data_;
  BatchShape shape_;
  Philox source_;
};

/// Batches that read the data in order, for truncated back-propagation through time with a carried state. The data is
/// divided into `batch` equal streams; row b of each batch has the next `length` tokens of stream b. After
/// steps_per_pass() steps the streams start again, with a fresh state. Tokens that remain after the division into equal
/// streams, or that do not fill a window at the end of a stream, are left out.
class ContiguousStreams {
 public:
  /// Errors    a shape without tokens; streams shorter than `length`, or without a target for their last token
  ContiguousStreams(TokenData data, BatchShape shape);

  /// Steps until every stream has been read once.
  Index steps_per_pass() const { return stream_ / shape_.length; }

  /// Errors    a negative step
  void fill(Index step, Batch& batch) const;

 private:
  TokenData data_;
  BatchShape shape_;
  Index stream_ = 0;  // distance between the starts of neighbouring streams, in tokens
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/train/token_data.ipp"
#endif
