// What a state of fixed size can hold: associative recall and copying, by the length of the sequence, of every version and
// of attention, whose cache grows. And what it does to a question when it is asked before its context as well.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "../../../examples/draws.hpp"
#include "../linear_cost/attention.hpp"
#include "../linear_cost/shifted.hpp"
#include "../study.hpp"

namespace {

using namespace study;

/// The sizes of the study.
struct Scale {
  std::vector<Index> lengths{64, 128, 256, 512};
  std::vector<double> rates{1e-3, 3e-3, 1e-2};
  ModelSizes sizes{.vocab = 256, .width = 64, .depth = 2, .head_size = 32};
  Index tokens_of_a_step = 1024, steps = 6000;
  Index judged = 64;  ///< sequences

  static Scale smoke() { return {{16}, {3e-3}, {.vocab = 256, .width = 16, .depth = 1, .head_size = 8}, 64, 6, 4}; }
};

// Keys are the lower half of the tokens, values the upper half; copied are keys, behind a sign.
constexpr Index keys = 128;
constexpr Token copy_sign = 255;

/// A sequence, the targets of its answers, and how far back each answer lies.
struct Sequence {
  std::vector<Token> tokens, targets;
  std::vector<Index> distances;  ///< by token; 0 where nothing is asked
};

/// Distinct keys in random order.
std::vector<Token> draw_keys(Draws& draws, Index count) {
  std::vector<Token> all;
  for (Token key = 0; key < keys; ++key) all.push_back(key);
  for (Index i = 0; i < count; ++i) {
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + draws.below(keys - i))]);
  }
  all.resize(static_cast<std::size_t>(count));
  return all;
}

/// Pairs of a key and a value, then the keys in random order, each at least once; behind each stands its value, which is to
/// be told.
Sequence recall(Draws& draws, Index length, Index pairs) {
  const auto asked = draw_keys(draws, pairs);
  auto order = asked;
  while (std::ssize(order) < length / 2 - pairs) order.push_back(asked[static_cast<std::size_t>(draws.below(pairs))]);
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    std::swap(order[i], order[i + static_cast<std::size_t>(draws.below(std::ssize(order) - static_cast<Index>(i)))]);
  }
  std::vector<Token> value_of(static_cast<std::size_t>(keys));
  std::vector<Index> place_of(static_cast<std::size_t>(keys));
  Sequence sequence;
  const auto add = [&](Token token, Token target, Index distance) {
    sequence.tokens.push_back(token);
    sequence.targets.push_back(target);
    sequence.distances.push_back(distance);
  };
  for (const Token key : asked) {
    const auto at = static_cast<std::size_t>(key);
    value_of[at] = static_cast<Token>(keys) + draws.below(keys);
    place_of[at] = std::ssize(sequence.tokens);
    add(key, no_target, 0);
    add(value_of[at], no_target, 0);
  }
  for (const Token key : order) {
    const auto at = static_cast<std::size_t>(key);
    add(key, value_of[at], std::ssize(sequence.tokens) - place_of[at]);
    add(value_of[at], no_target, 0);
  }
  return sequence;
}

/// Random tokens, a sign, and the same tokens again: of `tokens` tokens, and so on until the sequence is full.
Sequence copy(Draws& draws, Index length, Index tokens) {
  Sequence sequence;
  const auto add = [&](Token token, Token target) {
    sequence.tokens.push_back(token);
    sequence.targets.push_back(target);
    sequence.distances.push_back(target == no_target ? 0 : tokens + 1);
  };
  while (std::ssize(sequence.tokens) + 2 * (tokens + 1) <= length) {
    std::vector<Token> source;
    for (Index i = 0; i < tokens; ++i) source.push_back(draws.below(keys));
    for (const Token token : source) add(token, no_target);
    Token before = copy_sign;
    for (const Token token : source) add(std::exchange(before, token), token);
    add(before, no_target);
    add(copy_sign, no_target);
  }
  while (std::ssize(sequence.tokens) < length) add(copy_sign, no_target);
  return sequence;
}

