// Tokens from files and memory, and batches that depend only on the seed and the step.
#include "rwkv/train/token_data.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <system_error>
#include <vector>

#include "../io/checks.hpp"
#include "rwkv/system/stream_files.hpp"

using rwkv::Access;
using rwkv::Batch;
using rwkv::BatchShape;
using rwkv::ContiguousStreams;
using rwkv::Error;
using rwkv::Index;
using rwkv::RandomWindows;
using rwkv::Seed;
using rwkv::Token;
using rwkv::TokenData;
using rwkv::TokenWidth;
namespace fs = std::filesystem;

namespace {

/// The tokens 0, 1, 2, ...: every token equals its position.
TokenData counted(Index size) {
  std::vector<Token> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  return TokenData(std::move(tokens), "counted");
}

std::vector<Token> all(const TokenData& data) {
  std::vector<Token> tokens(static_cast<std::size_t>(data.size()));
  data.copy(0, tokens);
  for (Index i = 0; i < data.size(); ++i) CHECK(data[i] == tokens[static_cast<std::size_t>(i)]);
  return tokens;
}

using Tokens = std::vector<Token>;

}  // namespace

TEST_CASE("token data: integers of 8, 16 and 32 bits, loaded, mapped and without maps") {
  const build::Folder folder;
  const auto path = folder / "text.bin";
  build::put(path, std::string("\x01\x00\xff\x7f\x02\x01\x00\x00", 8));
  rwkv::detail::StreamFiles plain;
  for (const Access access : {Access::automatic, Access::loaded, Access::mapped}) {
    CHECK(all(TokenData::open(path, TokenWidth::bits8, access)) == Tokens{1, 0, 255, 127, 2, 1, 0, 0});
    CHECK(all(TokenData::open(path, TokenWidth::bits16, access)) == Tokens{1, 0x7fff, 0x102, 0});
    CHECK(all(TokenData::open(path, TokenWidth::bits32, access)) == Tokens{0x7fff0001, 0x102});
  }
  const TokenData data = TokenData::open(path, TokenWidth::bits16, Access::automatic, plain);
  CHECK(all(data) == Tokens{1, 0x7fff, 0x102, 0});
  CHECK(data.name() == path.string());
}

TEST_CASE("token data: slices and copies share the tokens and keep them alive") {
  const build::Folder folder;
  const auto path = folder / "text.bin";
  build::put(path, "abcdefgh");
  for (const bool from_file : {false, true}) {
    const TokenData part = [&] {
      const TokenData whole = from_file ? TokenData::open(path, TokenWidth::bits8, Access::mapped)
                                        : TokenData({97, 98, 99, 100, 101, 102, 103, 104});
      return whole.slice(2, 7);
    }();
    CHECK(all(part) == Tokens{99, 100, 101, 102, 103});
    CHECK(all(part.slice(1, 3)) == Tokens{100, 101});
    CHECK(all(part.slice(5, 5)).empty());
    const TokenData copy = part;
    Tokens two(2);
    copy.copy(3, two);
    CHECK(two == Tokens{102, 103});
  }
  CHECK(TokenData({}).size() == 0);
}

TEST_CASE("token data: what is outside is refused") {
  const TokenData data = counted(12).slice(2, 12);
  CHECK_THROWS_WITH_AS(data.slice(0, 11), "counted: the range [0, 11) is not within the 10 tokens", Error);
  CHECK_THROWS_WITH_AS(data.slice(-1, 3), "counted: the range [-1, 3) is not within the 10 tokens", Error);
  CHECK_THROWS_WITH_AS(data.slice(4, 3), "counted: the range [4, 3) is not within the 10 tokens", Error);
  Tokens three(3);
  CHECK_THROWS_WITH_AS(data.copy(8, three), "counted: the range [8, 11) is not within the 10 tokens", Error);
  CHECK_THROWS_AS(data.copy(11, three), Error);
  CHECK_THROWS_AS(data.copy(-1, three), Error);
  CHECK_THROWS_WITH_AS(TokenData({1, 2, -5}), "tokens: token -5 at position 2 is negative", Error);
}

TEST_CASE("token data: the vocabulary is checked, and the first token outside is named") {
  const TokenData data({1, 300, 2, 256, 0}, "text");
  CHECK_NOTHROW(data.check_vocabulary(301));
  CHECK_THROWS_WITH_AS(data.check_vocabulary(300), "text: token 300 at position 1 is outside the vocabulary of 300",
                       Error);
  CHECK_THROWS_WITH_AS(data.slice(2, 5).check_vocabulary(256),
                       "text: token 256 at position 3 is outside the vocabulary of 256", Error);
  CHECK_NOTHROW(data.slice(4, 5).check_vocabulary(1));

  const build::Folder folder;
  const auto path = folder / "text.bin";
  build::put(path, std::string("\x01\x00\x00\x00\xff\xff\xff\xff", 8));
  CHECK_THROWS_WITH_AS(TokenData::open(path, TokenWidth::bits32).check_vocabulary(65536),
                       (path.string() + ": token 4294967295 at position 1 is outside the vocabulary of 65536").c_str(),
                       Error);
}

