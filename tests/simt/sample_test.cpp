#include <rwkv/check/live_weights.hpp>
#include <rwkv/cuda.cuh>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../any_version.hpp"
#include "../cuda/order.hpp"

using rwkv::Index;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

double uniform(std::uint64_t stream, std::uint64_t i) {
  return rwkv::Philox{.key = 3, .stream = stream}.block(i).uniform_double(0);
}

/// Logits of a kind that the seed chooses: peaked, flat, in a few steps with many ties, all equal, with impossible ones.
std::vector<float> logits_of(Index vocab, std::uint64_t seed) {
  std::vector<float> x;
  for (Index i = 0; i < vocab; ++i) {
    const double u = uniform(seed, static_cast<std::uint64_t>(i));
    double value = 0;
    switch (seed % 5) {
      case 0: value = 25 * u * u * u - 5; break;
      case 1: value = 2 * u - 1; break;
      case 2: value = std::floor(4 * u) - 2; break;
      case 3: value = 0.25; break;
      default: value = u < 0.5 ? -inf : 10 * u - 30;
    }
    x.push_back(static_cast<float>(value));
  }
  if (seed % 5 == 4) x.back() = 1;
  return x;
}

rwkv::CudaSampling options_of(std::uint64_t seed) {
  const double temperatures[] = {1, 0.7, 1.5, 0, 1}, parts[] = {1, 0.9, 0.5, 0.3, 0, 0.999, 1};
  const int counts[] = {0, 5, 0, 1, 40, 3};
  rwkv::CudaSampling options{
      .temperature = temperatures[seed / 3 % 5], .top_k = counts[seed % 6], .top_p = parts[seed / 2 % 7], .seed = seed};
  if (seed % 4 == 3) {
    options.presence_penalty = 0.4;
    options.frequency_penalty = 0.3;
    options.penalty_decay = 0.9;
  }
  return options;
}

rwkv::Sampler on_host(const rwkv::CudaSampling& o) {
  return {.temperature = o.temperature,
          .top_k = o.top_k,
          .top_p = o.top_p,
          .presence_penalty = o.presence_penalty,
          .frequency_penalty = o.frequency_penalty,
          .penalty_decay = o.penalty_decay,
          .seed = o.seed};
}

/// A sampler, with logits and tokens in the device's reach.
class Device {
 public:
  Device(Index rows, Index vocab)
      : sampler(be, rows, vocab), rows_(rows), vocab_(vocab), logits_(be.allocate<float>(rows * vocab)),
        tokens_(be, static_cast<std::size_t>(rows)) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { be.free(logits_); }

  std::span<rwkv::Token> pick(const std::vector<float>& logits) {
    rwkv::upload(be, std::span<const float>(logits), logits_);
    for (rwkv::Token& token : tokens_.numbers()) token = -7;
    sampler(be, rwkv::matrix(logits_, rows_, vocab_), tokens_.numbers().data());
    be.sync();
    return tokens_.numbers();
  }

  rwkv::Cuda be;
  rwkv::CudaSampler<rwkv::Cuda> sampler;

 private:
  Index rows_, vocab_;
  float* logits_;
  rwkv::Exchange<rwkv::Token, rwkv::Cuda> tokens_;
};

}  // namespace

TEST_CASE("simt: the sampler picks the host's tokens") {
  for (const Index vocab : {1, 2, 31, 33, 100, 700}) {
    for (std::uint64_t seed = 0; seed < 42; seed += 2) {
      CAPTURE(vocab);
      CAPTURE(seed);
      const Index rows = 2;
      Device device(rows, vocab);
      std::vector<rwkv::Sampler> host;
      for (Index r = 0; r < rows; ++r) {
        const auto options = options_of(seed + static_cast<std::uint64_t>(r));
        device.sampler.set(r, options);
        host.push_back(on_host(options));
      }
      for (std::uint64_t step = 0; step < 3; ++step) {
        std::vector<float> logits;
        std::vector<rwkv::Token> want;
        for (Index r = 0; r < rows; ++r) {
          const auto row = logits_of(vocab, seed + static_cast<std::uint64_t>(r));
          want.push_back(host[static_cast<std::size_t>(r)](row));
          logits.insert(logits.end(), row.begin(), row.end());
        }
        const auto got = device.pick(logits);
        for (std::size_t r = 0; r < want.size(); ++r) CHECK(got[r] == want[r]);
      }
      device.sampler.check();
    }
  }
}