/// A task: its sequences by their size, and the largest that fits into a length, which is the one that is checked.
struct Task {
  Sequence (*make)(Draws&, Index length, Index size);
  Index (*largest)(Index length);
};
const Task recall_task{recall, [](Index length) { return length / 4; }};
const Task copy_task{copy, [](Index length) { return length / 2 - 1; }};

/// Batches of sequences; each depends on the seed and its number alone.
template <class Make>
Batch batch_of(const Make& make, BatchShape shape, Seed seed, const char* purpose, Index number,
               std::vector<Index>* distances = nullptr) {
  Batch batch;
  batch.shape = shape;
  for (Index b = 0; b < shape.batch; ++b) {
    Draws draws(seed, purpose, number * shape.batch + b);
    const Sequence one = make(draws);
    batch.tokens.insert(batch.tokens.end(), one.tokens.begin(), one.tokens.end());
    batch.targets.insert(batch.targets.end(), one.targets.begin(), one.targets.end());
    if (distances != nullptr) distances->insert(distances->end(), one.distances.begin(), one.distances.end());
  }
  return batch;
}

/// What a model is trained on: sequences of any size up to one that grows over the first half of the steps to the largest.
/// So what the task is can be learned before how much can be held.
struct Curriculum {
  Task task;
  BatchShape shape;
  Seed seed;
  Index steps;

  void fill(Index step, Batch& batch) const {
    const Index largest = task.largest(shape.length);
    const Index most = std::clamp<Index>(2 * step * largest / steps, 1, largest);
    batch = batch_of([&](Draws& draws) { return task.make(draws, shape.length, 1 + draws.below(most)); }, shape, seed,
                     "training", step);
  }
};

template <class V>
using LayerOf = Layer<TimeMix<V, float, Cpu>, ChannelMix<V, float, Cpu>>;
using AttentionLayer = Layer<linear_cost::Shifted<linear_cost::Attention<float, Cpu>>, ChannelMix<V7, float, Cpu>>;
template <class L>
using Net = Model<Embedding<float, Cpu>, Stack<L>, Head<float, Cpu>>;

const std::vector<std::string> models{"RWKV-4", "RWKV-5.2", "RWKV-6", "RWKV-7", "attention"};

/// A model, a task and a learning rate.
struct Run {
  std::string task, model;
  Index length;
  double rate;

  std::string fields() const { return join(task, ",", model, ",", length, ",", rate); }
  BatchShape shape(const Scale& scale) const {
    return {.batch = std::max<Index>(1, scale.tokens_of_a_step / length), .length = length};
  }
  Task made_by() const { return task == "recall" ? recall_task : copy_task; }
};

/// Which of the answers are right, by token.
template <class N>
std::vector<bool> answers(const N& net, const Batch& batch) {
  const auto vocab = static_cast<std::size_t>(net.sizes().vocab);
  auto context = net.context({.batch = batch.shape.batch});
  std::vector<float> logits(batch.tokens.size() * vocab);
  context.sequence(batch.tokens, logits);
  std::vector<bool> right(batch.tokens.size());
  for (std::size_t i = 0; i < right.size(); ++i) {
    const auto row = std::span<const float>(logits).subspan(i * vocab, vocab);
    right[i] = batch.targets[i] == static_cast<Token>(std::ranges::max_element(row) - row.begin());
  }
  return right;
}

struct Count {
  Index right = 0, all = 0;

  void add(bool correct) { right += correct, ++all; }
  double part() const { return all == 0 ? 0 : static_cast<double>(right) / static_cast<double>(all); }
};

