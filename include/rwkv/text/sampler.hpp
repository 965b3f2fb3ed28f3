#pragma once
/// From logits to the next token.
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
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

  /// Existing counts fade, and `token` gains `weight`. Cannot fail: reserve() made the room.
  void count(Token token, double decay, double weight);
};

}  // namespace detail

/// The token with the largest logit, the lowest of them on a tie. Throws an Error naming the first NaN, or when there
/// are no logits.
Token argmax(std::span<const float> logits);
/// The first of the largest logits.
Token argmax(std::span<const double> logits);

/// Draws the next token, in the order of ChatRWKV: penalties on the logits, softmax, top-k and top-p cuts, and only
/// then the temperature, as p^(1/temperature). (Others apply the temperature before the cuts.) It computes in double
/// and draws from Philox, so a seed gives the same tokens everywhere, up to the last bits of the platform's exp. After
/// an Error everything is as it was.
///
/// It differs from the official Python package `rwkv` (0.8.32, on the CPU)
///   - where top_p is 1: here every token stays possible. There, sums in float of a large vocabulary may never reach 1,
///     and then only the most likely token stays;
///   - at the edge of top_p: here the lower ids of equally likely tokens are kept, as many as are needed; there all are;
///   - at temperature 0: here the lowest id of equally likely tokens is taken; there one of them is drawn;
///   - in the frequency penalty: there digits and blanks never count for it. `exempt = digits_and_blanks(tokenizer)` does
///     the same here;
///   - in its random numbers.
struct Sampler {
  double temperature = 1;       ///< 0: always the most likely token
  int top_k = 0;                ///< keep the k most likely tokens; 0: all
  double top_p = 1;             ///< keep the most likely tokens up to the first sum >= top_p; 1: all, 0: only the first
  double presence_penalty = 0;  ///< subtracted from the logit of every token picked before
  double frequency_penalty = 0;  ///< subtracted once for each time it was picked, by its decayed count
  double penalty_decay = 0.996;  ///< what is left of a count after one more token
  std::vector<Token> exempt{};   ///< tokens whose count stays 0: the presence penalty is all that they get
  std::uint64_t seed = 0;        ///< of the random numbers

  detail::SamplerMemory memory{};  ///< what the penalties and the random numbers remember

  /// The next token. Equally likely tokens are ordered by id, the lower first. Throws an Error for a NaN or +inf
  /// (naming the token), when every logit is -inf or there are none, and for options out of range. With the same number
  /// of logits as before, it allocates nothing.
  Token operator()(std::span<const float> logits);
  /// The same for logits in double.
  Token operator()(std::span<const double> logits);

  /// Forgets the tokens picked so far, for a new text. The random sequence goes on.
  void reset();

  /// Options and memory as plain numbers by name, for a file (save_conversation): a sampler restored from them draws
  /// the same tokens. They are "options", in the order above; "random", the seed and the number of draws as halves
  /// of 32 bits, the lower first; "counts", each token that has a count and the count; "exempt".
  std::map<std::string, std::vector<double>> numbers() const;

  /// The sampler that numbers() describes, for a model with `vocab` rows.
  /// Errors    numbers that are missing, too many or out of range. The sentence begins with `from`, such as a file
  static Sampler restored(const std::map<std::string, std::vector<double>>& numbers, Index vocab,
                          std::string_view from = "rwkv");

 private:
  template <class T>
  Token pick(std::span<const T> logits);
  Token draw(double largest);
  std::span<const Token> cut(double largest);
  void check_options(std::string_view from = "rwkv") const;
  template <class T>
  static void check_logits(std::span<const T> logits);
};

/// Options that the makers of the models recommend (RWKV-7 G1, 2026).
struct SamplerPreset {
  std::string_view name;                                             ///< of the preset
  double temperature;                                                ///< see Sampler
  int top_k;                                                         ///< see Sampler
  double top_p, presence_penalty, frequency_penalty, penalty_decay;  ///< see Sampler

  /// A sampler with these numbers.
  Sampler sampler(std::uint64_t seed = 0) const;
};
/// The presets, those of official demonstrations.
inline constexpr SamplerPreset sampler_presets[] = {
    {"open-think", 0.96, 32, 0.76, 1.0, 0.1, 0.988},  // the model thinks before it answers
    {"fake-think", 1.0, 32, 0.28, 0, 0, 0.996},       // its thoughts were left empty for it
    {"tools", 0.96, 32, 0.76, 0, 0, 0.996},           // it calls tools
};

/// The preset of that name. Errors    there is none
const SamplerPreset& sampler_preset(std::string_view name);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/text/sampler.ipp"
#endif
