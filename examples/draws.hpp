#pragma once
// Random digits for tasks.
#include <rwkv/core/random.hpp>
#include <rwkv/core/token.hpp>

#include <cstdint>
#include <string_view>

namespace example {

using namespace rwkv;

/// A sequence of random whole numbers: a function of the seed, a name and a number of the sequence.
class Draws {
 public:
  Draws(Seed seed, std::string_view name, Index sequence)
      : source_{.key = seed.value, .stream = stream_of(name)}, next_(static_cast<std::uint64_t>(sequence) << 32) {}

  /// Uniform in [0, n).
  Token below(Index n) {
    const std::uint64_t word = source_.block(next_ / 4).words[next_ % 4];
    ++next_;
    return static_cast<Token>(word * static_cast<std::uint64_t>(n) >> 32);
  }

 private:
  Philox source_;
  std::uint64_t next_;
};

}  // namespace example
