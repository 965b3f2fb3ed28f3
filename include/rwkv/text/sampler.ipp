#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/text/sampler.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

template <class T>
Token argmax(std::span<const T> logits) {
  expects(!logits.empty(), "rwkv: argmax: there are no logits");
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    expects(!is_nan(logits[i]), "rwkv: argmax: logit ", i, " is not a number");
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<Token>(best);
}

RWKV_BODY void SamplerMemory::reserve(std::size_t size) {
  if (counts.size() < size) counts.resize(size, never);
  picked.reserve(counts.size());
  logits.resize(size);
  candidates.reserve(size);
}

RWKV_BODY void SamplerMemory::count(Token token, double decay, double weight) {
  for (const Token seen : picked) counts[static_cast<std::size_t>(seen)] *= decay;
  double& own = counts[static_cast<std::size_t>(token)];
  if (own == never) {
    picked.push_back(token);
    own = 0;
  }
  own += weight;
}

}  // namespace detail

RWKV_BODY Token argmax(std::span<const float> logits) { return detail::argmax(logits); }
RWKV_BODY Token argmax(std::span<const double> logits) { return detail::argmax(logits); }

RWKV_BODY Token Sampler::operator()(std::span<const float> logits) { return pick(logits); }
RWKV_BODY Token Sampler::operator()(std::span<const double> logits) { return pick(logits); }

RWKV_BODY void Sampler::reset() {
  memory.counts.clear();
  memory.picked.clear();
}

template <class T>
Token Sampler::pick(std::span<const T> logits) {
  check_options();
  check_logits(logits);
  memory.reserve(logits.size());
  std::vector<double>& x = memory.logits;
  std::copy(logits.begin(), logits.end(), x.begin());
  for (const Token token : memory.picked) {
    const auto i = static_cast<std::size_t>(token);
    if (i < x.size()) x[i] -= presence_penalty + frequency_penalty * memory.counts[i];
  }
  const auto most_likely = std::max_element(x.begin(), x.end());
  const bool greedy = temperature == 0 || top_p == 0 || top_k == 1;
  const Token token = greedy ? static_cast<Token>(most_likely - x.begin()) : draw(*most_likely);
  const bool is_exempt = std::find(exempt.begin(), exempt.end(), token) != exempt.end();
  memory.count(token, penalty_decay, is_exempt ? 0 : 1);
  ++memory.draws;
  return token;
}

/// Draws by the inverse of the cumulative distribution over the kept tokens in the order of their ids.
RWKV_BODY Token Sampler::draw(double largest) {
  std::vector<double>& x = memory.logits;
  const std::span<const Token> kept = cut(largest);
  double sum = 0;
  for (const Token token : kept) {
    // p^(1/temperature), divided by that of the most likely token, which keeps it in range.
    double& weight = x[static_cast<std::size_t>(token)];
    weight = std::exp((weight - largest) / temperature);
    sum += weight;
  }
  const double target = sum * Philox{.key = seed}.block(memory.draws).uniform_double(0);
  double below = 0;
  return *std::find_if(kept.begin(), kept.end() - 1, [&](Token token) {
    below += x[static_cast<std::size_t>(token)];
    return target < below;
  });
}

/// The tokens that top-k and top-p keep, by id. The rank that top-p counts to is that of the whole distribution, and
/// top-k does not change it.
RWKV_BODY std::span<const Token> Sampler::cut(double largest) {
  const std::vector<double>& x = memory.logits;
  std::vector<Token>& candidates = memory.candidates;
  candidates.resize(x.size());
  std::iota(candidates.begin(), candidates.end(), Token{0});
  const std::size_t limit = top_k == 0 ? x.size() : std::min(static_cast<std::size_t>(top_k), x.size());
  if (top_p == 1 && limit == x.size()) return candidates;

  double needed = std::numeric_limits<double>::infinity();
  if (top_p < 1) {
    needed = 0;
    for (const double logit : x) needed += std::exp(logit - largest);
    needed *= top_p;
  }
  // A heap yields the tokens in order of likelihood, one by one, for as long as they are needed: in a vocabulary of
  // tens of thousands the kept ones are few, and sorting the rest would be the most expensive part of all.
  const auto less_likely = [&](Token a, Token b) {
    const double p = x[static_cast<std::size_t>(a)], q = x[static_cast<std::size_t>(b)];
    return p < q || (p == q && a > b);
  };
  std::make_heap(candidates.begin(), candidates.end(), less_likely);
  auto heap_end = candidates.end();
  double sum = 0;
  for (std::size_t count = 0; count < limit && sum < needed; ++count) {
    std::pop_heap(candidates.begin(), heap_end, less_likely);
    --heap_end;
    sum += std::exp(x[static_cast<std::size_t>(*heap_end)] - largest);
  }
  std::sort(heap_end, candidates.end());
  return {heap_end, candidates.end()};
}

