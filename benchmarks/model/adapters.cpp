/// What training by adapters costs beside training all weights, of RWKV-4: the bytes of what an optimiser changes and keeps, and
/// the time of a step; the ways in turn, medians. `bench_adapters [REPETITIONS]`
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../limits.hpp"
#include "training_work.hpp"

namespace {

using bench::Index;
using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

struct Way {
  std::string name;
  Net net;
  std::unique_ptr<rwkv::Trainer<Net>> trainer;
  std::vector<double> seconds{};
};

Way way(const std::string& name, const bench::TrainingShape& shape, const rwkv::TrainerOptions& options) {
  Way made{name, bench::training_model<rwkv::V4>(shape, rwkv::Cpu(1)), nullptr};
  made.trainer = std::make_unique<rwkv::Trainer<Net>>(made.net, options);
  return made;
}

}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  const std::string matrices = "blocks.*.{att,ffn}.{key,value,receptance,output}.weight";
  std::printf(
      "| model | trained | trained numbers, bytes | gradients | factors and base | moments | activations | ms a step |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const bench::TrainingShape& shape : bench::training_shapes) {
    const rwkv::TrainerOptions plain = bench::training_options(shape);
    std::vector<Way> ways;
    ways.push_back(way("all weights", shape, plain));
    rwkv::TrainerOptions options = plain;
    options.lora = {.matrices = matrices, .rank = 8};
    ways.push_back(way("low rank 8", shape, options));
    options = plain;
    options.miss = {.matrices = matrices, .rank = 16};
    ways.push_back(way("MiSS 16", shape, options));
    options = plain;
    options.tune_state = true;
    ways.push_back(way("initial state", shape, options));
    rwkv::Batch batch = bench::training_batch(shape);
    batch.fresh = true;  // as tuning a state wants it
    for (int repetition = 0; repetition <= repetitions; ++repetition) {
      for (Way& one : ways) {
        const auto begun = bench::Clock::now();
        one.trainer->step(batch);
        if (repetition > 0) one.seconds.push_back(bench::seconds_since(begun));
      }
    }
    for (Way& one : ways) {
      const auto& trainer = *one.trainer;
      std::printf("| %s | %s | %td | %td | %td | %td | %td | %.0f |\n", shape.name, one.name.c_str(),
                  trainer.moment_bytes() / 2, trainer.gradient().gradient_bytes(), trainer.factor_bytes(),
                  trainer.moment_bytes(), trainer.gradient().working_bytes(), 1e3 * bench::median(one.seconds));
    }
  }
}
