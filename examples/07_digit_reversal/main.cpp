// Trains a small RWKV-7 from nothing to write numbers backwards, and counts the digits that it gets right.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include "../curve.hpp"
#include "../options.hpp"
#include "../paths.hpp"
#include "../program.hpp"
#include "../progress.hpp"
#include "../stop.hpp"
#include "reversal.hpp"

namespace example {

using Net = LanguageModel<V7, float, Cpu>;

/// The public recipe, but for the number of steps and the tokens of each. It has one rate for all parameters, and no L2
/// wrap.
struct Settings {
  Index digits = 20;
  Index check_every = 100;
  std::string out;  // named after the digits unless given
  TrainerOptions trainer{.shape = {.batch = 64, .length = 64},
                         .rate = {.peak = 4e-3, .final = 1e-6, .steps = 12000},
                         .optimizer = {.beta2 = 0.999, .weight_decay = 0.1, .table_rates = false},
                         .clip = 1,
                         .l2_wrap = false,
                         .seed = {1}};
  int threads = 2;

  /// A file beside the model.
  std::filesystem::path beside(const char* ending) const {
    return std::filesystem::path(out).replace_extension(ending);
  }
};

Net new_model(const Settings& settings) {
  Net net({.vocab = vocabulary, .width = 32, .depth = 2, .head_size = 16, .ranks = {.w = 8, .a = 8, .v = 8, .g = 8}},
          Cpu(settings.threads));
  initialize(net, settings.trainer.seed);
  return net;
}

/// How much of each length the model gets right.
void print_table(const Net& net, const Settings& settings) {
  const auto percent = [](double wrong) { return 100 * (1 - wrong); };
  const auto print_lengths = [&](Index first, Index last) {
    Score total;
    for (Index digits = first; digits <= last; ++digits) {
      const Score score = check(net, settings.trainer.seed, digits, 200);
      std::printf("%6td  %10.2f %%  %11.1f %%\n", digits, percent(score.part_of_wrong_digits()),
                  percent(score.part_of_wrong_numbers()));
      total += score;
    }
    std::printf("%td to %td: %td of %td digits are right, %.3f %%\n", first, last, total.digits - total.wrong_digits,
                total.digits, percent(total.part_of_wrong_digits()));
  };
  std::printf("digits  right digits  right numbers\n");
  print_lengths(1, settings.digits);
  std::printf("longer than any in training:\n");
  print_lengths(settings.digits + 1, settings.digits + (settings.digits + 1) / 2);
}

int run(const Settings& settings) {
  const BatchShape& shape = settings.trainer.shape;
  const LearningRate& rate = settings.trainer.rate;
  const Index tokens_of_a_step = shape.batch * shape.length;
  const auto run_file = settings.beside(".run.safetensors"), curve_file = settings.beside(".csv");
  const bool begun = std::filesystem::exists(run_file);
  expects(settings.out.ends_with(".safetensors"), settings.out, ": pass an --out that ends in .safetensors");
  check_is_no_run(settings.out);
  for (const auto& file : {std::filesystem::path(settings.out), run_file, curve_file}) {
    check_target(file);
    expects(begun || !std::filesystem::exists(file), file.string(),
            ": this file is there, and no run that it belongs to; remove it, or pass another --out");
  }

  Net net = new_model(settings);
  Trainer trainer(net, settings.trainer);
  const Reversals reversals{settings.digits, shape, settings.trainer.seed};
  Progress progress;
  progress.print(text("%td parameters, %td steps of %td tokens", net.parameter_count(), rate.steps, tokens_of_a_step));

  // The run goes on from its file. The trainer compares its own options with those in there.
  const std::string task = join("numbers of up to ", settings.digits, " digits, seed ", settings.trainer.seed.value,
                                ", checked every ", settings.check_every, " steps");
  std::string curve{curve_head};
  double earlier = 0;  // seconds of training before this process
  if (begun) {
    auto notes = trainer.resume(run_file);
    expects(notes["task"] == task, run_file.string(), ": the run in the file has '", notes["task"], "', not '", task,
            "'; pass its options, or another --out");
    curve = notes["curve"];
    earlier = std::stod(notes["seconds"]);
    progress.print(text("going on after step %td", trainer.steps()));
  }
  const double began = now();
  const Index first = trainer.steps();
  const auto seconds = [&] { return earlier + now() - began; };
  const auto save = [&] {
    trainer.save(run_file, {{"task", task}, {"curve", curve}, {"seconds", join(seconds())}});
    write_atomically(system_files(), curve_file, [&](FileWriter& file) { file.write(curve); });
  };

  if (!begun) save();  // shows at once whether the run can be kept
  for (Batch batch; trainer.steps() < rate.steps && stopped == 0;) {
    reversals.fill(trainer.steps(), batch);
    const double loss = trainer.step(batch);
    const Index step = trainer.steps();
    const auto status = [&] {
      const double per_step = (now() - began) / static_cast<double>(step - first);
      return text("step %td of %td  loss %.4f  %.0f tokens/s  %s left", step, rate.steps, loss,
                  static_cast<double>(tokens_of_a_step) / per_step,
                  clock_time(per_step * static_cast<double>(rate.steps - step)).c_str());
    };
    progress.update(status);
    if (step % settings.check_every != 0) continue;

    Score score;
    for (Index digits = 1; digits <= settings.digits; ++digits) {
      score += check(net, settings.trainer.seed, digits, 20);
    }
    const double wrong = score.part_of_wrong_digits();
    progress.print(text("%s  wrong digits %.2f %%", status().c_str(), 100 * wrong));
    curve += join(step, ",", step * tokens_of_a_step, ",", loss, ",", wrong, ",", text("%.1f", seconds()), "\n");
    save();
  }
  save();
  if (stopped != 0) {
    progress.print(text("stopped after step %td of %td; the same command goes on", trainer.steps(), rate.steps));
    return 128 + stopped;
  }
  progress.print(text("trained for %s", clock_time(seconds()).c_str()));
  progress.print(plot_curve(curve_file, {.validation = "wrong digits, of 1", .logarithmic = true}));
  save_checkpoint<float>(net, settings.out);
  print_table(net, settings);
  return 0;
}

}  // namespace example

int main(int argc, char** argv) {
  example::Settings settings;
  example::Options options("digit_reversal", "Trains an RWKV-7 to reverse the digits of numbers.");
  rwkv::TrainerOptions& trainer = settings.trainer;
  options.add("--digits", settings.digits, "of the longest number in training", 1, 1000);
  options.add("--steps", trainer.rate.steps, "length of the run", 1);
  options.add("--batch", trainer.shape.batch, "sequences of a step", 1, 4096);
  options.add("--length", trainer.shape.length, "tokens of a sequence", 1, 65536);
  options.add("--rate", trainer.rate.peak, "learning rate at the start");
  options.add("--check-every", settings.check_every, "steps", 1);
  options.add("--seed", trainer.seed.value, "of the first weights and of all numbers");
  options.add("--out", settings.out, "model to write; beside it: the file of the run, and its curve");
  options.show_default("digits-N.safetensors");
  options.add("--threads", settings.threads, "any number gives the same bits", 1, 1024);
  return example::run_program("digit_reversal", [&] {
    if (!options.parse(argc, argv)) return 0;
    if (settings.out.empty()) settings.out = rwkv::join("digits-", settings.digits, ".safetensors");
    trainer.rate.final = std::min(trainer.rate.final, trainer.rate.peak);
    example::stop_when_asked();
    return example::run(settings);
  });
}
