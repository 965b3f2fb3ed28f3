/// MiSS: its formula, its gradient, and runs that train it; adapters apart from their model, and back in it.
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
using config::TemporaryPath;
using Net = config::SmallNet<>;
using Exact = config::SmallNet<double>;

namespace {

/// Numbers between -1 and 1.
std::vector<double> numbers(Index count, std::uint64_t key) {
  std::vector<double> list;
  for (Index i = 0; i < count; ++i)
    list.push_back(2 * Philox{.key = key}.block(static_cast<std::uint64_t>(i)).uniform_double(0) - 1);
  return list;
}

double inner(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// One matrix by MiSS; the rank does not divide the inputs.
struct MissMatrix {
  static constexpr Index out = 33, in = 20, rank = 6, widest = 25;
  static constexpr double scale = 0.7;
  std::vector<double> w = numbers(out * in, 1), dw = numbers(out * in, 2), base = w,
                      a = std::vector<double>(rank * widest), d = numbers(out * rank, 3),
                      dd = std::vector<double>(d.size());
  AdaptedMatrix<double> adapted{matrix(w.data(), out, in),    matrix(dw.data(), out, in),
                                matrix(base.data(), out, in), columns_of(matrix(a.data(), rank, widest), 0, in),
                                matrix(d.data(), out, rank),  {},
                                matrix(dd.data(), out, rank), scale};
  MissMatrix() {
    Cpu be;
    fill_miss(be, std::span(a), widest);
    adapted.merge(be);
  }
};

/// The changes of `trained` against `base` by name, and whether a pattern fits it.
void check_changed(const Net& trained, const Net& base, const std::string& pattern) {
  const auto before = base.parameters();
  std::size_t i = 0;
  for (const auto& parameter : trained.parameters()) {
    CAPTURE(parameter.name);
    const auto was = before[i++].numbers();
    CHECK(std::equal(was.begin(), was.end(), parameter.numbers().begin()) != glob_matches(pattern, parameter.name));
  }
}

/// A model after a few ordinary steps: the official start has zeros, and so no gradient, in front of them.
Net trained_a_little() {
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> first(net, small_options());
  config::train(first, small_options().shape, small_sizes.vocab, 0, 8);
  return net;
}

std::vector<float> logits_of(const Net& net) {
  auto context = net.context();
  std::vector<float> logits(7 * 29);
  const Token tokens[] = {1, 28, 4, 9, 0, 13, 2};
  context.sequence(tokens, logits);
  return logits;
}

}  // namespace

TEST_CASE("MiSS: the forward pass with sums S and D is that of the merged matrix") {
  const MissMatrix m;
  const auto x = numbers(MissMatrix::in, 5);
  std::vector<double> sums(MissMatrix::rank);
  for (std::size_t k = 0; k < x.size(); ++k) sums[k % sums.size()] += x[k];
  for (Index o = 0; o < MissMatrix::out; ++o) {
    double plain = 0, merged = 0, extra = 0;
    for (Index k = 0; k < MissMatrix::in; ++k) {
      const auto at = static_cast<std::size_t>(o * MissMatrix::in + k), i = static_cast<std::size_t>(k);
      plain += m.base[at] * x[i];
      merged += m.w[at] * x[i];
    }
    for (std::size_t j = 0; j < sums.size(); ++j) extra += m.d[static_cast<std::size_t>(o) * sums.size() + j] * sums[j];
    CHECK(merged == doctest::Approx(plain + MissMatrix::scale * extra).epsilon(1e-13));
  }
}

TEST_CASE("MiSS: the gradient of D is the adjoint of the merge") {
  MissMatrix m;
  Cpu be;
  m.adapted.pull_back(be);
  const auto direction = numbers(MissMatrix::out * MissMatrix::rank, 7);
  const auto merged = m.w;
  for (std::size_t i = 0; i < m.d.size(); ++i) m.d[i] += direction[i];
  m.adapted.merge(be);
  std::vector<double> moved;
  for (std::size_t i = 0; i < merged.size(); ++i) moved.push_back(m.w[i] - merged[i]);
  CHECK(inner(moved, m.dw) == doctest::Approx(inner(direction, m.dd)).epsilon(1e-13));
}

TEST_CASE("MiSS: the gradient of the loss agrees with differences") {
  auto net = initialized<Exact>(small_sizes);
  Batch batch;
  RandomWindows(config::made_up_text(900, small_sizes.vocab), {.batch = 2, .length = 9}, Seed{5}).fill(0, batch);
  Gradient<Exact> gradient(net, {.batch = 2, .length = 9});
  const auto& key =
      *std::ranges::find(gradient.parameters(), "blocks.1.ffn.key.weight", [](const auto& p) { return p.name; });
  MissMatrix m;
  m.base.assign(key.values.begin(), key.values.end());
  m.adapted.w.data = key.values.data();
  m.adapted.dw.data = key.gradient.data();
  Cpu be;
  const auto loss = [&] {
    m.adapted.merge(be);
    gradient.reset_state();
    gradient.clear();
    return gradient.add(batch.tokens, batch.targets);
  };
  loss();
  m.adapted.pull_back(be);
  const auto slope = m.dd;
  for (const std::size_t i : {std::size_t{0}, m.d.size() / 2, m.d.size() - 1}) {
    const double h = 1e-5, was = m.d[i];
    m.d[i] = was + h;
    const double up = loss();
    m.d[i] = was - h;
    const double down = loss();
    m.d[i] = was;
    CHECK(slope[i] == doctest::Approx((up - down) / (2 * h)).epsilon(1e-6));
  }
}

TEST_CASE("factors train their matrices alone; saved, read and put into the base they give the trained model") {
  auto options = small_options();
  const std::string pattern = "blocks.*.{att,ffn}.{key,value}.weight";
  SUBCASE("low rank") { options.lora = {.matrices = pattern, .rank = 3, .alpha = 7}; }
  SUBCASE("MiSS, with an average") {
    options.miss = {.matrices = pattern, .rank = 7, .alpha = 2};
    options.average = 0.5;
  }
  auto net = trained_a_little();
  const auto base = trained_a_little();
  Trainer<Net> trainer(net, options);
  CHECK(trainer.adapter().base == base.context().fingerprint());
  config::train(trainer, options.shape, small_sizes.vocab, 8, 20);
  if (options.average > 0) trainer.exchange_average();
  check_changed(net, base, pattern);

  const TemporaryPath path("rwkv_trained.adapter.safetensors");
  save_adapter(trainer.adapter(), path);
  const Adapter read = load_adapter(path);
  CHECK(read.matrices.size() == 8);
  const Net again = adapted(base, read);
  CHECK(golden::relative_error(all_weights(again), all_weights(net)) < 1e-7);
  CHECK(golden::relative_error(logits_of(again), logits_of(net)) < 1e-6);
  // All else is the base's own memory.
  std::size_t i = 0;
  const auto own = base.parameters();
  for (const auto& parameter : again.parameters())
    CHECK((parameter.data == own[i++].data) != glob_matches(pattern, parameter.name));
}

TEST_CASE("an adapter of a run that goes on is for the model that the run began with") {
  const TemporaryPath file("rwkv_adapter_run.safetensors");
  auto options = small_options();
  options.lora = {.matrices = "blocks.*.att.key.weight", .rank = 2};
  auto net = trained_a_little(), other = initialized<Net>(small_sizes);
  const auto first = Trainer<Net>(net, options).adapter().base;
  Trainer<Net>(net, options).save(file);
  Trainer<Net> goes_on(other, options);
  CHECK(goes_on.adapter().base != first);
  goes_on.resume(file);
  CHECK(goes_on.adapter().base == first);
}

TEST_CASE("a model serves several adapters at a time, and they add up") {
  const auto base = trained_a_little();
  const auto trained_with = [&](Index begin, const char* pattern) {
    auto net = trained_a_little();
    auto options = small_options();
    options.miss = {.matrices = pattern, .rank = 4};
    Trainer<Net> trainer(net, options);
    config::train(trainer, options.shape, small_sizes.vocab, begin, begin + 5);
    return trainer.adapter();
  };
  const Adapter two[] = {trained_with(8, "blocks.*.att.key.weight"),
                         trained_with(40, "{blocks.0.att.key,head}.weight")};
  const Net first = adapted(base, two[0]), second = adapted(base, two[1]), both = adapted(base, two);
  auto a = first.context(), b = second.context(), plain = base.context();
  const Token tokens[] = {3, 5};  // of RWKV-4, keys matter from the second token on
  const auto of = [&](auto& context) {
    const auto logits = context.prefill(tokens);
    return std::vector<float>(logits.begin(), logits.end());
  };
  const auto from_a = of(a), from_b = of(b), from_plain = of(plain);
  CHECK(from_a != from_plain);
  CHECK(from_b != from_plain);
  CHECK(from_a != from_b);
  const auto w = all_weights(base), w1 = all_weights(first), w2 = all_weights(second), sum = all_weights(both);
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (sum[i] != doctest::Approx(static_cast<double>(w1[i]) + w2[i] - w[i]).epsilon(1e-6)) FAIL(i);
  }
}

