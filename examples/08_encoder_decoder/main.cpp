// Trains an encoder and a decoder, joined by a state, to reverse or to sort short rows of digits.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../draws.hpp"
#include "../options.hpp"
#include "../program.hpp"
#include "../progress.hpp"
#include "../stop.hpp"
#include "encoder_decoder.hpp"

namespace example {

// A row has 1 to `longest` digits. As a source it is as long as the longest, padded in front.
inline constexpr Index longest = 12;
inline constexpr Token padding = 10, start_sign = 11, stop_sign = 12;  // 0 to 9 are the digits
inline constexpr Index tokens_of_all = 13;

template <class T>
using Mixing = TimeMix<V7, T, Cpu>;
template <class T>
using Plain = Layer<Mixing<T>, ChannelMix<V7, T, Cpu>>;
template <class T>
using Reader = Layer<Bidirectional<Mixing<T>>, ChannelMix<V7, T, Cpu>>;
template <class T>
using Body = EncoderDecoder<Reader<T>, Chain<Plain<T>, Plain<T>>, longest>;
template <class T>
using Net = Model<Embedding<T, Cpu>, Body<T>, Head<T, Cpu>>;

struct Settings {
  std::string task = "reverse";
  Index steps = 3000;
  Seed seed{1};
  int threads = 2;
  bool check_gradient = false;
};

template <class T>
Net<T> new_model(const Settings& settings) {
  Net<T> net({.vocab = tokens_of_all,
              .width = 48,
              .depth = Body<T>::layers,
              .head_size = 16,
              .ranks = {.w = 8, .a = 8, .v = 8, .g = 8}},
             Cpu(settings.threads));
  initialize(net, settings.seed);
  return net;
}

std::vector<Token> answer(const std::string& task, std::vector<Token> row) {
  if (task == "reverse") std::ranges::reverse(row);
  else std::ranges::sort(row);
  return row;
}

/// A row of 1 to `longest` digits.
std::vector<Token> draw_row(Draws& draws, Index digits) {
  std::vector<Token> row;
  while (std::ssize(row) < digits) row.push_back(draws.below(10));
  return row;
}
std::vector<Token> padded(const std::vector<Token>& row) {
  std::vector<Token> source(static_cast<std::size_t>(longest) - row.size(), padding);
  source.insert(source.end(), row.begin(), row.end());
  return source;
}

/// The source, the start sign, and the answer; only the answer and the stop sign behind it count.
Batch make_batch(const Settings& settings, Index sequences, Index step) {
  Batch batch;
  batch.shape = {sequences, 2 * longest + 1};
  for (Index n = 0; n < sequences; ++n) {
    Draws draws(settings.seed, "training", step * sequences + n);
    const auto row = draw_row(draws, 1 + draws.below(longest));
    auto text = padded(row), out = answer(settings.task, row);
    text.push_back(start_sign);
    text.insert(text.end(), out.begin(), out.end());
    std::vector<Token> targets(static_cast<std::size_t>(longest), no_target);
    targets.insert(targets.end(), out.begin(), out.end());
    targets.push_back(stop_sign);
    text.resize(static_cast<std::size_t>(batch.shape.length), padding);
    targets.resize(text.size(), no_target);
    batch.tokens.insert(batch.tokens.end(), text.begin(), text.end());
    batch.targets.insert(batch.targets.end(), targets.begin(), targets.end());
  }
  return batch;
}

/// How many of `count` new rows of so many digits the model answers without a mistake. It reads its own tokens.
template <class T>
Index right_rows(const Net<T>& net, const Settings& settings, Index digits, Index count) {
  Draws draws(settings.seed, "checking", digits);
  std::vector<std::vector<Token>> answers;
  std::vector<Token> prompt;
  for (Index i = 0; i < count; ++i) {
    const auto row = draw_row(draws, digits), source = padded(row);
    answers.push_back(answer(settings.task, row));
    answers.back().push_back(stop_sign);
    prompt.insert(prompt.end(), source.begin(), source.end());
    prompt.push_back(start_sign);
  }
  auto context = net.context({.batch = count});
  auto logits = context.prefill(prompt);
  std::vector<bool> right(answers.size(), true);
  std::vector<Token> tokens(answers.size());
  for (std::size_t position = 0; position < answers[0].size(); ++position) {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto of_one = logits.subspan(i * tokens_of_all, tokens_of_all);
      tokens[i] = static_cast<Token>(std::ranges::max_element(of_one) - of_one.begin());
      if (tokens[i] != answers[i][position]) right[i] = false;
    }
    logits = context.step(tokens);
  }
  return std::ranges::count(right, true);
}

