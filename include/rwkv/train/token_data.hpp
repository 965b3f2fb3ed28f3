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

#include "rwkv/core/checked.hpp"
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
                        FileSystem& files = system_files()) {
    auto source = std::make_shared<Source>(Source{{}, read_file(path, access, files)});
    const std::size_t bytes = source->bytes.view().size(), token = static_cast<std::size_t>(width);
    expects(bytes % token == 0, source->bytes.name(), ": the ", bytes, " bytes of the file are no whole number of ",
            8 * token, "-bit tokens");
    return TokenData(std::move(source), width, 0, static_cast<Index>(bytes / token));
  }

  /// Tokens in memory, from a tokenizer; errors use `name` in place of a path.
  ///
  /// Errors    a negative token
  explicit TokenData(std::vector<Token> tokens, std::string name = "tokens")
      : TokenData(own(std::move(tokens), std::move(name))) {}

  Index size() const { return size_; }
  const std::string& name() const { return source_->bytes.name(); }

  Token operator[](Index i) const {
    asserts(i >= 0 && i < size_, name(), ": there is no token at position ", i, " of ", size_);
    return static_cast<Token>(number(i));
  }

  /// The tokens [begin, end).
  ///
  /// Errors    a range that is not within the tokens
  TokenData slice(Index begin, Index end) const {
    expects(0 <= begin && begin <= end && end <= size_, name(), ": the range [", begin, ", ", end,
            ") is not within the ", size_, " tokens");
    return TokenData(source_, width_, begin_ + begin, end - begin);
  }

  /// Copies the tokens from position `begin` on, as many as `to` holds.
  ///
  /// Errors    as for slice()
  void copy(Index begin, std::span<Token> to) const {
    const TokenData part = slice(begin, begin <= size_ ? begin + std::ssize(to) : begin);
    switch (width_) {
      case TokenWidth::bits8: return part.copy_as<std::uint8_t>(to);
      case TokenWidth::bits16: return part.copy_as<std::uint16_t>(to);
      case TokenWidth::bits32: return part.copy_as<std::uint32_t>(to);
    }
  }

  /// Throws an Error that names the first token outside [0, vocab) and its position in the file.
  ///
  /// Cost      reads all tokens
  void check_vocabulary(Index vocab) const {
    for (Index i = 0; i < size_; ++i) {
      const std::uint32_t token = number(i);
      expects(Index{token} < vocab, name(), ": token ", token, " at position ", begin_ + i,
              " is outside the vocabulary of ", vocab);
    }
  }

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

  static TokenData own(std::vector<Token> tokens, std::string name) {
    const std::span<const Token> all(tokens);
    for (std::size_t i = 0; i < all.size(); ++i) {
      expects(all[i] >= 0, name, ": token ", all[i], " at position ", i, " is negative");
    }
    // The elements of a moved vector keep their address.
    return TokenData(
        std::make_shared<const Source>(Source{std::move(tokens), Bytes(std::as_bytes(all), std::move(name))}),
        TokenWidth::bits32, 0, std::ssize(all));
  }

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
  void copy_as(std::span<Token> to) const {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<Token>(load<T>(static_cast<Index>(i)));
  }

  std::shared_ptr<const Source> source_;
  TokenWidth width_;
  Index begin_, size_;
};

/// The sizes of a batch.
struct BatchShape {
  Index batch = 1;   ///< sequences side by side
  Index length = 1;  ///< tokens of each

  bool operator==(const BatchShape&) const = default;
};

/// The input of one training step. A batch that is filled again with the same shape allocates nothing.
struct Batch {
  BatchShape shape;
  std::vector<Token> tokens;   ///< [batch, length], what the model reads
  std::vector<Token> targets;  ///< [batch, length], the token that follows each of them
  bool fresh = true;           ///< whether the sequences begin here, so that the state must be reset
};