TEST_CASE("factors that cannot be are named") {
  const auto refuses = [](auto change, const char* sentence) {
    auto net = initialized<Net>(small_sizes);
    const auto before = all_weights(net);
    auto options = small_options();
    change(options);
    CHECK_THROWS_WITH_AS((Trainer<Net>(net, options)), sentence, Error);
    CHECK(all_weights(net) == before);
  };
  const auto miss = [](Index rank, double alpha = 1) {
    return [=](TrainerOptions& o) { o.miss = {.matrices = "blocks.0.ffn.key.weight", .rank = rank, .alpha = alpha}; };
  };
  refuses(miss(0), "rwkv: MiSS needs a rank and an alpha above zero, not 0 and 1");
  refuses(miss(4, std::numeric_limits<double>::infinity()),
          "rwkv: MiSS needs a rank and an alpha above zero, not 4 and inf");
  refuses(miss(4, std::numeric_limits<double>::quiet_NaN()),
          "rwkv: MiSS needs a rank and an alpha above zero, not 4 and nan");
  refuses(miss(21), "rwkv: a rank of 21 does not fit blocks.0.ffn.key.weight of shape [33, 20]");
  refuses([](TrainerOptions& o) { o.lora = {.matrices = "blocks.0.ffn.key.weight", .rank = 21}; },
          "rwkv: a rank of 21 does not fit blocks.0.ffn.key.weight of shape [33, 20]");
  refuses([](TrainerOptions& o) { o.miss = {.matrices = "ln_out.*"}; },
          "rwkv: ln_out.weight of shape [20] is no matrix of two axes, so it has no MiSS");
  refuses([](TrainerOptions& o) { o.miss.matrices = "no.such.*"; },
          "rwkv: nothing is left to train: no free matrix is named like 'no.such.*'");
  refuses(
      [](TrainerOptions& o) {
        o.miss.matrices = "head.weight";
        o.lora.matrices = "head.weight";
      },
      "rwkv: a run trains the initial state, low-rank factors or MiSS, not several of them");
  auto net = initialized<Net>(small_sizes);
  CHECK_THROWS_WITH_AS((Trainer<Net>(net, small_options()).adapter()),
                       "rwkv: this run trains no factors of matrices, so it has no adapter", Error);
}