RWKV_BODY void Sampler::check_options(std::string_view from) const {
  expects(is_finite(temperature) && temperature >= 0, from,
          ": sampler: the temperature must be finite and at least 0, not ", temperature);
  expects(top_k >= 0, from, ": sampler: top_k must be at least 0, not ", top_k);
  expects(is_between(top_p, 0, 1), from, ": sampler: top_p must be between 0 and 1, not ", top_p);
  expects(is_finite(presence_penalty), from, ": sampler: the presence penalty must be finite, not ", presence_penalty);
  expects(is_finite(frequency_penalty), from, ": sampler: the frequency penalty must be finite, not ",
          frequency_penalty);
  expects(is_between(penalty_decay, 0, 1), from, ": sampler: the penalty decay must be between 0 and 1, not ",
          penalty_decay);
}

template <class T>
void Sampler::check_logits(std::span<const T> logits) {
  expects(!logits.empty(), "rwkv: sampler: there are no logits");
  constexpr T infinity = std::numeric_limits<T>::infinity();
  bool possible = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (is_nan(logits[i]) || logits[i] == infinity)
      fail("rwkv: sampler: logit ", i, " is ", logits[i], "; it must be finite or -inf");
    possible = possible || logits[i] > -infinity;
  }
  expects(possible, "rwkv: sampler: all ", logits.size(), " logits are -inf, so no token is possible");
}

RWKV_BODY std::map<std::string, std::vector<double>> Sampler::numbers() const {
  std::map<std::string, std::vector<double>> named;
  named["options"] = {temperature,      static_cast<double>(top_k), top_p,
                      presence_penalty, frequency_penalty,          penalty_decay};
  for (const std::uint64_t word : {seed, memory.draws}) {
    named["random"].push_back(static_cast<double>(word & 0xffffffffu));
    named["random"].push_back(static_cast<double>(word >> 32));
  }
  named["counts"];  // also where there are none
  for (const Token token : memory.picked) {
    named["counts"].push_back(token);
    named["counts"].push_back(memory.counts[static_cast<std::size_t>(token)]);
  }
  named["exempt"].assign(exempt.begin(), exempt.end());
  return named;
}

RWKV_BODY Sampler Sampler::restored(const std::map<std::string, std::vector<double>>& numbers, Index vocab,
                                    std::string_view from) {
  const auto named = [&](const std::string& name) -> const std::vector<double>& {
    const auto found = numbers.find(name);
    expects(found != numbers.end(), from, ": sampler.", name, " is missing");
    return found->second;
  };
  const auto of_size = [&](const std::string& name, std::size_t size) -> const std::vector<double>& {
    const std::vector<double>& list = named(name);
    expects(list.size() == size, from, ": sampler.", name, " has ", list.size(), " numbers, not ", size);
    return list;
  };
  const auto whole = [&](const std::string& name, double number, double below) {
    expects(is_between(number, 0, below - 1) && number == std::floor(number), from, ": sampler.", name, " has ", number,
            ", where a whole number below ", below, " is due");
    return number;
  };
  const auto token = [&](const std::string& name, double number) {
    return static_cast<Token>(whole(name, number, static_cast<double>(vocab)));
  };
  const std::vector<double>&options = of_size("options", 6), &words = of_size("random", 4);
  Sampler made{.temperature = options[0],
               .top_k = static_cast<int>(whole("options", options[1], 0x1p31)),
               .top_p = options[2],
               .presence_penalty = options[3],
               .frequency_penalty = options[4],
               .penalty_decay = options[5]};
  made.check_options(from);
  const auto word = [&](std::size_t i) { return static_cast<std::uint64_t>(whole("random", words[i], 0x1p32)); };
  made.seed = word(0) | word(1) << 32;
  made.memory.draws = word(2) | word(3) << 32;
  for (const double id : named("exempt")) made.exempt.push_back(token("exempt", id));

  const std::vector<double>& counts = named("counts");
  expects(counts.size() % 2 == 0, from, ": sampler.counts has ", counts.size(), " numbers, which are no pairs");
  made.memory.reserve(static_cast<std::size_t>(vocab));
  for (std::size_t i = 0; i < counts.size(); i += 2) {
    const Token id = token("counts", counts[i]);
    double& count = made.memory.counts[static_cast<std::size_t>(id)];
    expects(count == detail::SamplerMemory::never, from, ": sampler.counts has token ", id, " twice");
    expects(is_finite(counts[i + 1]) && counts[i + 1] >= 0, from, ": sampler.counts has ", counts[i + 1], " for token ",
            id);
    made.memory.picked.push_back(id);
    count = counts[i + 1];
  }
  return made;
}

RWKV_BODY Sampler SamplerPreset::sampler(std::uint64_t seed) const {
  return {.temperature = temperature,
          .top_k = top_k,
          .top_p = top_p,
          .presence_penalty = presence_penalty,
          .frequency_penalty = frequency_penalty,
          .penalty_decay = penalty_decay,
          .seed = seed};
}

RWKV_BODY const SamplerPreset& sampler_preset(std::string_view name) {
  std::string names;
  for (const SamplerPreset& preset : sampler_presets) {
    if (preset.name == name) return preset;
    names += join(names.empty() ? "" : ", ", preset.name);
  }
  fail("rwkv: there is no sampler preset '", name, "'; there are ", names);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