/// Accuracy by eighths of the length that an answer lies back, and in all.
template <class N>
std::string judge(const N& net, const Run& run, const Scale& scale, Seed seed) {
  const Task task = run.made_by();
  const BatchShape shape = run.shape(scale);
  const auto make = [&](Draws& draws) { return task.make(draws, run.length, task.largest(run.length)); };
  Count all, by_distance[8];
  for (Index done = 0; done < scale.judged; done += shape.batch) {
    std::vector<Index> distances;
    const Batch batch = batch_of(make, shape, seed, "checking", done / shape.batch, &distances);
    const auto right = answers(net, batch);
    for (std::size_t i = 0; i < right.size(); ++i) {
      if (distances[i] == 0) continue;
      all.add(right[i]);
      by_distance[distances[i] * 8 / (run.length + 1)].add(right[i]);
    }
  }
  std::string rows = join(run.fields(), ",all,", all.part(), "\n");
  for (int eighth = 0; eighth < 8; ++eighth) {
    if (by_distance[eighth].all == 0) continue;
    rows += join(run.fields(), ",", (eighth + 0.5) * static_cast<double>(run.length) / 8, ",",
                 by_distance[eighth].part(), "\n");
  }
  return rows;
}

/// Accuracy of one question about the pairs: asked behind them, as in training; asked in front of them as well; and behind
/// pairs that are read twice.
template <class N>
std::string judge_prompts(const N& net, const Run& run, const Scale& scale, Seed seed) {
  std::string rows;
  for (const std::string prompt : {"behind", "in front and behind", "behind two readings"}) {
    Count count;
    for (Index number = 0; number < 8 * scale.judged; ++number) {
      Draws draws(seed, "prompts", number);
      const Sequence whole = recall(draws, run.length, run.length / 4);
      const auto middle = whole.tokens.begin() + run.length / 2;
      const std::vector<Token> pairs(whole.tokens.begin(), middle);
      const Token key = *middle, value = *(middle + 1);
      std::vector<Token> tokens;
      if (prompt == "in front and behind") tokens.push_back(key);
      tokens.insert(tokens.end(), pairs.begin(), pairs.end());
      if (prompt == "behind two readings") tokens.insert(tokens.end(), pairs.begin(), pairs.end());
      tokens.push_back(key);
      auto context = net.context();
      const auto logits = context.prefill(tokens);
      count.add(std::ranges::max_element(logits) - logits.begin() == value);
    }
    rows += join(run.fields(), ",", prompt, ",", count.part(), "\n");
  }
  return rows;
}

template <class L>
void train_and_judge(Study& study, const Run& run, const Scale& scale) {
  ModelSizes sizes = scale.sizes;
  sizes.window = 2 * run.length;  // attention keeps so many tokens
  Net<L> net(sizes, Cpu(study.settings.threads));
  initialize(net, study.settings.seed);
  Trainer trainer(net,
                  {.shape = run.shape(scale),
                   .rate = {.peak = run.rate, .final = run.rate / 10, .steps = scale.steps, .warmup = scale.steps / 10},
                   .l2_wrap = false});
  const Curriculum curriculum{run.made_by(), run.shape(scale), study.settings.seed, scale.steps};
  study.train(trainer, curriculum, scale.steps, run.fields(), static_cast<double>(scale.tokens_of_a_step));
  if (stopped != 0) return;
  study.table.add(judge(net, run, scale, study.settings.seed) +
                  (run.task == "recall" ? judge_prompts(net, run, scale, study.settings.seed) : ""));
  study.forget_run();
}

/// The rows of a task and model at a length.
std::vector<std::vector<std::string>> rows_of(const Study& study, const std::string& task, const std::string& model,
                                              Index length) {
  auto rows = study.table.rows();
  std::erase_if(rows, [&](const auto& row) {
    return row[0] != task || row[1] != model || row[2] != join(length) || row[3] == "best";
  });
  return rows;
}

/// The learning rate that is best in all; empty before any is tried.
std::string best_rate(const Study& study, const std::string& task, const std::string& model, Index length) {
  std::string rate;
  double most = -1;
  for (const auto& row : rows_of(study, task, model, length)) {
    if (row[4] == "all" && std::stod(row[5]) > most) most = std::stod(row[5]), rate = row[3];
  }
  return rate;
}

