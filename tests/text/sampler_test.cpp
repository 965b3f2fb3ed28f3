// The sampler against a full sort in double precision, an independent implementation in another language, and
// statistics.
#include "rwkv/text/sampler.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "rwkv/core/random.hpp"

namespace {

using rwkv::argmax;
using rwkv::Error;
using rwkv::Philox;
using rwkv::Sampler;
using rwkv::Token;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// The probabilities after the cuts and the temperature, step by step as ChatRWKV computes them.
std::vector<double> distribution(const std::vector<double>& logits, const Sampler& options) {
  double temperature = options.temperature, top_p = options.top_p;
  if (temperature == 0) {
    temperature = 1;
    top_p = 0;
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  double total = 0;
  for (const double x : logits) {
    p.push_back(std::exp(x - largest));
    total += p.back();
  }
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  std::size_t kept = order.size();
  double sum = 0;
  for (std::size_t rank = 0; rank < order.size() && top_p < 1; ++rank) {
    sum += p[order[rank]];
    if (sum >= top_p * total) {
      kept = rank + 1;
      break;
    }
  }
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  for (std::size_t rank = kept; rank < order.size(); ++rank) p[order[rank]] = 0;
  double weights = 0;
  for (double& x : p) {
    x = std::pow(x, 1 / temperature);
    weights += x;
  }
  for (double& x : p) x /= weights;
  return p;
}

// The whole sampler: the distribution above, a walk over all tokens, penalties kept in a map.
struct Reference {
  Sampler options;
  std::map<Token, double> counts{};
  std::uint64_t draws = 0;

  Token operator()(std::vector<double> logits) {
    for (const auto& [token, count] : counts) {
      logits[static_cast<std::size_t>(token)] -= options.presence_penalty + count * options.frequency_penalty;
    }
    const std::vector<double> p = distribution(logits, options);
    const double u = Philox{.key = options.seed}.block(draws++).uniform_double(0);
    double below = 0;
    std::size_t choice = 0;
    for (std::size_t i = 0; i < p.size() && !(u < below); ++i) {
      below += p[i];
      if (p[i] > 0) choice = i;
    }
    for (auto& [token, count] : counts) count *= options.penalty_decay;
    counts[static_cast<Token>(choice)] += 1;
    return static_cast<Token>(choice);
  }
};

std::vector<Token> draw(Sampler pick, const std::vector<double>& logits, int count) {
  std::vector<Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(pick(logits));
  return tokens;
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("argmax takes the lowest of equals and refuses NaN") {
  CHECK(argmax(std::vector<float>{1, 3, 3, 2}) == 1);
  CHECK(argmax(std::vector<double>{-inf, -inf}) == 0);
  CHECK(argmax(std::vector<double>{0, inf, 5, inf}) == 1);
  CHECK(argmax(std::vector<float>{-2, -1}) == 1);
  CHECK(mentions(error_of([] { argmax(std::vector<double>{1, 2, nan, nan}); }), "logit 2 "));
  CHECK(mentions(error_of([] { argmax(std::vector<float>{}); }), "no logits"));
}

TEST_CASE("options are given by name") {
  Sampler pick{.temperature = 0.9f, .top_p = 0.7f, .seed = 42};
  const std::vector<float> logits{1, 2, 3};
  const Token token = pick(logits);
  CHECK(token >= 1);
  CHECK(token <= 2);
}

// Computed by a separate program in Python, with a Philox of its own.
TEST_CASE("a seed gives the known tokens") {
  std::vector<double> logits;
  for (int i = 0; i < 16; ++i) logits.push_back(((7 * i) % 16) / 4.0);
  CHECK(draw({.temperature = 0.9, .top_p = 0.7, .seed = 42}, logits, 24) ==
        std::vector<Token>{9, 4, 9, 9, 11, 4, 11, 9, 2, 9, 9, 9, 2, 9, 11, 4, 2, 9, 13, 2, 13, 9, 9, 11});
  const Sampler penalised{.temperature = 1.5,
                          .top_k = 6,
                          .top_p = 0.95,
                          .presence_penalty = 0.25,
                          .frequency_penalty = 0.5,
                          .penalty_decay = 0.9,
                          .seed = 42};
  CHECK(draw(penalised, logits, 24) ==
        std::vector<Token>{9, 4, 11, 9, 13, 4, 11, 6, 2, 9, 11, 8, 2, 9, 13, 4, 2, 9, 15, 2, 13, 4, 9, 13});
}

TEST_CASE("partial selection gives the tokens of the full sort") {
  std::mt19937 random(5);
  const auto pick_of = [&](std::initializer_list<double> list) { return list.begin()[random() % list.size()]; };
  for (int round = 0; round < 400; ++round) {
    const Sampler options{.temperature = pick_of({0, 0.3, 1, 1, 2.5}),
                          .top_k = static_cast<int>(pick_of({0, 0, 1, 3, 40, 1000})),
                          .top_p = pick_of({0, 0.05, 0.5, 0.9, 0.999, 1}),
                          .presence_penalty = pick_of({0, 0.2, 1}),
                          .frequency_penalty = pick_of({0, 0.4, -0.1}),
                          .penalty_decay = pick_of({0, 0.9, 0.996, 1}),
                          .seed = random()};
    Sampler pick = options;
    Reference reference{options};
    const double spread = pick_of({0, 1, 8, 60});
    const std::size_t size = 1 + random() % 300;
    for (int step = 0; step < 12; ++step) {
      std::vector<double> logits;
      for (std::size_t i = 0; i < size; ++i) {
        // Coarse steps, so that ties abound.
        logits.push_back(spread * (static_cast<int>(random() % 33) - 16) / 16);
        if (i > 0 && random() % 16 == 0) logits.back() = -inf;
      }
      REQUIRE(pick(logits) == reference(logits));
    }
  }
}

TEST_CASE("draws follow the distribution") {
  const std::vector<double> logits{2, 0.5, -1, 1.5, 0, -inf, 1, -3};
  for (const Sampler& options : {Sampler{.seed = 11}, Sampler{.temperature = 0.7, .seed = 12},
                                 Sampler{.temperature = 2, .top_k = 5, .top_p = 0.95, .seed = 13}}) {
    const std::vector<double> p = distribution(logits, options);
    constexpr int draws = 100000;
    std::vector<int> counts(logits.size());
    Sampler pick = options;
    for (int i = 0; i < draws; ++i) ++counts[static_cast<std::size_t>(pick(logits))];
    double chi_square = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) {
        CHECK(counts[i] == 0);
      } else {
        const double expected = draws * p[i];
        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
      }
    }
    CHECK(chi_square < 22.46);  // 6 degrees of freedom or fewer, 99.9 %
  }
}

TEST_CASE("top-p stops at the first sum that reaches it") {
  const std::vector<double> even{0, 0, 0, 0};
  const auto kept = [&](double top_p, int top_k) {
    std::vector<Token> tokens = draw({.top_k = top_k, .top_p = top_p, .seed = 3}, even, 400);
    std::sort(tokens.begin(), tokens.end());
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    return tokens;
  };
  CHECK(kept(0, 0) == std::vector<Token>{0});
  CHECK(kept(0.25, 0) == std::vector<Token>{0});
  CHECK(kept(0.2500001, 0) == std::vector<Token>{0, 1});
  CHECK(kept(0.5, 0) == std::vector<Token>{0, 1});
  CHECK(kept(0.75, 0) == std::vector<Token>{0, 1, 2});
  CHECK(kept(0.75, 2) == std::vector<Token>{0, 1});
  CHECK(kept(0.9, 0) == std::vector<Token>{0, 1, 2, 3});
  CHECK(kept(1, 3) == std::vector<Token>{0, 1, 2});
  CHECK(kept(1, 4) == std::vector<Token>{0, 1, 2, 3});
  CHECK(kept(1, 1000000) == std::vector<Token>{0, 1, 2, 3});
}

TEST_CASE("top-p counts the whole distribution, and cuts before the temperature") {
  // Probabilities 0.5, 0.3, 0.2. Within the two that top-k keeps, 0.5 alone would be 0.625 >= 0.6.
  const std::vector<double> logits{std::log(0.5), std::log(0.3), std::log(0.2)};
  const std::vector<Token> tokens = draw({.top_k = 2, .top_p = 0.6, .seed = 1}, logits, 200);
  CHECK(std::count(tokens.begin(), tokens.end(), 1) > 0);
  CHECK(std::count(tokens.begin(), tokens.end(), 2) == 0);
  // A temperature of 10 before the cut would need all three tokens for 0.75.
  const std::vector<Token> hot = draw({.temperature = 10, .top_p = 0.75, .seed = 1}, logits, 200);
  CHECK(std::count(hot.begin(), hot.end(), 2) == 0);
  // A temperature of 0.1 before the cut would leave the first alone.
  const std::vector<Token> cold = draw({.temperature = 0.5, .top_p = 0.75, .seed = 1}, logits, 200);
  CHECK(std::count(cold.begin(), cold.end(), 1) > 0);
}

TEST_CASE("greedy settings take the lowest of the most likely") {
  const std::vector<double> logits{1, 4, 4, -2};
  for (const Sampler& options : {Sampler{.temperature = 0}, Sampler{.top_k = 1}, Sampler{.top_p = 0}}) {
    CHECK(draw(options, logits, 20) == std::vector<Token>(20, 1));
  }
}

TEST_CASE("penalties follow the counts and their decay") {
  // Greedy picks show the penalised logits exactly.
  const std::vector<double> logits{1, 0.75, 0};
  Sampler pick{.temperature = 0, .presence_penalty = 0.25, .frequency_penalty = 0.5, .penalty_decay = 0.5};
  CHECK(pick(logits) == 0);  // 1, 0.75, 0
  CHECK(pick(logits) == 1);  // 1 - 0.25 - 0.5 = 0.25, 0.75, 0
  CHECK(pick(logits) == 0);  // 1 - 0.25 - 0.25 = 0.5, 0.75 - 0.25 - 0.5 = 0, 0
  CHECK(pick(logits) == 1);  // 1 - 0.25 - 0.625 = 0.125, 0.75 - 0.25 - 0.25 = 0.25, 0
  CHECK(pick(logits) == 0);  // 1 - 0.25 - 0.3125 = 0.4375, 0.75 - 0.25 - 0.625 = -0.125, 0
  // A logit of -inf stays impossible.
  pick.frequency_penalty = -1e30;
  CHECK(pick(std::vector<double>{-inf, -inf, -5}) == 2);
}

TEST_CASE("reset forgets the tokens picked so far") {
  const std::vector<double> first(50, 0.0), second(20, 0.0);
  Sampler pick{.presence_penalty = 30, .seed = 6};
  for (int i = 0; i < 40; ++i) pick(first);
  pick.reset();
  // The penalty makes it unlikely beyond measure to draw a token twice before all have been drawn.
  std::vector<Token> tokens = {};
  for (int i = 0; i < 20; ++i) tokens.push_back(pick(second));
  Sampler fresh{.presence_penalty = 30, .seed = 6};
  fresh.memory.draws = 40;
  for (const Token token : tokens) CHECK(fresh(second) == token);
  std::sort(tokens.begin(), tokens.end());
  CHECK(std::adjacent_find(tokens.begin(), tokens.end()) == tokens.end());
}

TEST_CASE("same seed same tokens, other seed others; float and double agree") {
  std::vector<double> logits;
  for (std::uint64_t i = 0; i < 5000; ++i) logits.push_back(8 * Philox{.key = 9}.block(i).uniform_float(0));
  const std::vector<float> single(logits.begin(), logits.end());
  const Sampler options{.temperature = 0.8, .top_p = 0.9, .frequency_penalty = 0.3, .seed = 77};
  const std::vector<Token> tokens = draw(options, logits, 50);
  CHECK(tokens == draw(options, logits, 50));
  Sampler other = options;
  other.seed = 78;
  CHECK(tokens != draw(other, logits, 50));
  Sampler pick = options;
  std::vector<Token> from_single;
  for (int i = 0; i < 50; ++i) from_single.push_back(pick(single));
  CHECK(tokens == from_single);
}

TEST_CASE("extreme logits and temperatures") {
  CHECK(draw({.temperature = 1e-300}, {1, 2, 1.5}, 20) == std::vector<Token>(20, 1));
  CHECK(draw({.temperature = 1e-3}, {-1e30, -1e29, -1e30}, 20) == std::vector<Token>(20, 1));
  CHECK(draw({}, {-1.7e308, 1.7e308}, 20) == std::vector<Token>(20, 1));
  CHECK(draw({.top_p = 0.999999999}, {-inf, -3, -inf}, 20) == std::vector<Token>(20, 1));
  const std::vector<Token> flat = draw({.temperature = 1e300, .seed = 2}, {0, 100}, 400);
  CHECK(std::count(flat.begin(), flat.end(), 0) > 150);
  CHECK(std::count(flat.begin(), flat.end(), 0) < 250);
  CHECK(draw({}, {-4}, 3) == std::vector<Token>(3, 0));
}

TEST_CASE("errors name the reason and change nothing") {
  const std::vector<double> logits{0.5, 1, 0, 0.25, -0.5};
  const Sampler options{.top_p = 0.9, .frequency_penalty = 0.5, .seed = 4};
  const std::vector<Token> expected = draw(options, logits, 40);

  struct Case {
    const char* reason;
    void (*change)(Sampler&);
    std::vector<double> logits;
  };
  const auto keep = [](Sampler&) {};
  const std::vector<Case> cases = {
      {"logit 2 is nan", keep, {1, 0, nan, inf, 0}},
      {"logit 3 is inf", keep, {1, 0, -inf, inf, 0}},
      {"no logits", keep, {}},
      {"all 3 logits are -inf", keep, {-inf, -inf, -inf}},
      {"temperature", [](Sampler& s) { s.temperature = -0.1; }, logits},
      {"temperature", [](Sampler& s) { s.temperature = nan; }, logits},
      {"temperature", [](Sampler& s) { s.temperature = inf; }, logits},
      {"top_k must be at least 0, not -1", [](Sampler& s) { s.top_k = -1; }, logits},
      {"top_p", [](Sampler& s) { s.top_p = -0.001; }, logits},
      {"top_p must be between 0 and 1, not 1.5", [](Sampler& s) { s.top_p = 1.5; }, logits},
      {"top_p", [](Sampler& s) { s.top_p = nan; }, logits},
      {"presence penalty", [](Sampler& s) { s.presence_penalty = nan; }, logits},
      {"presence penalty", [](Sampler& s) { s.presence_penalty = -inf; }, logits},
      {"frequency penalty", [](Sampler& s) { s.frequency_penalty = inf; }, logits},
      {"penalty decay", [](Sampler& s) { s.penalty_decay = 1.01; }, logits},
      {"penalty decay", [](Sampler& s) { s.penalty_decay = -0.5; }, logits},
      {"penalty decay", [](Sampler& s) { s.penalty_decay = nan; }, logits},
  };
  for (const Case& c : cases) {
    CAPTURE(c.reason);
    Sampler pick = options;
    std::vector<Token> tokens;
    for (int i = 0; i < 40; ++i) {
      if (i % 7 == 3) {
        const Sampler before = pick;
        c.change(pick);
        CHECK(mentions(error_of([&] { pick(c.logits); }), c.reason));
        pick.temperature = before.temperature;
        pick.top_k = before.top_k;
        pick.top_p = before.top_p;
        pick.presence_penalty = before.presence_penalty;
        pick.frequency_penalty = before.frequency_penalty;
        pick.penalty_decay = before.penalty_decay;
      }
      tokens.push_back(pick(logits));
    }
    CHECK(tokens == expected);
  }
  CHECK(mentions(error_of([] {
                   Sampler{}(std::vector<float>{0, std::numeric_limits<float>::quiet_NaN()});
                 }),
                 "logit 1 "));
}

TEST_CASE("calls with the same number of logits reuse the memory of the first") {
  const std::vector<double> logits(1000, 0.5);
  Sampler pick{.top_p = 0.9, .presence_penalty = 1, .seed = 8};
  pick(logits);
  const auto& memory = pick.memory;
  const void* const before[] = {memory.counts.data(), memory.picked.data(), memory.logits.data(),
                                memory.candidates.data()};
  for (int i = 0; i < 3000; ++i) pick(logits);
  CHECK(memory.picked.size() > 500);
  CHECK(before[0] == memory.counts.data());
  CHECK(before[1] == memory.picked.data());
  CHECK(before[2] == memory.logits.data());
  CHECK(before[3] == memory.candidates.data());
}

TEST_CASE("the number of logits may change between calls") {
  Sampler pick{.temperature = 0, .presence_penalty = 100};
  CHECK(pick(std::vector<double>{0, 1, 2, 3}) == 3);
  CHECK(pick(std::vector<double>{0, 1}) == 1);
  Sampler copy = pick;  // its memory has no room beyond two logits
  CHECK(copy(std::vector<double>{0, 1}) == 0);
  CHECK(pick(std::vector<double>{0, 1}) == 0);
  CHECK(pick(std::vector<double>{0, 1, 2, 3, -1, -2}) == 2);
  CHECK(pick(std::vector<double>{0, 1, 2, 3, -1, -2}) == 4);
}

TEST_CASE("exempt tokens get the presence penalty alone") {
  // Of equal logits the lowest id is taken, until penalties push it down.
  const std::vector<double> logits{1, 1, 0};
  Sampler pick{.temperature = 0, .presence_penalty = 0.25, .frequency_penalty = 0.5, .penalty_decay = 1, .exempt = {0}};
  CHECK(draw(pick, logits, 6) == std::vector<Token>{0, 1, 0, 0, 0, 0});  // 0 stays at 0.75, 1 falls to 0.25
  pick.exempt = {7, -1, 1};
  CHECK(draw(pick, logits, 6) == std::vector<Token>{0, 1, 1, 1, 1, 1});
  pick.exempt = {};
  CHECK(draw(pick, logits, 4) == std::vector<Token>{0, 1, 0, 1});  // 0.25 each, then 0 against 0.25 and 2's 0
}

TEST_CASE("presets go by their names") {
  const Sampler pick = rwkv::sampler_preset("open-think").sampler(7);
  CHECK(pick.temperature == 0.96);
  CHECK(pick.top_k == 32);
  CHECK(pick.top_p == 0.76);
  CHECK(pick.presence_penalty == 1.0);
  CHECK(pick.frequency_penalty == 0.1);
  CHECK(pick.penalty_decay == 0.988);
  CHECK(pick.seed == 7);
  CHECK(rwkv::sampler_preset("fake-think").top_p == 0.28);
  CHECK(rwkv::sampler_preset("tools").presence_penalty == 0);
  CHECK(error_of([] { rwkv::sampler_preset("best"); }) ==
        "rwkv: there is no sampler preset 'best'; there are open-think, fake-think, tools");
}

TEST_CASE("a sampler restored from its numbers goes on as it would have") {
  std::mt19937 random(5);
  std::vector<double> logits(40);
  const auto next = [&] {
    for (double& x : logits) x = static_cast<double>(random() % 1000) / 250;
    return logits;
  };
  Sampler pick{.temperature = 1.2,
               .top_k = 30,
               .top_p = 0.9,
               .presence_penalty = 0.5,
               .frequency_penalty = 0.3,
               .penalty_decay = 0.9,
               .exempt = {3, 7},
               .seed = 0xfedcba9876543210u};
  pick.memory.draws = 0xffffffffu;  // the next has more than 32 bits
  for (int i = 0; i < 50; ++i) pick(next());
  const auto numbers = pick.numbers();
  Sampler other = Sampler::restored(numbers, 40);
  CHECK(other.numbers() == numbers);
  for (int i = 0; i < 50; ++i) {
    next();
    REQUIRE(pick(logits) == other(logits));
  }
  CHECK(Sampler::restored(Sampler{}.numbers(), 1).numbers() == Sampler{}.numbers());

  const auto refusal = [&](const char* name, auto change) {
    auto damaged = numbers;
    change(damaged[name]);
    return error_of([&] { Sampler::restored(damaged, 40); });
  };
  using List = std::vector<double>;
  CHECK(refusal("options", [](List& x) { x.pop_back(); }) == "rwkv: sampler.options has 5 numbers, not 6");
  CHECK(refusal("options", [](List& x) { x[0] = nan; }) ==
        "rwkv: sampler: the temperature must be finite and at least 0, not nan");
  CHECK(refusal("options", [](List& x) { x[1] = 1.5; }) ==
        "rwkv: sampler.options has 1.5, where a whole number below 2147483648 is due");
  CHECK(refusal("random", [](List& x) { x[3] = 0x1p32; }) ==
        "rwkv: sampler.random has 4294967296, where a whole number below 4294967296 is due");
  CHECK(refusal("exempt", [](List& x) { x[0] = 40; }) ==
        "rwkv: sampler.exempt has 40, where a whole number below 40 is due");
  CHECK(refusal("counts", [](List& x) { x.push_back(1); }).find("which are no pairs") != std::string::npos);
  CHECK(refusal("counts", [](List& x) { x[0] = -1; }) ==
        "rwkv: sampler.counts has -1, where a whole number below 40 is due");
  CHECK(refusal("counts", [](List& x) { x[2] = x[0]; }).find(" twice") != std::string::npos);
  CHECK(refusal("counts", [](List& x) { x[1] = inf; }).find("rwkv: sampler.counts has inf for token ") == 0);
  auto damaged = numbers;
  damaged.erase("random");
  CHECK(error_of([&] { Sampler::restored(damaged, 40); }) == "rwkv: sampler.random is missing");
}

}  // namespace
