/// The plan of training runs, as tables: what a rank of 1 to 1024 holds, and sends in a step, for the official sizes of RWKV-4 and
/// 7, and how long a step takes by the rates given. Nothing of these sizes is allocated. `--check` runs a small model on 1, 2 and 4
/// ranks of this machine, which are threads, and prints what was planned beside what it took.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "../../examples/options.hpp"
#include "../../examples/program.hpp"
#include "../limits.hpp"
#include "../model/training_work.hpp"
#include "rwkv/train/plan.hpp"
#include "rwkv/train/thread_comm.hpp"

namespace {

using bench::Index;
using rwkv::Keep;
using rwkv::RankPlan;
using rwkv::Recompute;
using rwkv::RunShape;
template <class V>
using Planned = rwkv::LanguageModel<V, float, rwkv::Unbacked<rwkv::Cpu>>;

struct Settings {
  double gflops = 50'000, memory = 3000, link = 50;
  Index rows = 1, length = 4096, cores = 0;
  bool check = false;
  Index steps = 5;
};

struct OfficialSize {
  const char* name;
  rwkv::ModelSizes sizes;
};
constexpr OfficialSize v4[] = {
    {"0.1B", {.vocab = 50277, .width = 768, .depth = 12}},  {"0.4B", {.vocab = 50277, .width = 1024, .depth = 24}},
    {"1.5B", {.vocab = 50277, .width = 2048, .depth = 24}}, {"3B", {.vocab = 50277, .width = 2560, .depth = 32}},
    {"7B", {.vocab = 50277, .width = 4096, .depth = 32}},   {"14B", {.vocab = 50277, .width = 5120, .depth = 40}}};
constexpr OfficialSize v7[] = {
    {"0.1B", {.vocab = 65536, .width = 768, .depth = 12}},  {"0.4B", {.vocab = 65536, .width = 1024, .depth = 24}},
    {"1.5B", {.vocab = 65536, .width = 2048, .depth = 24}}, {"2.9B", {.vocab = 65536, .width = 2560, .depth = 32}},
    {"7.2B", {.vocab = 65536, .width = 4096, .depth = 32}}, {"13.3B", {.vocab = 65536, .width = 4096, .depth = 61}}};

/// The seconds of a step. Beside its products a rank passes over memory: it clears the gradients of each pass, reads and writes
/// them in it, adds those of two passes, and passes over its part of the numbers in the norm and in AdamW.
struct StepTime {
  double products, memory, exchange;
  double all() const { return products + memory + exchange; }
};
StepTime time_of(const RankPlan& plan, const RunShape& run, const Settings& settings) {
  const double ranks = static_cast<double>(run.ranks), passes = static_cast<double>(run.rows / run.grain);
  // Ranks of one machine share its cores.
  const double share = settings.cores == 0 ? 1 : std::min(1.0, static_cast<double>(settings.cores) / ranks);
  const double passed = static_cast<double>(plan.gradients) * (6 * passes - 3) + 32 * static_cast<double>(plan.updated);
  return {plan.flops / (settings.gflops * 1e9 * share), passed / (settings.memory * 1e9 * share),
          static_cast<double>(plan.sent()) / (settings.link * 1e9 * share)};
}

double gigabytes(Index bytes) { return static_cast<double>(bytes) / 1e9; }

template <class V>
void print_version(const char* version, std::span<const OfficialSize> all, const Settings& settings) {
  std::printf("\n## RWKV-%s\n\nGB on a rank; `recompute` in the place of `keep` holds less tape and scratch.\n\n",
              version);
  std::printf(
      "| size | parameters | ranks | weights | gradients | sums | moments | tape, keep | scratch | tape, recompute | scratch | "
      "states | all, keep | all, recompute | sent in a step | products, s | memory, s | exchange, s | step, s |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const OfficialSize& size : all) {
    for (Index ranks = 1; ranks <= 1024; ranks *= 4) {
      const RunShape run{.ranks = ranks, .rows = settings.rows, .length = settings.length};
      const RankPlan keep = rwkv::plan_of_rank<Planned<V>, Keep>(size.sizes, run);
      const RankPlan again = rwkv::plan_of_rank<Planned<V>, Recompute>(size.sizes, run);
      const StepTime time = time_of(again, run, settings);
      std::printf(
          "| %s | %.3f G | %td | %.2f | %.2f | %.2f | %.3f | %.2f | %.2f | %.2f | %.2f | %.3f | %.2f | %.2f | %.2f | "
          "%.3f | %.3f | %.3f | %.3f |\n",
          size.name, static_cast<double>(keep.parameters) / 1e9, ranks, gigabytes(keep.weights),
          gigabytes(keep.gradients), gigabytes(keep.sums), gigabytes(keep.moments), gigabytes(keep.tape),
          gigabytes(keep.scratch), gigabytes(again.tape), gigabytes(again.scratch), gigabytes(keep.states),
          gigabytes(keep.held()), gigabytes(again.held()), gigabytes(again.sent()), time.products, time.memory,
          time.exchange, time.all());
    }
  }
}

/// Seconds that this process has computed, on all its threads.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// The seconds of a step, those that its ranks compute, divided by the cores they run on, and the bytes that the rank with the
/// most of them sends, by `ranks` threads.
struct Measured {
  double seconds, computed;
  Index sent;
};
Measured run_steps(const bench::TrainingShape& shape, int ranks, Index steps) {
  using Comm = rwkv::CountedComm<rwkv::ThreadComm>;
  std::vector<double> seconds;
  double computed = 0;
  Index sent = 0;
  std::mutex mutex;
  rwkv::run_ranks(ranks, [&](rwkv::ThreadComm threads) {
    Comm comm(threads);
    auto net = bench::training_model<rwkv::V4>(shape, rwkv::Cpu(1));
    rwkv::Trainer<decltype(net), Keep, Comm> trainer(net, bench::training_options(shape), comm);
    const rwkv::Batch batch = bench::training_batch(shape);
    trainer.step(batch);
    const Index before = comm.sent();
    const double computed_before = processor_seconds();
    for (Index step = 0; step < steps; ++step) {
      const auto begun = bench::Clock::now();
      trainer.step(batch);  // ends on all ranks at about one time, because each waits for the others' numbers
      if (comm.rank() == 0) seconds.push_back(bench::seconds_since(begun));
    }
    const std::lock_guard lock(mutex);
    if (comm.rank() == 0) computed = processor_seconds() - computed_before;
    sent = std::max(sent, (comm.sent() - before) / steps);
  });
  const int cores = std::min(ranks, static_cast<int>(std::thread::hardware_concurrency()));
  return {bench::median(seconds), computed / static_cast<double>(steps * cores), sent};
}

/// The rate of the products of one pass of one thread, GFLOP/s, by the time that it computes.
double gflops_of_a_pass(const bench::TrainingShape& shape, Index steps) {
  auto net = bench::training_model<rwkv::V4>(shape, rwkv::Cpu(1));
  rwkv::Gradient<decltype(net), Keep> gradient(net, {.batch = 1, .length = shape.length});
  bench::TrainingShape one = shape;
  one.batch = 1;
  const rwkv::Batch batch = bench::training_batch(one);
  std::vector<double> rates;
  for (Index step = 0; step <= steps; ++step) {
    const double begun = processor_seconds();
    gradient.add(batch.tokens, batch.targets);
    rates.push_back(bench::training_flops(net, one) / (processor_seconds() - begun) / 1e9);
  }
  return bench::median(rates);
}

/// The bandwidth of one thread that copies, read and written bytes, GB/s, by the time that it computes.
double copied_gigabytes() {
  std::vector<float> from(std::size_t{1} << 25, 1.0f), to(from.size());
  std::vector<double> rates;
  for (int repetition = 0; repetition < 9; ++repetition) {
    const double begun = processor_seconds();
    std::copy(from.begin(), from.end(), to.begin());
    std::swap(from, to);
    rates.push_back(2 * static_cast<double>(from.size()) * sizeof(float) / (processor_seconds() - begun) / 1e9);
  }
  return bench::median(rates);
}

void check(Settings settings) {
  const bench::TrainingShape& shape = bench::training_shapes[0];
  settings.cores = static_cast<Index>(std::thread::hardware_concurrency());
  std::printf(
      "| ranks | sent, planned, MB | sent | step, planned, ms | computed | off by | step | off by |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const int ranks : {1, 2, 4, 1, 2, 4}) {
    const RunShape run{.ranks = ranks, .rows = shape.batch / ranks, .length = shape.length};
    const RankPlan plan = rwkv::plan_of_rank<Planned<rwkv::V4>, Keep>(shape.sizes, run);
    settings.gflops = gflops_of_a_pass(shape, settings.steps);
    settings.memory = settings.link = copied_gigabytes();
    const double planned = time_of(plan, run, settings).all();
    const Measured measured = run_steps(shape, ranks, settings.steps);
    std::printf("| %d | %.6f | %.6f | %.0f | %.0f | %+.0f %% | %.0f | %+.0f %% |\n", ranks,
                static_cast<double>(plan.sent()) / 1e6, static_cast<double>(measured.sent) / 1e6, 1e3 * planned,
                1e3 * measured.computed, 100 * (planned / measured.computed - 1), 1e3 * measured.seconds,
                100 * (planned / measured.seconds - 1));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  example::Options options("bench_plan",
                           "Plans training runs of the official sizes: memory, messages and time of a rank.");
  options.add("--gflops", settings.gflops, "products of a rank, GFLOP/s that training reaches");
  options.add("--memory", settings.memory, "bandwidth of a rank's memory, GB/s");
  options.add("--link", settings.link, "bandwidth of a rank to the others, GB/s");
  options.add("--rows", settings.rows, "sequences of a batch on each rank", 1, 4096);
  options.add("--length", settings.length, "tokens of a sequence", 1, 65536);
  options.add("--check", settings.check, "run 1, 2 and 4 ranks of this machine beside their plan");
  options.add("--steps", settings.steps, "measured steps of --check", 1, 1000);
  return example::run_program("bench_plan", [&] {
    if (!options.parse(argc, argv)) return 0;
    if (settings.check) {
      check(settings);
      return 0;
    }
    std::printf(
        "%td sequences of %td tokens on each rank, in float; %.0f GFLOP/s, %.0f GB/s of memory and %.1f GB/s to the "
        "others, each for a rank; times are with `recompute`.\n",
        settings.rows, settings.length, settings.gflops, settings.memory, settings.link);
    print_version<rwkv::V4>("4", v4, settings);
    print_version<rwkv::V7>("7", v7, settings);
    return 0;
  });
}
