/// Features of the trainer beyond the official recipe: low-rank factors, freezing, averages, gradient accumulation,
/// initial states; and its errors.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "../golden.hpp"
#include "setup.hpp"

using namespace rwkv;
using config::all_weights;
using config::initialized;
using config::small_options;
using config::small_sizes;
using Net = config::SmallNet<>;
using Exact = config::SmallNet<double>;

namespace {

Batch some_batch(const BatchShape& shape, Index step = 0) {
  Batch batch;
  RandomWindows(config::made_up_text(900, small_sizes.vocab), shape, Seed{5}).fill(step, batch);
  return batch;
}

}  // namespace

TEST_CASE("training lowers the loss") {
  auto options = small_options();
  options.rate = {.peak = 1e-2, .decay = LearningRate::constant};
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> trainer(net, options);
  const auto losses = config::train(trainer, options.shape, small_sizes.vocab, 0, 150);
  CHECK(losses.front() == doctest::Approx(std::log(29)).epsilon(0.15));
  CHECK(losses.back() < 0.7 * losses.front());
}

TEST_CASE("frozen parameters stay, and the others move as without them") {
  auto options = small_options();
  options.clip = 0;
  auto free_net = initialized<Net>(small_sizes), frozen_net = initialized<Net>(small_sizes);
  const auto before = initialized<Net>(small_sizes);
  Trainer<Net> free_run(free_net, options);
  options.frozen = "blocks.*.att.**";
  Trainer<Net> frozen_run(frozen_net, options);
  CHECK(free_run.step(some_batch(options.shape)) == frozen_run.step(some_batch(options.shape)));
  const auto start = before.parameters(), freed = std::as_const(free_net).parameters();
  std::size_t i = 0;
  for (const auto& parameter : frozen_net.parameters()) {
    CAPTURE(parameter.name);
    const auto& want = parameter.name.find(".att.") != std::string::npos ? start[i] : freed[i];
    CHECK(std::equal(parameter.numbers().begin(), parameter.numbers().end(), want.numbers().begin()));
    ++i;
  }
}

TEST_CASE("low-rank factors: the model holds W_0 + s B A, and their gradients are those of the loss") {
  auto net = initialized<Exact>(small_sizes);
  const Batch batch = some_batch({.batch = 2, .length = 9});
  Gradient<Exact> gradient(net, {.batch = 2, .length = 9});
  const auto named = [&](const char* name) {
    for (const auto& parameter : gradient.parameters()) {
      if (parameter.name == name) return parameter;
    }
    fail("no parameter ", name);
  };
  const auto key = named("blocks.1.ffn.key.weight");
  const Index out = 33, in = 20, rank = 3;
  const std::vector<double> base(key.values.begin(), key.values.end());
  std::vector<double> copy = base, a(rank * in), b(out * rank), da(a.size()), db(b.size());
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = std::sin(static_cast<double>(i));
  const AdaptedMatrix<double> adapted{matrix(key.values.data(), out, in), matrix(key.gradient.data(), out, in),
                                      matrix(copy.data(), out, in),       matrix(a.data(), rank, in),
                                      matrix(b.data(), out, rank),        matrix(da.data(), rank, in),
                                      matrix(db.data(), out, rank),       0.7};
  Cpu be;
  adapted.start(be, Seed{1}, "key");
  const auto loss = [&] {
    adapted.merge(be);
    gradient.reset_state();
    gradient.clear();
    return gradient.add(batch.tokens, batch.targets);
  };
  loss();
  for (Index o = 0; o < out; ++o) {
    for (Index i = 0; i < in; ++i) {
      double sum = 0;
      for (Index r = 0; r < rank; ++r)
        sum += b[static_cast<std::size_t>(o * rank + r)] * a[static_cast<std::size_t>(r * in + i)];
      const auto at = static_cast<std::size_t>(o * in + i);
      CHECK(key.values[at] == doctest::Approx(base[at] + 0.7 * sum).epsilon(1e-12));
    }
  }
  adapted.pull_back(be);
  const auto da_here = da, db_here = db;
  for (auto [factor, d] : {std::pair(&a, &da_here), std::pair(&b, &db_here)}) {
    const std::size_t i = factor->size() / 2;
    const double h = 1e-5, was = (*factor)[i];
    (*factor)[i] = was + h;
    const double up = loss();
    (*factor)[i] = was - h;
    const double down = loss();
    (*factor)[i] = was;
    CHECK((*d)[i] == doctest::Approx((up - down) / (2 * h)).epsilon(1e-6));
  }
}