TEST_CASE("simt: the sampler with large vocabularies") {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    CAPTURE(seed);
    rwkv::CudaSampling options{.temperature = 0.9, .seed = seed};
    if (seed % 2 == 0) options.top_k = 300;
    else options.top_p = 0.6;
    const Index vocab = seed % 2 == 0 ? 70000 : 40000;
    Device device(1, vocab);
    device.sampler.set(0, options);
    auto host = on_host(options);
    const auto logits = logits_of(vocab, seed);
    for (int step = 0; step < 2; ++step) {
      const rwkv::Token want = host(logits);
      CHECK(device.pick(logits)[0] == want);
    }
    device.sampler.check();
  }
}

TEST_CASE("simt: the sampler takes the lowest of equally likely tokens") {
  Device device(1, 300);
  device.sampler.set(0, {.temperature = 0});
  std::vector<float> logits(300, 0);
  logits[41] = logits[77] = logits[299] = 2;
  CHECK(device.pick(logits)[0] == 41);
  CHECK(device.pick(std::vector<float>(300, -3))[0] == 0);
  std::vector<float> zeros(300, -0.0f);
  zeros[5] = 0.0f;
  CHECK(device.pick(zeros)[0] == 0);
}

TEST_CASE("simt: the sampler reports logits that leave no choice") {
  Device device(2, 50);
  auto host = on_host({.seed = 9});
  device.sampler.set(1, {.seed = 9});
  const auto good = logits_of(50, 1);
  for (const double bad : {static_cast<double>(std::nan("")), inf, -inf}) {
    std::vector<float> logits(50, bad == -inf ? static_cast<float>(-inf) : 1.0f);
    logits[13] = static_cast<float>(bad);
    logits.insert(logits.end(), good.begin(), good.end());
    const rwkv::Token want = host(good);
    const auto got = device.pick(logits);
    CHECK(got[0] == -7);
    CHECK(got[1] == want);
    CHECK_THROWS_WITH_AS(device.sampler.check(),
                         doctest::Contains(bad == -inf ? "all 50 logits of sequence 0" : "logit 13 of sequence 0"),
                         rwkv::Error);
    device.sampler.check();
  }
  CHECK_THROWS_AS(device.sampler.set(0, {.top_p = 2}), rwkv::Error);
  CHECK_THROWS_AS(device.sampler.set(2, {}), rwkv::Error);
}

TEST_CASE("simt: the sampler forgets what it picked") {
  const rwkv::CudaSampling options{.temperature = 0, .presence_penalty = 5};
  Device device(1, 40);
  device.sampler.set(0, options);
  std::vector<float> logits(40, 0);
  logits[7] = 2;
  logits[9] = 1;
  CHECK(device.pick(logits)[0] == 7);
  CHECK(device.pick(logits)[0] == 9);
  device.sampler.reset();
  CHECK(device.pick(logits)[0] == 7);
}

TEST_CASE("simt: barred tokens are never drawn, whatever their logits") {
  const std::pair<Index, Index> ranges[] = {{60, 70}, {0, 3}, {31, 32}};
  constexpr Index vocab = 70;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Device device(2, vocab);
    std::vector<float> logits, want_logits;
    std::vector<rwkv::Sampler> host;
    for (Index r = 0; r < 2; ++r) {
      device.sampler.set(r, options_of(seed));
      host.push_back(on_host(options_of(seed)));
      auto row = logits_of(vocab, seed), masked = row;
      row[50] = masked[50] = 0;  // something stays possible
      for (const auto& [first, last] : ranges) {
        std::fill(row.begin() + first, row.begin() + last, r == 0 ? 90.0f : std::nanf(""));
        std::fill(masked.begin() + first, masked.begin() + last, static_cast<float>(-inf));
      }
      logits.insert(logits.end(), row.begin(), row.end());
      want_logits.insert(want_logits.end(), masked.begin(), masked.end());
    }
    for (const auto& [first, last] : ranges) device.sampler.bar(first, last);
    for (int step = 0; step < 4; ++step) {
      if (step == 2) {
        device.sampler.reset();
        host[0].reset();
        host[1].reset();
      }
      if (step == 3) {
        device.sampler.reset(1);
        host[1].reset();
      }
      const auto got = device.pick(logits);
      for (std::size_t r = 0; r < 2; ++r) {
        CHECK(got[r] == host[r](std::span<const float>(want_logits).subspan(r * vocab, vocab)));
      }
      device.sampler.check();
    }
  }
  Device device(1, vocab);
  for (const auto& [first, last] : {std::pair<Index, Index>{-1, 2}, {3, 3}, {5, 4}, {0, vocab + 1}}) {
    CHECK_THROWS_WITH_AS(device.sampler.bar(first, last), doctest::Contains("cannot be barred"), rwkv::Error);
  }
  device.sampler.bar(0, vocab);
  device.pick(logits_of(vocab, 1));
  CHECK_THROWS_WITH_AS(device.sampler.check(), doctest::Contains("no token is possible"), rwkv::Error);
}