TEST_CASE("the average of a tuned state begins with the state") {
  auto net = trained_a_little();
  auto options = small_options();
  options.tune_state = true;
  options.average = 0.75;
  Trainer<Net> trainer(net, options);
  auto want = trainer.initial_state();
  for (Index step = 0; step < 3; ++step) {
    config::train(trainer, options.shape, small_sizes.vocab, step, step + 1);
    const auto state = trainer.initial_state();
    for (std::size_t i = 0; i < want.size(); ++i) want[i] = 0.75f * want[i] + 0.25f * state[i];
  }
  trainer.exchange_average();
  CHECK(golden::relative_error(trainer.initial_state(), want) < 1e-6);
}

TEST_CASE("an evaluation in windows begins each from the state given") {
  const auto net = trained_a_little();
  const auto text = config::made_up_text(101, small_sizes.vocab);
  const auto going_on = [](Index) { return true; };
  auto context = net.context();
  context.step(5);
  const std::vector<float> state = context.state(0);
  double sum = 0;
  for (Index begin = 0; begin < 100; begin += 25) {
    context.restore(0, state);
    for (Index i = begin; i < begin + 25; ++i) sum += surprisal(context.step(text[i]), text[i + 1]);
  }
  CHECK(evaluate(net, text, going_on, {.window = 25, .state = state}) == doctest::Approx(sum / 100).epsilon(1e-6));
  CHECK(evaluate(net, text, going_on, {.window = 25}) != doctest::Approx(sum / 100).epsilon(1e-6));
  CHECK(evaluate(net, text, going_on, {.window = 100}) == evaluate(net, text));
}