TEST_CASE("token data: files that hold no tokens are refused by name") {
  const build::Folder folder;
  const auto path = folder / "text.bin";
  const auto refused = [&](TokenWidth width, const std::string& sentence, auto&&... files) {
    CHECK_THROWS_WITH_AS(TokenData::open(path, width, Access::automatic, files...), (path.string() + sentence).c_str(),
                         Error);
  };
  build::put(path, "");
  refused(TokenWidth::bits8, ": the file is empty");
  build::put(path, "12345");
  refused(TokenWidth::bits16, ": the 5 bytes of the file are no whole number of 16-bit tokens");
  refused(TokenWidth::bits32, ": the 5 bytes of the file are no whole number of 32-bit tokens");

  struct Broken : rwkv::detail::StreamFiles {
    std::error_code open(const fs::path&, std::unique_ptr<rwkv::File>&) override {
      return std::make_error_code(std::errc::io_error);
    }
  } broken;
  refused(TokenWidth::bits8, ": cannot open the file: " + std::make_error_code(std::errc::io_error).message(), broken);
}

TEST_CASE("token data: a change of a mapped file is noticed") {
  const build::Folder folder;
  const auto path = folder / "text.bin";
  build::put(path, "abcdefgh");
  fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const TokenData data = TokenData::open(path, TokenWidth::bits8, Access::mapped);
  CHECK_NOTHROW(data.check_unchanged());
  build::put(path, "12345678");
  CHECK_THROWS_AS(data.check_unchanged(), Error);
}

TEST_CASE("random windows: targets follow their tokens, and only the seed and the step decide") {
  const BatchShape shape{.batch = 3, .length = 5};
  const RandomWindows windows(counted(100), shape, Seed{4}), same(counted(100), shape, Seed{4}),
      other(counted(100), shape, Seed{5});
  Batch batch, again;
  std::size_t apart = 0;
  for (const Index step : {7, 0, 1000000, 7}) {
    windows.fill(step, batch);
    CHECK(batch.shape == shape);
    CHECK(batch.fresh);
    REQUIRE(batch.tokens.size() == 15);
    REQUIRE(batch.targets.size() == 15);
    for (std::size_t i = 0; i < 15; ++i) {
      CHECK(batch.tokens[i] == batch.tokens[i / 5 * 5] + static_cast<Token>(i % 5));
      CHECK(batch.targets[i] == batch.tokens[i] + 1);
    }
    same.fill(step, again);
    CHECK(again.tokens == batch.tokens);
    other.fill(step, again);
    apart += again.tokens != batch.tokens;
  }
  CHECK(apart == 4);
}

TEST_CASE("random windows: a large batch is several small ones") {
  const RandomWindows large(counted(1000), {.batch = 4, .length = 3}, Seed{1});
  const RandomWindows small(counted(1000), {.batch = 2, .length = 3}, Seed{1});
  Batch whole, first, second;
  large.fill(6, whole);
  small.fill(12, first);
  small.fill(13, second);
  first.tokens.insert(first.tokens.end(), second.tokens.begin(), second.tokens.end());
  CHECK(whole.tokens == first.tokens);
}

// 10 starts, 20000 draws: the expected count of each is 2000 with a standard deviation of 42.
TEST_CASE("random windows: every start is as likely as any other, the first and the last included") {
  const RandomWindows windows(counted(13), {.batch = 20, .length = 3}, Seed{2});
  std::vector<int> counts(10);
  Batch batch;
  for (Index step = 0; step < 1000; ++step) {
    windows.fill(step, batch);
    for (std::size_t row = 0; row < 20; ++row) ++counts.at(static_cast<std::size_t>(batch.tokens[row * 3]));
  }
  for (const int count : counts) CHECK(std::abs(count - 2000) < 200);

  const RandomWindows only(counted(4), {.batch = 1, .length = 3}, Seed{2});
  only.fill(0, batch);
  CHECK(batch.tokens == Tokens{0, 1, 2});
  CHECK(batch.targets == Tokens{1, 2, 3});
}

