#pragma once
/// From a prompt to streamed text.
#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/model/state_ring.hpp"
#include "rwkv/text/text_stream.hpp"
#include "rwkv/text/tokenizer.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Why generate() returned.
enum class Finish : unsigned char { length, end_of_text, cancelled, stop };

/// What generate() did, and how long it took.
struct GenerateStats {
  Index prompt_tokens = 0;         ///< tokens of the prompt
  Index new_tokens = 0;            ///< after the prompt, that the context has seen
  double prefill_seconds = 0;      ///< the prompt
  double decode_seconds = 0;       ///< everything after it: picking, decoding, emitting and stepping
  Finish finish = Finish::length;  ///< why it ended
  std::string stop;                ///< the stop string, if it was one

  /// Tokens of the prompt per second.
  double prefill_tokens_per_second() const { return rate(prompt_tokens, prefill_seconds); }
  /// New tokens per second.
  double decode_tokens_per_second() const { return rate(new_tokens, decode_seconds); }

 private:
  static double rate(Index count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }
};

/// The logits that a token may be chosen by, since a model may have rows that stand for none: rows behind the last token
/// are cut off, and others without a token become -inf in a copy. The result lives until the next call, and no longer
/// than the logits.
///
///     TokenLogits known(tokenizer);
///     Token token = pick(known(logits));
template <class T = float>
class TokenLogits {
 public:
  /// Of the tokens that this tokenizer knows.
  explicit TokenLogits(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  /// The logits to choose by. Logits: [rows of the model]
  std::span<const T> operator()(std::span<const T> logits) {
    if (rows_ != logits.size()) {
      rows_ = kept_ = logits.size();
      missing_ = tokenizer_.missing(static_cast<Index>(rows_));
      if (!missing_.empty() && static_cast<std::size_t>(missing_.back().second) == rows_) {
        kept_ = static_cast<std::size_t>(missing_.back().first);
        missing_.pop_back();
      }
    }
    logits = logits.first(kept_);
    if (missing_.empty()) return logits;
    copy_.assign(logits.begin(), logits.end());
    for (const auto& [first, last] : missing_)
      std::fill(copy_.begin() + first, copy_.begin() + last, -std::numeric_limits<T>::infinity());
    return copy_;
  }

 private:
  Tokenizer tokenizer_;
  std::size_t rows_ = 0, kept_ = 0;
  std::vector<std::pair<Token, Token>> missing_;
  std::vector<T> copy_;
};

namespace detail {

/// The ring of states of a context; of one that has no ring, an Error.
template <class Context>
struct ring_of {
  struct type {
    type(Context&, Index) { fail("rwkv: generate: stop strings need a context that StateRing takes"); }
    void push() {}
    void back(Index) {}
  };
};
template <class Context>
requires requires(Context& context) { StateRing(context, Index{1}); }
struct ring_of<Context> {
  using type = decltype(StateRing(std::declval<Context&>(), Index{1}));
};

/// A token of a text, and how many bytes of the text come before it.
struct TokenPlace {
  Token token = 0;
  std::size_t begin = 0;
};

/// The way back to where a stop string began: the states before each token that may hold a part of one.
template <class Context>
class WayBack {
 public:
  WayBack(Context& context, std::size_t longest_stop) {
    // A stop string of one byte lies in the token that completes it, which was not run.
    if (longest_stop > 1) states_.emplace(context, static_cast<Index>(longest_stop) - 1);
  }

  /// To be called before the context takes a token; `may_stop` says whether a stop string may begin in or before it.
  void before(TokenPlace token, bool may_stop) {
    if (!may_stop) return tokens_.clear();
    states_->push();
    tokens_.push_back(token);
  }

  /// Sets the context to the state before the token that has the byte number `byte`, which is `last` or a token since
  /// which a stop string may have begun, and returns the token. `undone` is the number of tokens taken back.
  TokenPlace to(std::size_t byte, TokenPlace last, Index& undone) {
    undone = 0;
    while (last.begin > byte) {
      last = tokens_[tokens_.size() - static_cast<std::size_t>(++undone)];
    }
    if (undone > 0) states_->back(undone - 1);  // the latest push came before the latest token
    return last;
  }