/// Compares the gradient of the encoder and of what lies below it, which the loss reaches through the state alone, with
/// differences of the loss. Returns the relative error.
double gradient_error(const Settings& settings) {
  auto net = new_model<double>(settings);
  const Batch batch = make_batch(settings, 4, 0);
  const auto in_front = [](const TensorSpec& spec) { return spec.layer >= 0 && spec.layer < 1 + 2; };
  // Away from the initial weights, where whole products are zero.
  const Philox noise{.key = 7};
  std::uint64_t n = 0;
  for (auto& parameter : net.parameters()) {
    for (double& w : parameter.numbers()) w += 0.1 * (noise.block(n++).uniform_double(0) - 0.5);
  }
  Gradient<Net<double>> gradient(net, {.batch = batch.shape.batch, .length = batch.shape.length}, in_front);
  gradient.add(batch.tokens, batch.targets);
  std::vector<double> along;
  double slope = 0;
  for (const auto& parameter : gradient.parameters()) {
    for (const double g : parameter.gradient) {
      along.push_back(noise.block(n++).uniform_double(0) - 0.5);
      slope += g * along.back();
    }
  }
  const auto loss_after = [&](double step) {
    auto next = along.begin();
    for (const auto& parameter : gradient.parameters()) {
      for (double& w : parameter.values) w += step * *next++;
    }
    gradient.reset_state();
    return gradient.add(batch.tokens, batch.targets);
  };
  const double h = 1e-5, above = loss_after(h), below = loss_after(-2 * h);
  return std::abs((above - below) / (2 * h) / slope - 1);
}

int run(const Settings& settings) {
  if (settings.check_gradient) {
    const double error = gradient_error(settings);
    std::printf("gradient through the state against differences: relative error %.1e\n", error);
    return error < 1e-6 ? 0 : 1;
  }
  auto net = new_model<float>(settings);
  const Index sequences = 64;
  Trainer trainer(net, {.shape = {.batch = sequences, .length = 2 * longest + 1},
                        .rate = {.peak = 4e-3, .final = 1e-5, .steps = settings.steps, .warmup = settings.steps / 20},
                        .optimizer = {.beta2 = 0.999, .weight_decay = 0.1, .table_rates = false},
                        .l2_wrap = false,
                        .seed = settings.seed});
  Progress progress;
  progress.print(text("%td parameters, %td steps of %td rows", net.parameter_count(), settings.steps, sequences));
  const double began = now();
  for (Index step = 0; step < settings.steps && stopped == 0; ++step) {
    const double loss = trainer.step(make_batch(settings, sequences, step));
    progress.update([&] {
      const double per_step = (now() - began) / static_cast<double>(step + 1);
      return text("step %td of %td  loss %.4f  %s left", step + 1, settings.steps, loss,
                  clock_time(per_step * static_cast<double>(settings.steps - step - 1)).c_str());
    });
  }
  progress.print(text("trained for %s", clock_time(now() - began).c_str()));
  std::printf("digits  right rows\n");
  Index right = 0;
  const Index rows = 200;
  for (Index digits = 1; digits <= longest; ++digits) {
    const Index of_these = right_rows(net, settings, digits, rows);
    std::printf("%6td  %8.1f %%\n", digits, 100.0 * static_cast<double>(of_these) / static_cast<double>(rows));
    right += of_these;
  }
  std::printf("%td of %td rows are right, %.2f %%\n", right, rows * longest,
              100.0 * static_cast<double>(right) / static_cast<double>(rows * longest));
  return stopped == 0 ? 0 : 128 + stopped;
}

}  // namespace example

int main(int argc, char** argv) {
  example::Settings settings;
  example::Options options("encoder_decoder", "Trains an encoder and a decoder, joined by a state, on rows of digits.");
  options.add("--task", settings.task, "reverse or sort", {"reverse", "sort"});
  options.add("--steps", settings.steps, "length of the run", 1);
  options.add("--seed", settings.seed.value, "of the first weights and of all rows");
  options.add("--check-gradient", settings.check_gradient, "compare the gradient with differences, and end");
  options.add("--threads", settings.threads, "any number gives the same bits", 1, 1024);
  return example::run_program("encoder_decoder", [&] {
    if (!options.parse(argc, argv)) return 0;
    example::stop_when_asked();
    return example::run(settings);
  });
}