/// The accuracy at that rate, at `x`.
double best(const Study& study, const std::string& task, const std::string& model, Index length, const std::string& x) {
  const std::string rate = best_rate(study, task, model, length);
  for (const auto& row : rows_of(study, task, model, length)) {
    if (row[3] == rate && row[4] == x) return std::stod(row[5]);
  }
  return 0;
}

std::string tables(const Study& study, const Scale& scale) {
  std::vector<std::string> head{"task", "length"}, rule{"---", "---:"};
  for (const std::string& model : models) head.push_back(model), rule.push_back("---:");
  const auto percent = [](double part) { return text("%.1f", 100 * part); };
  std::string all = line_of(head) + line_of(rule);
  for (const std::string task : {"recall", "copy"}) {
    for (const Index length : scale.lengths) {
      std::vector<std::string> cells{task, join(length)};
      for (const std::string& model : models) cells.push_back(percent(best(study, task, model, length, "all")));
      all += line_of(cells);
    }
  }
  head[0] = "question";
  std::string prompts = line_of(head) + line_of(rule);
  for (const std::string prompt : {"behind", "in front and behind", "behind two readings"}) {
    for (const Index length : scale.lengths) {
      std::vector<std::string> cells{prompt, join(length)};
      for (const std::string& model : models) cells.push_back(percent(best(study, "recall", model, length, prompt)));
      prompts += line_of(cells);
    }
  }
  return join("Right answers in percent, at that of the learning rates ", scale.rates.front(), " to ",
              scale.rates.back(), " which is best at length ", scale.lengths.front(),
              "; in recall a quarter of the length are pairs:\n\n", all,
              "\nOne question about the pairs, in percent:\n\n", prompts);
}

void run_one(Study& study, const Run& run, const Scale& scale) {
  if (run.model == "RWKV-4") train_and_judge<LayerOf<V4>>(study, run, scale);
  else if (run.model == "RWKV-5.2") train_and_judge<LayerOf<V5>>(study, run, scale);
  else if (run.model == "RWKV-6") train_and_judge<LayerOf<V6>>(study, run, scale);
  else if (run.model == "RWKV-7") train_and_judge<LayerOf<V7>>(study, run, scale);
  else train_and_judge<AttentionLayer>(study, run, scale);
}

void run_all(const Settings& settings) {
  const Scale scale = settings.smoke ? Scale::smoke() : Scale();
  const double work = static_cast<double>(scale.steps) * static_cast<double>(scale.tokens_of_a_step);
  const std::size_t of_a_model = scale.rates.size() + scale.lengths.size() - 1;
  Study study(settings,
              join(scale.sizes.depth, " layers of width ", scale.sizes.width, ", ", scale.steps, " steps of ",
                   scale.tokens_of_a_step, " tokens"),
              "task,model,length,rate,x,accuracy", work * static_cast<double>(2 * models.size() * of_a_model));
  for (const std::string task : {"recall", "copy"}) {
    for (const std::string& model : models) {
      for (const Index length : scale.lengths) {
        auto rates = scale.rates;
        if (length != scale.lengths.front()) rates = {std::stod(best_rate(study, task, model, scale.lengths.front()))};
        for (const double rate : rates) {
          const Run run{task, model, length, rate};
          if (study.table.has(run.fields())) study.course.skip(work);
          else run_one(study, run, scale);
          if (stopped != 0) return;
        }
        // The row that is drawn.
        const std::string drawn = join(task, ",", model, ",", length, ",best");
        if (study.table.has(drawn)) continue;
        study.table.add(join(drawn, ",all,", best(study, task, model, length, "all"), "\n"));
      }
    }
  }
  study.report("Recall", tables(study, scale));
}

}  // namespace

int main(int argc, char** argv) {
  return study::run_study("recall", "Measures what a state can hold.", argc, argv, run_all);
}
