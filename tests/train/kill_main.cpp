/// A training run short enough to be killed at every one of its file calls; see tests/tools/kill_points.sh.
///
///     kill_points FOLDER          resumes the run in FOLDER if there is one, trains, saves three times
///     kill_points FOLDER STEPS [N MICROSECONDS]
///                                 the same with so many steps; dies so long after its N-th begins
///     kill_points --check FOLDER [STEPS]
///                                 checks that the run in FOLDER is absent or whole
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string_view>
#include <thread>
#include <vector>

#include "../instances.hpp"

using namespace rwkv;

int main(int argc, char** argv) {
  const bool check = argc > 1 && std::string_view(argv[1]) == "--check";
  const std::vector<const char*> arguments(argv + (check ? 2 : 1), argv + argc);
  if (arguments.empty() || arguments.size() > (check ? 2 : 4)) {
    return std::fputs("usage: kill_points [--check] FOLDER [STEPS [N MICROSECONDS]]\n", stderr), 2;
  }
  const bool dies = arguments.size() == 4;
  const std::filesystem::path folder(arguments[0]), run = folder / "run.safetensors";
  try {
    std::vector<Token> text(4000);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i * i % 61);
    const BatchShape shape{.batch = 2, .length = 16};
    const ContiguousStreams streams(TokenData(text), shape);

    LanguageModel<config::AnyVersion, float, Cpu> net({.vocab = 64, .width = 32, .depth = 2});
    initialize(net, Seed{1});
    const Index steps = arguments.size() > 1 ? std::atol(arguments[1]) : 6, save_every = 2;
    Trainer trainer(net, {.shape = shape, .rate = {.peak = 1e-2, .steps = steps}, .average = 0.9});
    if (std::filesystem::exists(run)) trainer.resume(run);
    if (check) return 0;

    Batch batch;
    const Index last = dies ? trainer.steps() + std::atol(arguments[2]) : 0;
    while (trainer.steps() < steps) {
      if (dies && trainer.steps() + 1 == last) {
        std::thread([time = std::atol(arguments[3])] {
          std::this_thread::sleep_for(std::chrono::microseconds(time));
          std::raise(SIGKILL);
        }).detach();
      }
      streams.fill(trainer.steps(), batch);
      trainer.step(batch);
      if (trainer.steps() % save_every == 0) trainer.save(run);
    }
    trainer.exchange_average();
    save_checkpoint<bf16>(net, folder / "final.safetensors");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kill_points: %s\n", error.what());
    return 1;
  }
}