namespace detail {

/// Tokens of a batch. Errors: a size that is not above zero, or sizes too large for any memory.
inline std::size_t batch_tokens(const BatchShape& shape) {
  expects(shape.batch > 0 && shape.length > 0, "rwkv: a batch needs sequences and tokens, not ", shape.batch, " of ",
          shape.length);
  return static_cast<std::size_t>(
             (Checked(shape.batch) * shape.length * sizeof(Token))
                 .to<Index>("rwkv: a batch of ", shape.batch, " sequences of ", shape.length, " tokens is too large")) /
         sizeof(Token);
}

/// Fills a batch whose row b starts at position start(b).
template <class Start>
void fill_batch(const TokenData& data, const BatchShape& shape, bool fresh, Start start, Batch& batch) {
  const std::size_t count = batch_tokens(shape), length = static_cast<std::size_t>(shape.length);
  batch.shape = shape;
  batch.fresh = fresh;
  batch.tokens.resize(count);
  batch.targets.resize(count);
  for (Index b = 0; b < shape.batch; ++b) {
    const std::size_t row = static_cast<std::size_t>(b) * length;
    const Index position = start(b);
    data.copy(position, std::span(batch.tokens).subspan(row, length));
    data.copy(position + 1, std::span(batch.targets).subspan(row, length));
  }
}

/// `12 tokens are`, `1 token is`.
inline std::string tokens_are(Index count) { return join(count, count == 1 ? " token is" : " tokens are"); }
/// `windows of 256 tokens and their targets`.
inline std::string windows_of(Index length) {
  return join("windows of ", length, length == 1 ? " token and its target" : " tokens and their targets");
}

}  // namespace detail

/// Batches of windows at independent random positions. The batch of a step depends on the data, the shape, the seed and
/// the number of the step alone, so a resumed run continues as if it had not stopped. With the same seed and length,
/// two steps with a batch of four see the same windows as four steps with a batch of two.
class RandomWindows {
 public:
  /// Errors    a shape without tokens; data shorter than length + 1
  RandomWindows(TokenData data, BatchShape shape, Seed seed)
      : data_(std::move(data)), shape_(shape), source_{.key = seed.value, .stream = stream_of("random windows")} {
    detail::batch_tokens(shape);
    expects(shape.length < data_.size(), data_.name(), ": ", detail::tokens_are(data_.size()), " too few for ",
            detail::windows_of(shape.length));
  }

  /// Row b starts at floor(u (size - length)), where u is element `step * batch + b` of a sequence of uniform numbers.
  ///
  /// Errors    a negative step
  void fill(Index step, Batch& batch) const {
    expects(step >= 0, data_.name(), ": there is no step ", step);
    const double starts = static_cast<double>(data_.size() - shape_.length);
    const auto start = [&](Index b) {
      const auto n = static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(shape_.batch);
      return static_cast<Index>(source_.block(n + static_cast<std::uint64_t>(b)).uniform_double(0) * starts);
    };
    detail::fill_batch(data_, shape_, true, start, batch);
  }

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
  ContiguousStreams(TokenData data, BatchShape shape) : data_(std::move(data)), shape_(shape) {
    detail::batch_tokens(shape);
    // The last token of the data is only a target.
    stream_ = data_.size() == 0 ? 0 : (data_.size() - 1) / shape.batch;
    expects(shape.length <= stream_, data_.name(), ": ", detail::tokens_are(data_.size()), " too few for ", shape.batch,
            shape.batch == 1 ? " stream of " : " streams of ", detail::windows_of(shape.length));
  }

  Index steps_per_pass() const { return stream_ / shape_.length; }

  /// Errors    a negative step
  void fill(Index step, Batch& batch) const {
    expects(step >= 0, data_.name(), ": there is no step ", step);
    const Index window = step % steps_per_pass();
    const auto start = [&](Index b) { return b * stream_ + window * shape_.length; };
    detail::fill_batch(data_, shape_, window == 0, start, batch);
  }

 private:
  TokenData data_;
  BatchShape shape_;
  Index stream_ = 0;  // distance between the starts of neighbouring streams, in tokens
};

}  // namespace RWKV_ABI
}  // namespace rwkv
