/// No sequence sees another: random schedules, another seed each day. RWKV_SEED repeats one, RWKV_SCHEDULES has more of them.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "../versions.hpp"
#include "isolation.hpp"

using namespace rwkv;
using isolation::Fault;

namespace {

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}
std::uint64_t seed_of_today() {
  const auto days = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()).time_since_epoch();
  return number_of("RWKV_SEED", static_cast<std::uint64_t>(days.count()));
}

/// Runs schedules of 40 operations, and returns the first sentence about what went wrong.
template <class Net>
std::string run(const Net& net, std::uint64_t schedules, std::uint64_t seed, Fault fault = Fault::none) {
  isolation::Alone<Net> alone(net);
  for (std::uint64_t i = 0; i < schedules; ++i) {
    const std::uint64_t own = seed * 1'000'003 + i;
    const std::string wrong = isolation::Schedule<Net>(net, alone, own, fault)(40);
    if (!wrong.empty()) return join("schedule ", own, ": ", wrong);
  }
  return {};
}

template <class V>
using NetOf = LanguageModel<V, float, Cpu>;

}  // namespace

TEST_CASE("every sequence has the logits that it has alone, after any schedule") {
  const std::uint64_t seed = seed_of_today(), schedules = number_of("RWKV_SCHEDULES", 500);
  MESSAGE("RWKV_SEED=" << seed << ", " << schedules << " schedules");
  config::each_version([&]<class V>() {
    for (const int threads : {1, 3}) {
      CAPTURE(threads);
      const auto net = config::live<NetOf<V>>(isolation::sizes, Cpu(threads));
      CHECK(run(net, schedules / 8, seed + static_cast<std::uint64_t>(threads)) == "");
    }
  });
}

TEST_CASE("the same for contexts that share weights and threads and run at the same time") {
  const std::uint64_t seed = seed_of_today(), schedules = number_of("RWKV_SCHEDULES", 500);
  const auto net = config::live<NetOf<V7>>(isolation::sizes, Cpu(2));
  std::vector<std::string> wrong(3);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] { wrong[i] = run(net, schedules / 16, seed + 100 + i); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<std::string>(3));
}

TEST_CASE("a schedule catches what a broken pool of states does") {
  const auto net = config::live<NetOf<config::AnyVersion>>(isolation::sizes, Cpu());
  for (const Fault fault : {Fault::start_of_another, Fault::restored_elsewhere, Fault::a_token_late}) {
    CHECK(run(net, 30, 1, fault) != "");
  }
}
