/// A training run short enough to be killed at every one of its file calls; see tests/tools/kill_points.sh.
///
///     kill_points FOLDER          resumes the run in FOLDER if there is one, trains, saves three times
///     kill_points --check FOLDER  checks that the run in FOLDER is absent or whole
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>
#include <vector>

#include "../instances.hpp"

using namespace rwkv;

int main(int argc, char** argv) {
  const bool check = argc == 3 && std::string_view(argv[1]) == "--check";
  if (argc != (check ? 3 : 2)) return std::fputs("usage: kill_points [--check] FOLDER\n", stderr), 2;
  const std::filesystem::path folder(argv[argc - 1]), run = folder / "run.safetensors";
  try {
    std::vector<Token> text(4000);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i * i % 61);
    const BatchShape shape{.batch = 2, .length = 16};
    const ContiguousStreams streams(TokenData(text), shape);

    LanguageModel<config::AnyVersion, float, Cpu> net({.vocab = 64, .width = 32, .depth = 2});
    initialize(net, Seed{1});
    const Index steps = 6, save_every = 2;
    Trainer trainer(net, {.shape = shape, .rate = {.peak = 1e-2, .steps = steps}, .average = 0.9});
    if (std::filesystem::exists(run)) trainer.resume(run);
    if (check) return 0;

    Batch batch;
    while (trainer.steps() < steps) {
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