namespace {

using Net = rwkv::LanguageModel<config::AnyVersion, float, rwkv::Cuda>;
constexpr Index depth = 2;

Net small_model() {
  Net net(rwkv::ModelSizes{.vocab = 40, .width = 16, .depth = depth}, rwkv::Cuda());
  live_weights(net, 5);
  return net;
}

/// A context whose tokens are drawn on the host, sequence by sequence.
class OnHost {
 public:
  OnHost(const Net& net, const rwkv::ContextOptions& options) : context(net.context(options)) {}

  std::vector<rwkv::Token> draw(std::span<const float> logits) {
    std::vector<rwkv::Token> tokens;
    const auto vocab = static_cast<std::size_t>(context.vocab());
    for (std::size_t r = 0; r < samplers.size(); ++r) tokens.push_back(samplers[r](logits.subspan(r * vocab, vocab)));
    return tokens;
  }

  rwkv::Context<Net> context;
  std::vector<rwkv::Sampler> samplers;
};

std::vector<rwkv::Token> held(std::span<const rwkv::Token> tokens) { return {tokens.begin(), tokens.end()}; }

}  // namespace

TEST_CASE("simt: a context draws its tokens on the device, while sequences come and go") {
  const Net net = small_model();
  const rwkv::Token prompt[] = {1, 7, 3, 2, 9, 30, 8, 8, 1};  // [3, 3]
  for (const bool record : {true, false}) {
    CAPTURE(record);
    OnHost host(net, {.batch = 3, .record = record});
    auto context = net.context({.batch = 3, .record = record});
    rwkv::CudaSampler sampler(context);
    for (Index r = 0; r < 3; ++r) {
      const rwkv::CudaSampling options{.top_p = 0.9, .presence_penalty = 0.5, .seed = static_cast<std::uint64_t>(r)};
      sampler.set(r, options);
      host.samplers.push_back(on_host(options));
    }
    CHECK_THROWS_WITH_AS(context.draw(sampler), doctest::Contains("there are no logits"), rwkv::Error);
    auto want = host.draw(host.context.prefill(prompt));
    context.prefill(prompt);
    auto got = held(context.draw(sampler));
    CHECK(got == want);
    const auto go_on = [&](int steps) {
      for (int i = 0; i < steps; ++i) {
        want = host.draw(host.context.step(want));
        got = held(context.step(got, sampler));
        CHECK(got == want);
      }
    };
    go_on(3);

    // The last sequence takes the number of the one that leaves; then a sequence begins with a prompt of its own.
    context.remove(0);
    sampler.copy(2, 0);
    got = {got[2], got[1]};
    host.context.remove(0);
    host.samplers = {host.samplers[2], host.samplers[1]};
    want = {want[2], want[1]};
    go_on(2);
    const rwkv::CudaSampling options{.temperature = 0.8, .seed = 77};
    CHECK(context.add() == 2);
    sampler.set(2, options);
    sampler.reset(2);
    got.push_back(4);
    host.context.add();
    host.samplers.push_back(on_host(options));
    host.samplers.back().memory.draws = 4;  // the random sequence goes on from the one that had the number
    want.push_back(4);
    go_on(3);

    const long before = simt::counts.launches;
    got = held(context.step(got, sampler));
    if (simt::emulated) CHECK(simt::counts.launches - before == 5 * depth + 3);
    want = host.draw(host.context.step(want));
    auto fork = context.fork();
    CHECK_THROWS_WITH_AS(fork.draw(sampler), doctest::Contains("made for another backend or context"), rwkv::Error);
    {
      rwkv::CudaSampler other(context);  // another of the same kind is recorded anew
      for (Index r = 0; r < 3; ++r) other.set(r, {.temperature = 0});
      const auto likely = held(context.step(got, other));
      const auto logits = host.context.step(want);
      for (std::size_t r = 0; r < 3; ++r) CHECK(likely[r] == rwkv::argmax(logits.subspan(r * 40, 40)));
      got = want = likely;
    }
    // What was recorded keeps the memory of a sampler that has gone.
    go_on(2);
    rwkv::CudaSampler moved = std::move(sampler);
    CHECK_THROWS_WITH_AS(context.step(got, sampler), doctest::Contains("it was moved from"), rwkv::Error);
    sampler = std::move(moved);
    context.restore(host.context.state());  // kernel by kernel it has advanced
    CHECK_THROWS_WITH_AS(context.step(std::vector<rwkv::Token>{1, 2, 40}, sampler), doctest::Contains("token 40"),
                         rwkv::Error);
    go_on(1);
  }
}