TEST_CASE("training low-rank factors leaves all else as it is, and saves as an ordinary model") {
  auto options = small_options();
  options.lora = {.matrices = "blocks.*.att.{key,value}.weight", .rank = 2, .alpha = 4};
  // A few ordinary steps first: the output matrices start at zero, so everything before them has gradient zero at
  // first.
  const auto trained = [] {
    auto net = initialized<Net>(small_sizes);
    Trainer<Net> first(net, small_options());
    config::train(first, small_options().shape, small_sizes.vocab, 0, 8);
    return net;
  };
  auto net = trained();
  const auto before = trained();
  Trainer<Net> trainer(net, options);
  config::train(trainer, options.shape, small_sizes.vocab, 8, 20);
  const auto start = before.parameters();
  std::size_t i = 0, changed = 0;
  for (const auto& parameter : net.parameters()) {
    CAPTURE(parameter.name);
    const bool equal = std::equal(parameter.numbers().begin(), parameter.numbers().end(), start[i++].numbers().begin());
    CHECK(equal != glob_matches(options.lora.matrices, parameter.name));
    changed += !equal;
  }
  CHECK(changed == 4);
}

TEST_CASE("the moving average follows its formula, and changing places twice is the identity") {
  auto options = small_options();
  options.average = 0.75;
  auto net = initialized<Exact>(small_sizes);
  Trainer<Exact> trainer(net, options);
  auto want = all_weights(net);
  for (Index step = 0; step < 3; ++step) {
    trainer.step(some_batch(options.shape, step));
    const auto now = all_weights(net);
    for (std::size_t i = 0; i < want.size(); ++i) want[i] = 0.75 * want[i] + 0.25 * now[i];
  }
  const auto last = all_weights(net);
  trainer.exchange_average();
  CHECK(golden::relative_error(all_weights(net), want) < 1e-14);
  CHECK_THROWS_WITH_AS(trainer.step(some_batch(options.shape)),
                       "rwkv: the model holds the moving average; call exchange_average() again before a step", Error);
  trainer.exchange_average();
  CHECK(all_weights(net) == last);
}

TEST_CASE("a batch in parts is the batch") {
  auto whole_net = initialized<Exact>(small_sizes), parts_net = initialized<Exact>(small_sizes);
  auto options = small_options();
  options.shape.batch = 4;
  Trainer<Exact> whole(whole_net, options);
  options.shape.batch = 2;
  Trainer<Exact> parts(parts_net, options);
  const Batch batch = some_batch({.batch = 4, .length = 11});
  std::vector<Batch> halves(2);
  for (std::size_t h = 0; h < 2; ++h) {
    const auto half = [&](const std::vector<Token>& all) {
      return std::vector(all.begin() + static_cast<Index>(h) * 22, all.begin() + static_cast<Index>(h + 1) * 22);
    };
    halves[h] = {.shape = {2, 11}, .tokens = half(batch.tokens), .targets = half(batch.targets)};
  }
  CHECK(whole.step(batch) == doctest::Approx(parts.step(halves)).epsilon(1e-13));
  CHECK(whole.gradient_norm() == doctest::Approx(parts.gradient_norm()).epsilon(1e-12));
  CHECK(golden::relative_error(all_weights(parts_net), all_weights(whole_net)) < 1e-9);
}

TEST_CASE("training the initial state lowers the loss, keeps the weights, and serves a context") {
  auto net = initialized<Exact>(small_sizes);
  {
    Trainer<Exact> first(net, small_options());
    config::train(first, small_options().shape, small_sizes.vocab, 0, 60);
  }
  const auto weights = all_weights(net);
  auto options = small_options();
  options.rate = {.peak = 3e-2, .decay = LearningRate::constant};
  options.tune_state = true;
  Trainer<Exact> trainer(net, options);
  const Batch batch = some_batch(options.shape);
  const double before = trainer.step(batch);
  for (int i = 0; i < 60; ++i) trainer.step(batch);
  const double after = trainer.step(batch);
  CHECK(after < before - 0.02);
  CHECK(all_weights(net) == weights);

  // A context that starts from the trained state gives the same loss.
  const auto initial = trainer.initial_state();
  const std::vector<double> state(initial.begin(), initial.end());
  double sum = 0;
  for (std::size_t b = 0; b < 3; ++b) {
    auto context = net.context();
    context.restore(state);
    std::vector<double> logits(11 * 29);
    context.sequence(std::span<const Token>(batch.tokens).subspan(b * 11, 11), logits);
    for (std::size_t t = 0; t < 11; ++t) {
      const auto row = std::span(logits).subspan(t * 29, 29);
      double total = 0;
      for (const double logit : row) total += std::exp(logit);
      sum += std::log(total) - row[static_cast<std::size_t>(batch.targets[b * 11 + t])];
    }
  }
  CHECK(trainer.step(batch) == doctest::Approx(sum / 33).epsilon(1e-10));
}

