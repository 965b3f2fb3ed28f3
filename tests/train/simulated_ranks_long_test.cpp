/// Training over a network that delays, reorders, damages and loses, as a seed says. Nothing hangs: either all ranks have
/// the right bits, or each ends in a sentence and the last file is whole.
///
/// RWKV_SEED=n runs the seed n alone, RWKV_SEEDS=n the first n.
#include <doctest/doctest.h>
#include <rwkv/train/checksummed.hpp>
#include <rwkv/train/data_parallel.hpp>

#include <cstdlib>

#include "setup.hpp"
#include "simulated_comm.hpp"

using namespace rwkv;
using config::TemporaryPath;
using Net = config::SmallNet<>;
using Comm = Checksummed<simulated::Comm>;
using SimulatedTrainer = Trainer<Net, Keep, Comm>;

namespace {

constexpr ModelSizes sizes{.vocab = 13, .width = 6, .depth = 1, .ffn = 7};
constexpr Index steps = 3;

TrainerOptions options() {
  TrainerOptions options = config::small_options();
  options.shape = {.batch = 12, .length = 3};
  return options;
}

struct Outcome {
  std::vector<std::string> ends;
  std::vector<std::vector<float>> weights;  // of every rank that reached the end
  Index messages = 0;

  bool operator==(const Outcome&) const = default;
};

Outcome run(int ranks, std::uint64_t seed, const simulated::Faults& faults, const std::filesystem::path& path) {
  simulated::Network network(ranks, seed, faults);
  Outcome outcome;
  outcome.weights.resize(static_cast<std::size_t>(ranks));
  outcome.ends = network.run([&](int rank) {
    auto net = config::initialized<Net>(sizes);
    SimulatedTrainer trainer(net, options(), Comm(simulated::Comm(network, rank)), {.grain = seed % 2 == 0 ? 1 : 3});
    const auto text = config::made_up_text(200, sizes.vocab);
    Batch batch;
    while (trainer.steps() < steps) {
      RandomWindows(text, options().shape, Seed{5}).fill(trainer.steps(), batch);
      trainer.step(batch);
      trainer.save(path);
    }
    outcome.weights[static_cast<std::size_t>(rank)] = config::all_weights(net);
  });
  outcome.messages = network.messages();
  return outcome;
}

/// A number the environment may set.
std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("whatever a network does, ranks have the right bits or end in a sentence with the last file whole") {
  const TemporaryPath path("rwkv_simulated.safetensors");
  const std::filesystem::path file = path;
  std::vector<float> expected[2];
  Index messages[2][5] = {};
  for (const std::uint64_t even : {0u, 1u}) {
    expected[even] = run(1, even, {}, path).weights[0];
    for (const int ranks : {2, 4}) messages[even][ranks] = run(ranks, even, {}, path).messages;
  }
  CHECK(expected[0] != expected[1]);  // grains decide bits

  Index undisturbed = 0, ended = 0;
  std::uint64_t first = environment("RWKV_SEED", 0), last = first + 1;
  if (std::getenv("RWKV_SEED") == nullptr) last = environment("RWKV_SEEDS", 40);
  for (std::uint64_t seed = first; seed < last; ++seed) {
    INFO("replay with RWKV_SEED=", seed);
    const Philox random{.key = seed, .stream = stream_of("faults")};
    const auto below = [&](std::uint64_t n, Index limit) {
      return static_cast<Index>(random.block(n).uniform_double(0) * static_cast<double>(limit));
    };
    const int ranks = below(0, 2) == 0 ? 2 : 4;
    const Index all = messages[seed % 2][ranks];
    simulated::Faults faults;
    const Index kind = below(1, 4);
    if (kind == 1) faults.slow = static_cast<int>(below(2, ranks));
    if (kind == 2) {
      faults.lost = static_cast<int>(below(2, ranks));
      faults.lost_at = below(3, all / ranks);
    }
    if (kind == 3) faults.flipped = below(3, all);
    std::filesystem::remove(file);
    const Outcome outcome = run(ranks, seed, faults, path);
    bool whole = true;
    for (std::size_t r = 0; r < outcome.ends.size(); ++r) {
      CAPTURE(outcome.ends[r]);
      CHECK(outcome.ends[r].empty() == !outcome.weights[r].empty());
      // Whoever reached the end has the right bits.
      if (outcome.ends[r].empty()) CHECK(outcome.weights[r] == expected[seed % 2]);
      else
        CHECK((outcome.ends[r] == "lost" || outcome.ends[r].find("in vain") != std::string::npos ||
               outcome.ends[r].find("arrived damaged") != std::string::npos));
      whole &= outcome.ends[r].empty();
    }
    CHECK((whole || kind >= 2));
    whole ? ++undisturbed : ++ended;
    if (std::filesystem::exists(file)) {  // a whole file, from which one rank goes on to the right end
      simulated::Network one(1, seed, {});
      const auto ends = one.run([&](int) {
        auto net = config::initialized<Net>(sizes);
        SimulatedTrainer trainer(net, options(), Comm(simulated::Comm(one, 0)), {.grain = seed % 2 == 0 ? 1 : 3});
        trainer.resume(file);
        const auto text = config::made_up_text(200, sizes.vocab);
        for (Batch batch; trainer.steps() < steps;) {
          RandomWindows(text, options().shape, Seed{5}).fill(trainer.steps(), batch);
          trainer.step(batch);
        }
        CHECK(config::all_weights(net) == expected[seed % 2]);
      });
      CHECK(ends[0] == "");
    }
    if (seed % 8 == 0) CHECK(run(ranks, seed, faults, path) == outcome);  // a seed replays
  }
  MESSAGE(undisturbed, " runs to the end, ", ended, " ended in sentences");
  if (last - first >= 40) CHECK((undisturbed > 0 && ended > 0));
}
