#pragma once
/// How well a model predicts a text.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "rwkv/model/context.hpp"
#include "rwkv/train/token_data.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How little a model expected a token, in nats: -ln softmax(logits)[token].
/// Errors    a token without a logit
template <class T>
double surprisal(std::span<const T> logits, Token token) {
  expects(token >= 0 && token < std::ssize(logits), "rwkv: token ", token, " is none of ", logits.size(), " logits");
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double total = 0;
  for (const T logit : logits) total += std::exp(static_cast<double>(logit) - largest);
  return std::log(total) + largest - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

/// Where the passes of an evaluation begin.
template <class T>
struct EvaluationStart {
  Index window = 0;        ///< predicted tokens after which it begins anew; 0: one pass over all
  std::vector<T> state{};  ///< numbers of Context::state(0) that each pass begins from; none: the empty state
};

/// The mean cross entropy, in nats per token, of every token of `data` given all tokens before it: one pass that starts from
/// the initial state, or passes over windows. `progress(tokens done)` is called now and then; if it returns false, the pass
/// ends, and the mean is over the tokens read so far.
/// Errors    fewer than two tokens, tokens outside the vocabulary
template <class Net, class Progress>
double evaluate(const Net& net, const TokenData& data, const Progress& progress,
                const EvaluationStart<typename Net::compute>& start = {}) {
  expects(start.window >= 0, "rwkv: a window of ", start.window, " tokens predicts nothing");
  expects(data.size() >= 2, data.name(), ": ", data.size(), data.size() == 1 ? " token is" : " tokens are",
          " too few to predict any");
  data.check_vocabulary(net.sizes().vocab);
  constexpr Index chunk = 512;
  const auto vocab = static_cast<std::size_t>(net.sizes().vocab);
  auto context = net.context({.chunk = chunk});
  std::vector<Token> tokens(static_cast<std::size_t>(chunk) + 1);
  std::vector<typename Net::compute> logits(static_cast<std::size_t>(chunk) * vocab);
  double sum = 0;
  Index done = 0;
  while (done < data.size() - 1) {
    const Index in_window = start.window == 0 ? done : done % start.window;
    if (in_window == 0 && start.state.empty()) context.reset();
    if (in_window == 0 && !start.state.empty()) context.restore(0, start.state);
    const Index left = start.window == 0 ? chunk : start.window - in_window;
    const auto count = static_cast<std::size_t>(std::min({chunk, left, data.size() - 1 - done}));
    data.copy(done, std::span(tokens).first(count + 1));
    context.sequence(std::span<const Token>(tokens).first(count), std::span(logits).first(count * vocab));
    for (std::size_t i = 0; i < count; ++i) {
      sum += surprisal(std::span<const typename Net::compute>(logits).subspan(i * vocab, vocab), tokens[i + 1]);
    }
    done += static_cast<Index>(count);
    if (!progress(done)) break;
  }
  return sum / static_cast<double>(done);
}
/// The same, over all of the data.
template <class Net>
double evaluate(const Net& net, const TokenData& data) {
  return evaluate(net, data, [](Index) { return true; });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