 private:
  std::optional<typename ring_of<Context>::type> states_;
  std::vector<TokenPlace> tokens_;
};

}  // namespace detail

/// Continues `prompt` by up to `max_tokens` tokens and hands the text to `emit(std::string_view) -> bool` as soon as
/// whole characters are there; an unfinished character at the end becomes U+FFFD. Ends early at the end of text, at the
/// first of the strings `stops`, which may lie across tokens and is never emitted, or when emit returns false.
///
/// On return the context has seen the prompt and every token counted in `new_tokens`, so a conversation can go on from
/// there. After a stop string it is as if the text before it had been all: where a token has both, the context has gone
/// back before it, and has taken the text before the stop string in tokens of its own. (The memory of `pick` keeps what
/// was picked.) That needs states for as many tokens as the longest of `stops` has bytes, less one.
///
/// `context` has one sequence, prefill(span of tokens) and step(token), which both return the logits for the next token,
/// and `pick(logits)` chooses it; or `pick` is what Context::draw takes, and chooses on the device. Rows of the model that
/// stand for no token are never chosen: `pick` sees the others, or is told once by `bar(first, last)`.
/// Errors    an empty prompt or stop string; stop strings for a context that StateRing does not take; those of the parts, after
///           which the text that was emitted may be a token ahead of the context
template <class Context, class Pick, class Emit>
requires std::predicate<Emit&, std::string_view> GenerateStats generate(Context& context, const Tokenizer& tokenizer,
                                                                        std::string_view prompt, Index max_tokens,
                                                                        Pick&& pick, Emit&& emit,
                                                                        const std::vector<std::string>& stops = {}) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  expects(!prompt.empty(), "rwkv: generate: the prompt is empty");
  expects(max_tokens >= 0, "rwkv: generate: the number of tokens must be at least 0, not ", max_tokens);
  TextStream stream(stops);
  detail::WayBack<Context> way_back(context, stream.longest_stop());

  GenerateStats stats;
  const std::vector<Token> tokens = tokenizer.encode(prompt);
  const auto prefill_begin = Clock::now();
  decltype(context.prefill(std::span<const Token>(tokens))) logits{};
  const auto prefill = [&](const std::vector<Token>& some) {  // whether no Watch has stopped it
#if defined(__cpp_exceptions)
    try {
      logits = context.prefill(std::span<const Token>(some));
    } catch (const Cancelled&) {
      return false;
    }
#else
    logits = context.prefill(std::span<const Token>(some));
#endif
    return true;
  };
  if (!prefill(tokens)) {
    stats.finish = Finish::cancelled;
    return stats;
  }
  stats.prompt_tokens = static_cast<Index>(tokens.size());
  stats.prefill_seconds = seconds_since(prefill_begin);

  const auto decode_begin = Clock::now();
  // Where the choice is made where the logits are, they stay there.
  constexpr bool in_place = requires { context.draw(pick); };
  [[maybe_unused]] TokenLogits<typename decltype(logits)::value_type> known(tokenizer);
  if constexpr (in_place) {
    for (const auto& [first, last] : tokenizer.missing(context.vocab())) pick.bar(first, last);
  }
  Token token = 0;
  if (max_tokens > 0) {
    if constexpr (in_place) token = context.draw(pick).front();
    else token = pick(known(logits));
  }
  detail::Reporting reporting(Phase::generate, max_tokens);
  std::size_t bytes = 0;  // before the token
  while (stats.new_tokens < max_tokens && stats.finish == Finish::length) {
    if (token == tokenizer.end_of_text()) {
      stats.finish = Finish::end_of_text;
      break;
    }
    const std::string_view spelled = tokenizer.decode(token);
    const std::string piece = stream.push(spelled);
    if (!piece.empty() && !emit(std::string_view(piece))) stats.finish = Finish::cancelled;
    if (stream.stopped()) {
      Index undone = 0;
      const auto [cut, begin] = way_back.to(stream.stop_begin(), {token, bytes}, undone);
      const std::vector<Token> kept = tokenizer.encode(tokenizer.decode(cut).substr(0, stream.stop_begin() - begin));
      stats.new_tokens -= undone;
      if (!kept.empty() && !prefill(kept)) {
        stats.finish = Finish::cancelled;
      } else {
        stats.new_tokens += static_cast<Index>(kept.size());
        stats.finish = Finish::stop;
        stats.stop = stream.stop();
      }
      break;
    }
    way_back.before({token, bytes}, stream.held() > 0);
    bytes += spelled.size();
    ++stats.new_tokens;
    if (!reporting.advance(1)) stats.finish = Finish::cancelled;
    const bool more = stats.new_tokens < max_tokens && stats.finish == Finish::length;
    if constexpr (in_place) {
      if (more) token = context.step(std::span<const Token>(&token, 1), pick).front();
      else context.step(token);
    } else {
      logits = context.step(token);
      if (more) token = pick(known(logits));
    }
  }
  const std::string rest = stream.flush();
  if (!rest.empty() && stats.finish != Finish::cancelled) emit(std::string_view(rest));
  stats.decode_seconds = seconds_since(decode_begin);
  return stats;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