TEST_CASE("contiguous streams: each takes its part in order, and starts again with a fresh state") {
  const ContiguousStreams streams(counted(13), {.batch = 2, .length = 3});
  CHECK(streams.steps_per_pass() == 2);
  Batch batch;
  for (const Index pass : {0, 1, 500}) {
    streams.fill(2 * pass, batch);
    CHECK(batch.tokens == Tokens{0, 1, 2, 6, 7, 8});
    CHECK(batch.targets == Tokens{1, 2, 3, 7, 8, 9});
    CHECK(batch.fresh);
    streams.fill(2 * pass + 1, batch);
    CHECK(batch.tokens == Tokens{3, 4, 5, 9, 10, 11});
    CHECK(batch.targets == Tokens{4, 5, 6, 10, 11, 12});
    CHECK_FALSE(batch.fresh);
  }
}

TEST_CASE("contiguous streams: a pass reads no token twice and leaves out only what fills no window") {
  for (const BatchShape shape : {BatchShape{1, 1}, {1, 96}, {4, 6}, {8, 3}, {5, 7}, {96, 1}, {3, 20}}) {
    CAPTURE(shape.batch);
    CAPTURE(shape.length);
    const ContiguousStreams streams(counted(97), shape);
    std::vector<int> reads(97);
    Batch batch;
    for (Index step = 0; step < streams.steps_per_pass(); ++step) {
      streams.fill(step, batch);
      CHECK(batch.fresh == (step == 0));
      for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
        ++reads.at(static_cast<std::size_t>(batch.tokens[i]));
        CHECK(batch.targets[i] == batch.tokens[i] + 1);
      }
    }
    CHECK(*std::max_element(reads.begin(), reads.end()) == 1);
    const auto read = std::accumulate(reads.begin(), reads.end(), Index{0});
    CHECK(read == 96 / shape.batch / shape.length * shape.batch * shape.length);
  }
}

TEST_CASE("batches are filled again without new memory") {
  const RandomWindows windows(counted(50), {.batch = 2, .length = 8}, Seed{1});
  const ContiguousStreams streams(counted(50), {.batch = 2, .length = 8});
  Batch batch;
  windows.fill(0, batch);
  const Token* const tokens = batch.tokens.data();
  const Token* const targets = batch.targets.data();
  windows.fill(1, batch);
  streams.fill(1, batch);
  CHECK(batch.tokens.data() == tokens);
  CHECK(batch.targets.data() == targets);
}

TEST_CASE("batches that the data cannot give are refused") {
  Batch batch;
  const auto windows = [](Index size, BatchShape shape) { RandomWindows(counted(size), shape, Seed{}); };
  const auto streams = [](Index size, BatchShape shape) { ContiguousStreams(counted(size), shape); };
  CHECK_THROWS_WITH_AS(windows(12, {1, 256}),
                       "counted: 12 tokens are too few for windows of 256 tokens and their targets", Error);
  CHECK_THROWS_WITH_AS(windows(1, {1, 1}), "counted: 1 token is too few for windows of 1 token and its target", Error);
  CHECK_THROWS_WITH_AS(windows(0, {1, 1}), "counted: 0 tokens are too few for windows of 1 token and its target",
                       Error);
  CHECK_THROWS_WITH_AS(windows(12, {1, 12}),
                       "counted: 12 tokens are too few for windows of 12 tokens and their targets", Error);
  CHECK_NOTHROW(windows(13, {1, 12}));
  CHECK_THROWS_WITH_AS(streams(12, {3, 4}),
                       "counted: 12 tokens are too few for 3 streams of windows of 4 tokens and their targets", Error);
  CHECK_NOTHROW(streams(13, {3, 4}));
  CHECK_THROWS_WITH_AS(streams(0, {1, 1}),
                       "counted: 0 tokens are too few for 1 stream of windows of 1 token and its target", Error);
  for (const BatchShape shape : {BatchShape{0, 4}, {4, 0}, {-1, 4}, {4, -1}}) {
    CHECK_THROWS_AS(windows(12, shape), Error);
    CHECK_THROWS_AS(streams(12, shape), Error);
  }
  CHECK_THROWS_WITH_AS(windows(12, {2, 0}), "rwkv: a batch needs sequences and tokens, not 2 of 0", Error);
  CHECK_THROWS_WITH_AS(windows(12, {Index{1} << 61, 4}),
                       "rwkv: a batch of 2305843009213693952 sequences of 4 tokens is too large", Error);
  CHECK_THROWS_WITH_AS(RandomWindows(counted(9), {}, Seed{}).fill(-1, batch), "counted: there is no step -1", Error);
  CHECK_THROWS_WITH_AS(ContiguousStreams(counted(9), {}).fill(-1, batch), "counted: there is no step -1", Error);
}