TEST_CASE("a loss that is not finite stops the step and changes nothing") {
  const auto options = small_options();
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> trainer(net, options);
  trainer.step(some_batch(options.shape));
  for (auto& parameter : net.parameters()) {
    if (parameter.name == "blocks.1.ffn.key.weight") parameter.numbers()[7] = std::numeric_limits<float>::quiet_NaN();
  }
  const config::TemporaryPath path("rwkv_not_finite_run.safetensors");
  trainer.save(path);
  const std::string before = config::content_of(path);  // weights, moments, carried state, steps
  const double norm = trainer.gradient_norm();
  CHECK_THROWS_WITH_AS(trainer.step(some_batch(options.shape, 1)),
                       "rwkv: training step 1: the loss is nan, the gradient's norm nan; blocks.1.ffn.key.weight is "
                       "the first tensor that is not finite, at element 7",
                       Error);
  CHECK(trainer.gradient_norm() == norm);
  trainer.save(path);
  CHECK(config::content_of(path) == before);
}

TEST_CASE("settings and batches that make no sense are named") {
  auto net = initialized<Net>(small_sizes);
  const auto refuses = [&](auto change, const char* sentence) {
    auto options = small_options();
    change(options);
    CHECK_THROWS_WITH_AS((Trainer<Net>(net, options)), sentence, Error);
  };
  refuses([](TrainerOptions& o) { o.shape.length = 0; },
          "rwkv: a batch of 3 sequences of 0 tokens has nothing to learn from");
  refuses([](TrainerOptions& o) { o.clip = -1; },
          "rwkv: the limit of the gradient's norm must not be negative, as -1 is");
  refuses([](TrainerOptions& o) { o.average = 1; }, "rwkv: the decay of the moving average must be in [0, 1), not 1");
  refuses([](TrainerOptions& o) { o.optimizer.beta1 = 1; }, "rwkv: AdamW: a beta must be in [0, 1), not 1");
  refuses([](TrainerOptions& o) { o.frozen = "no.such.*"; }, "rwkv: no parameter is named like 'no.such.*'");
  refuses([](TrainerOptions& o) { o.frozen = "**"; }, "rwkv: nothing is left to train");
  refuses([](TrainerOptions& o) { o.lora.matrices = "no.such.*"; },
          "rwkv: nothing is left to train: no free matrix is named like 'no.such.*'");
  refuses([](TrainerOptions& o) { o.lora = {.matrices = "ln_out.weight"}; },
          "rwkv: ln_out.weight of shape [20] is no matrix of two axes, so it has no low-rank factors");
  refuses([](TrainerOptions& o) { o.lora = {.matrices = "head.weight", .rank = 0}; },
          "rwkv: low-rank factors need a rank and an alpha above zero, not 0 and 16");

  Trainer<Net> trainer(net, small_options());
  CHECK_THROWS_WITH_AS(trainer.exchange_average(), "rwkv: this run keeps no moving average", Error);
  const auto fails = [&](auto change, const char* sentence) {
    Batch batch = some_batch(small_options().shape);
    change(batch);
    const auto before = all_weights(net);
    CHECK_THROWS_WITH_AS(trainer.step(batch), sentence, Error);
    CHECK(all_weights(net) == before);
    CHECK(trainer.steps() == 0);
  };
  fails([](Batch& b) { b.shape = {11, 3}; }, "rwkv: a batch of 11 sequences of 3 tokens for a trainer of 3 of 11");
  fails([](Batch& b) { b.tokens.pop_back(); },
        "rwkv: a batch of 3 sequences of 11 tokens has 33 tokens and as many targets, not 32 and 33");
  fails([](Batch& b) { b.tokens[4] = 29; }, "rwkv: token 29 at position 4 is outside the vocabulary of 29");
  fails([](Batch& b) { b.targets[5] = -2; }, "rwkv: target -2 at position 5 is outside the vocabulary of 29");
  fails([](Batch& b) { b.targets.assign(33, no_target); }, "rwkv: no position of the batch has a target");

  // An error in the second part of a batch is reported before the first part has changed anything.
  std::vector<Batch> parts(2, some_batch(small_options().shape));
  parts[1].tokens[0] = -1;
  const auto numbers = trainer.gradient().state().numbers();
  const std::vector<float> state(numbers.data, numbers.data + numbers.cols);
  CHECK_THROWS_WITH_AS(trainer.step(parts), "rwkv: token -1 at position 0 is outside the vocabulary of 29", Error);
  CHECK(std::equal(state.begin(), state.end(), numbers.data));
}

TEST_CASE("evaluation is the mean of all tokens after the first, from the empty state, whatever the chunks") {
  const auto net = initialized<Exact>(small_sizes);
  const auto text = config::made_up_text(1400, small_sizes.vocab);
  auto context = net.context();
  double sum = 0;
  for (Index i = 0; i + 1 < text.size(); ++i) {
    const auto logits = context.step(text[i]);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    sum += std::log(total) - logits[static_cast<std::size_t>(text[i + 1])];
  }
  CHECK(evaluate(net, text) == doctest::Approx(sum / 1399).epsilon(1e-12));
  CHECK_THROWS_WITH_AS(evaluate(net, text.slice(0, 1)), "tokens: 1 token is too few to predict any", Error);
}
