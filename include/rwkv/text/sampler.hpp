#pragma once
/// From logits to the next token.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/token.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// What a sampler remembers between calls, and its scratch.
struct SamplerMemory {
  static constexpr double never = -1;

  std::uint64_t draws = 0;        // calls so far: the position in the random sequence
  std::vector<double> counts;     // by token: how often it was picked, decayed; or `never`
  std::vector<Token> picked;      // the tokens that have a count
  std::vector<double> logits;     // scratch: after the penalties
  std::vector<Token> candidates;  // scratch: the tokens to choose from

  /// After this, a call with `size` logits allocates nothing.
  void reserve(std::size_t size);

  /// Existing counts fade, and `token` gains one. Cannot fail: reserve() made the room.
  void count(Token token, double decay);
};

}  // namespace detail

/// The token with the largest logit, the lowest of them on a tie. Throws an Error naming the first NaN, or when there
/// are no logits.
Token argmax(std::span<const float> logits);
Token argmax(std::span<const double> logits);

/// Draws the next token, in the order of ChatRWKV: penalties on the logits, softmax, top-k and top-p cuts, and only
/// then the temperature, as p^(1/temperature). (Others apply the temperature before the cuts.) It computes in double
/// and draws from Philox, so a seed gives the same tokens everywhere, up to the last bits of the platform's exp. After
/// an Error everything is as it was.
struct Sampler {
  double temperature = 1;       ///< 0: always the most likely token
  int top_k = 0;                ///< keep the k most likely tokens; 0: all
  double top_p = 1;             ///< keep the most likely tokens up to the first sum >= top_p; 1: all, 0: only the first
  double presence_penalty = 0;  ///< subtracted from the logit of every token picked before
  double frequency_penalty = 0;  ///< subtracted once for each time it was picked, by its decayed count
  double penalty_decay = 0.996;  ///< what is left of a count after one more token
  std::uint64_t seed = 0;

  detail::SamplerMemory memory{};

  /// The next token. Equally likely tokens are ordered by id, the lower first. Throws an Error for a NaN or +inf
  /// (naming the token), when every logit is -inf or there are none, and for options out of range. With the same number
  /// of logits as before, it allocates nothing.
  Token operator()(std::span<const float> logits);
  Token operator()(std::span<const double> logits);

  /// Forgets the tokens picked so far, for a new text. The random sequence goes on.
  void reset();

 private:
  template <class T>
  Token pick(std::span<const T> logits);
  Token draw(double largest);
  std::span<const Token> cut(double largest);
  template <class T>
  void check(std::span<const T> logits) const;
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/text/sampler.ipp"
#endif
