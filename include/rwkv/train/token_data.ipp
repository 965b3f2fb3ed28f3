#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/train/token_data.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY TokenData TokenData::open(const std::filesystem::path& path, TokenWidth width, Access access,
                                    FileSystem& files) {
  auto source = std::make_shared<Source>(Source{{}, read_file(path, access, files)});
  const std::size_t bytes = source->bytes.view().size(), token = static_cast<std::size_t>(width);
  expects(bytes % token == 0, source->bytes.name(), ": the ", bytes, " bytes of the file are no whole number of ",
          8 * token, "-bit tokens");
  return TokenData(std::move(source), width, 0, static_cast<Index>(bytes / token));
}

RWKV_BODY TokenData::TokenData(std::vector<Token> tokens, std::string name)
    : TokenData(own(std::move(tokens), std::move(name))) {}

RWKV_BODY TokenData TokenData::slice(Index begin, Index end) const {
  expects(0 <= begin && begin <= end && end <= size_, name(), ": the range [", begin, ", ", end, ") is not within the ",
          size_, " tokens");
  return TokenData(source_, width_, begin_ + begin, end - begin);
}

template <class T>
void TokenData::copy_as(std::span<Token> to) const {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<Token>(load<T>(static_cast<Index>(i)));
}

RWKV_BODY void TokenData::copy(Index begin, std::span<Token> to) const {
  const TokenData part = slice(begin, begin <= size_ ? begin + std::ssize(to) : begin);
  switch (width_) {
    case TokenWidth::bits8: return part.copy_as<std::uint8_t>(to);
    case TokenWidth::bits16: return part.copy_as<std::uint16_t>(to);
    case TokenWidth::bits32: return part.copy_as<std::uint32_t>(to);
  }
}

RWKV_BODY void TokenData::check_vocabulary(Index vocab) const {
  for (Index i = 0; i < size_; ++i) {
    const std::uint32_t token = number(i);
    expects(Index{token} < vocab, name(), ": token ", token, " at position ", begin_ + i,
            " is outside the vocabulary of ", vocab);
  }
}

RWKV_BODY TokenData TokenData::own(std::vector<Token> tokens, std::string name) {
  const std::span<const Token> all(tokens);
  for (std::size_t i = 0; i < all.size(); ++i) {
    expects(all[i] >= 0, name, ": token ", all[i], " at position ", i, " is negative");
  }
  // Moving a vector leaves its elements where they are.
  return TokenData(
      std::make_shared<const Source>(Source{std::move(tokens), Bytes(std::as_bytes(all), std::move(name))}),
      TokenWidth::bits32, 0, std::ssize(all));
}

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

RWKV_BODY RandomWindows::RandomWindows(TokenData data, BatchShape shape, Seed seed)
    : data_(std::move(data)), shape_(shape), source_{.key = seed.value, .stream = stream_of("random windows")} {
  detail::batch_tokens(shape);
  expects(shape.length < data_.size(), data_.name(), ": ", detail::tokens_are(data_.size()), " too few for ",
          detail::windows_of(shape.length));
}

RWKV_BODY void RandomWindows::fill(Index step, Batch& batch) const {
  expects(step >= 0, data_.name(), ": there is no step ", step);
  const double starts = static_cast<double>(data_.size() - shape_.length);
  const auto start = [&](Index b) {
    const auto n = static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(shape_.batch);
    return static_cast<Index>(source_.block(n + static_cast<std::uint64_t>(b)).uniform_double(0) * starts);
  };
  detail::fill_batch(data_, shape_, true, start, batch);
}

RWKV_BODY ContiguousStreams::ContiguousStreams(TokenData data, BatchShape shape)
    : data_(std::move(data)), shape_(shape) {
  detail::batch_tokens(shape);
  // The last token of all is nothing but a target.
  stream_ = data_.size() == 0 ? 0 : (data_.size() - 1) / shape.batch;
  expects(shape.length <= stream_, data_.name(), ": ", detail::tokens_are(data_.size()), " too few for ", shape.batch,
          shape.batch == 1 ? " stream of " : " streams of ", detail::windows_of(shape.length));
}

RWKV_BODY void ContiguousStreams::fill(Index step, Batch& batch) const {
  expects(step >= 0, data_.name(), ": there is no step ", step);
  const Index window = step % steps_per_pass();
  const auto start = [&](Index b) { return b * stream_ + window * shape_.length; };
  detail::fill_batch(data_, shape_, window == 0, start, batch);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