TEST_CASE("simt: text that is drawn on the device is that drawn on the host") {
  Net net(rwkv::ModelSizes{.vocab = 400, .width = 16, .depth = 1}, rwkv::Cuda());  // 144 rows stand for no byte
  live_weights(net, 6);
  rwkv::LanguageModel<config::AnyVersion, float, rwkv::Reference> live_on_host(net.sizes());
  live_weights(live_on_host, 6);
  const auto tokenizer = rwkv::Tokenizer::bytes();
  const rwkv::CudaSampling options{.temperature = 0.9, .presence_penalty = 0.2, .seed = 3};
  auto pick = on_host(options);
  auto context = net.context(), other = net.context();
  rwkv::CudaSampler sampler(other);
  sampler.set(0, options);
  for (const Index count : {0, 5, 1, 30}) {  // a conversation goes on
    std::string want, got;
    const auto want_stats = rwkv::generate(context, tokenizer, "Ab", count, pick, [&](std::string_view piece) {
      want += piece;
      return want.size() < 60;
    });
    const auto stats = rwkv::generate(other, tokenizer, "Ab", count, sampler, [&](std::string_view piece) {
      got += piece;
      return got.size() < 60;
    });
    CHECK(got == want);
    CHECK(stats.new_tokens == want_stats.new_tokens);
    CHECK(stats.finish == want_stats.finish);
    CHECK(other.state() == context.state());
  }

  // Up to a stop string that is drawn in several tokens: both go back to before it.
  std::string drawn;
  const auto ask = [&](auto& from, auto& by, std::string& text, const std::vector<std::string>& stops) {
    return rwkv::generate(
        from, tokenizer, "Ab", 12, by, [&](std::string_view piece) { return text += piece, true; }, stops);
  };
  {
    auto fork = context.fork();
    auto copy = pick;
    rwkv::generate(
        fork, tokenizer, "Ab", 12,
        [&](std::span<const float> logits) {
          const rwkv::Token token = copy(logits);
          drawn += tokenizer.decode(token);
          return token;
        },
        [](std::string_view) { return true; });
  }
  const std::vector<std::string> stops = {drawn.substr(5, 4)};
  std::string want, got;
  CHECK(ask(context, pick, want, stops).stop == stops[0]);
  const auto stats = ask(other, sampler, got, stops);
  CHECK(stats.finish == rwkv::Finish::stop);
  CHECK(stats.new_tokens <= 5);
  CHECK(got == want);
  CHECK(other.state() == context.state());
  CHECK(other.fingerprint() == live_on_host.context().fingerprint());
}

#if RWKV_SIMT
TEST_CASE("simt: a sampler that finds no memory leaves none behind") {
  const rwkv::Cuda be;
  const auto before = simt::counts;
  for (const char* function : {"cudaMalloc", "cudaHostAlloc", "cudaLaunchKernelEx"}) {
    CAPTURE(function);
    simt::fail_function(function, cudaErrorMemoryAllocation);
    CHECK_THROWS_AS(rwkv::CudaSampler<rwkv::Cuda>(be, 2, 10), rwkv::Error);
    simt::fail_nothing();
    CHECK(simt::counts.device_allocations == before.device_allocations);
    CHECK(simt::counts.host_allocations == before.host_allocations);
  }
}

TEST_CASE("simt: a context that cannot record another batch keeps its own") {
  const Net net = small_model();
  auto context = net.context({.batch = 2}), plain = net.context({.batch = 2});
  context.remove(1);
  plain.remove(1);
  simt::fail_function("cudaGraphInstantiate", cudaErrorMemoryAllocation);
  CHECK_THROWS_AS(context.add(), rwkv::Error);
  simt::fail_nothing();
  CHECK(context.batch() == 1);
  for (const rwkv::Token token : {3, 5}) {
    const auto got = context.step(token), want = plain.step(token);
    CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  }
  CHECK(context.add() == 1);
  plain.add();
  const std::vector<rwkv::Token> tokens{4, 6};
  const auto got = context.step(tokens), want = plain.step(tokens);
  CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
}
#endif
