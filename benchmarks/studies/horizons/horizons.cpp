// Time horizons and information flow: how long the channels of each layer remember, and how a changed token spreads
// over the states of later tokens and layers.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../study.hpp"

namespace {

using namespace study;

/// What is measured, for the full study and the smoke test.
struct Plan {
  ModelSizes sizes{.vocab = 256, .width = 96, .depth = 6, .head_size = 16};
  Index steps = 1200, batch = 16, length = 128;
  Index text = 4096;   ///< bytes whose decays are read
  Index probes = 32;   ///< changed tokens
  Index behind = 256;  ///< later tokens whose states are compared

  /// In tokens of training: two texts, token by token.
  double work_of_a_step() const { return static_cast<double>(batch * length); }
  double work_of_a_probe() const { return static_cast<double>(2 * (length + behind)); }
};
constexpr Plan full, smoke{.sizes = {.vocab = 256, .width = 16, .depth = 2, .head_size = 8},
                           .steps = 3,
                           .batch = 2,
                           .length = 16,
                           .text = 64,
                           .probes = 2,
                           .behind = 16};

std::vector<Token> tokens_of(const TokenData& text, Index begin, Index count) {
  std::vector<Token> tokens;
  for (Index i = begin; i < begin + count; ++i) tokens.push_back(text[i]);
  return tokens;
}

/// The decays of a time mix, factors of its state for each token: of RWKV-4 from their logarithms.
template <class Tape>
std::vector<double> decays_of(const Tape& tape) {
  std::vector<double> decays;
  const auto w = tape.w.flat();
  for (Index row = 0; row < w.rows; ++row) {
    for (Index c = 0; c < w.cols; ++c) decays.push_back(w(row, c));
  }
  if constexpr (!requires { tape.w_h; }) {
    for (double& decay : decays) decay = std::exp(decay);
  }
  return decays;
}
/// Tokens until a state has lost half of what it holds.
double half_life(double decay) {
  const double below_one = 1 - 0x1p-24;  // the nearest float
  return -std::log(2.0) / std::log(std::min(decay, below_one));
}

/// Quantiles of the half-lives by layer: over channels, and over tokens where decays depend on them.
template <class Net>
std::string horizons(const std::string& version, const Net& net, const std::vector<Token>& tokens) {
  using Body = decltype(Net::Parts::body);
  Cpu be = net.device();
  BodyState state(be, net.parts.body, 1);
  net.parts.body.reset(be, state.views);
  auto tape = net.parts.body.template make_tape<Keep>();
  const Index time = std::ssize(tokens), width = net.sizes().width;
  std::vector<float> x(tokens.size() * static_cast<std::size_t>(width)), y(x.size());
  const Seq<float, Body::Width> in{x.data(), 1, time, width}, out{y.data(), 1, time, width};
  net.parts.embedding.forward(be, tokens, in);
  const auto forward = [&](Arena ws) { net.parts.body.forward(be, ws, in, state.views, out, tape); };
  const auto memory = scratch_for(be, forward);
  forward(memory.arena());

  std::string rows;
  for (std::size_t layer = 0; layer < tape.parts.size(); ++layer) {
    auto decays = decays_of(tape.parts[layer].att);
    std::ranges::sort(decays);
    for (int percent = 1; percent < 100; percent += 2) {
      const auto at = static_cast<std::size_t>(percent * static_cast<double>(decays.size() - 1) / 100 + 0.5);
      rows += join("half-life,", version, ",", layer, ",", percent, ",", half_life(decays[at]), "\n");
    }
  }
  return rows;
}

/// What a run leaves behind, token by token: the states of the layers, and the loss of the next token.
struct Trace {
  std::vector<std::vector<std::vector<float>>> states;  ///< [token][layer][number]
  std::vector<double> losses;
};

template <class Net>
Trace trace(const Net& net, const std::vector<Token>& tokens) {
  auto context = net.context({.chunk = 1});
  Trace seen;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    auto& layers = seen.states.emplace_back();
    const auto logits =
        context.prefill(std::span(tokens).subspan(i, 1), [&](const auto& layer, const auto&, auto state) {
          auto& numbers = layers.emplace_back();
          layer.visit_state(state, "", [&](const std::string&, Index, Mat<float> tensor) {
            numbers.insert(numbers.end(), tensor.row(0), tensor.row(0) + tensor.cols);
          });
        });
    seen.losses.push_back(surprisal(logits, tokens[i + 1]));
  }
  return seen;
}

/// |a - b| / |a|, Euclidean.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(a[i]), 2);
  }
  return std::sqrt(difference / std::max(size, 1e-30));
}

/// How far states and losses move when one token is another, by tokens since then: means over places in the text.
template <class Net>
std::string flow(Study& study, const std::string& version, const Net& net, const TokenData& text, const Plan& plan) {
  const auto behind = static_cast<std::size_t>(plan.behind);
  std::vector<std::vector<double>> moved(static_cast<std::size_t>(plan.sizes.depth), std::vector<double>(behind));
  std::vector<double> loss(behind);
  const Index in_front = plan.length;
  for (Index probe = 0; probe < plan.probes; ++probe) {
    const Index begin = probe * (text.size() - in_front - plan.behind - 1) / plan.probes;
    auto tokens = tokens_of(text, begin, in_front + plan.behind + 1);
    const Trace before = trace(net, tokens);
    const auto at = static_cast<std::size_t>(in_front);
    tokens[at] = tokens[at] == 'e' ? 'a' : 'e';
    const Trace after = trace(net, tokens);
    for (std::size_t t = 0; t < behind; ++t) {
      for (std::size_t layer = 0; layer < moved.size(); ++layer) {
        moved[layer][t] += relative_difference(before.states[at + t][layer], after.states[at + t][layer]);
      }
      loss[t] += std::abs(before.losses[at + t] - after.losses[at + t]);
    }
    study.course.advance(plan.work_of_a_probe(),
                         rwkv::join(version, "  changed token ", probe + 1, " of ", plan.probes));
  }
  std::string rows;
  const auto probes = static_cast<double>(plan.probes);
  for (std::size_t t = 0; t < behind; ++t) {
    for (std::size_t layer = 0; layer < moved.size(); ++layer) {
      rows += join("state,", version, ",", layer, ",", t, ",", moved[layer][t] / probes, "\n");
    }
    rows += join("loss,", version, ",,", t, ",", loss[t] / probes, "\n");
  }
  return rows;
}

template <class V>
void run_version(Study& study, const std::string& version, const Plan& plan, const Text& text) {
  LanguageModel<V, float, Cpu> net(plan.sizes, Cpu(study.settings.threads));
  initialize(net, study.settings.seed);
  const BatchShape shape{.batch = plan.batch, .length = plan.length};
  Trainer trainer(net, {.shape = shape, .rate = {.peak = 3e-3, .steps = plan.steps, .warmup = plan.steps / 20}});
  study.train(trainer, RandomWindows(text.training, shape, study.settings.seed), plan.steps, version,
              plan.work_of_a_step());
  if (stopped != 0) return;
  const double loss = evaluate(net, text.held_out);
  const std::string rows = horizons(version, net, tokens_of(text.held_out, 0, plan.text)) +
                           flow(study, version, net, text.held_out, plan) +
                           join("trained,", version, ",,,", loss, "\n");
  study.table.add(rows);
  study.forget_run();
}

/// The value in the row that begins with these fields.
double value(const Study& study, const std::string& kind, const std::string& version, Index layer, Index x) {
  for (const auto& row : study.table.rows()) {
    if (row[0] == kind && row[1] == version && row[2] == join(layer) && row[3] == join(x)) return std::stod(row[4]);
  }
  fail("the table has no row ", kind, " of ", version, ", layer ", layer, ", ", x);
}

std::string tables(const Study& study, const Plan& plan) {
  std::string lives = line_of({"version", "layer", "10 % shorter than", "half", "90 %", "99 %"}) +
                      line_of({"---", "---", "---:", "---:", "---:", "---:"});
  std::string moves = line_of({"version", "layer", "at once", "4 tokens later", "16", "64", "last"}) +
                      line_of({"---", "---", "---:", "---:", "---:", "---:", "---:"});
  for (const std::string version : {"RWKV-4", "RWKV-7"}) {
    for (Index layer = 0; layer < plan.sizes.depth; ++layer) {
      std::vector<std::string> life{version, join(layer)}, move = life;
      for (const Index percent : {11, 51, 91, 99}) {
        life.push_back(text("%.3g", value(study, "half-life", version, layer, percent)));
      }
      for (const Index later : {Index{0}, Index{4}, Index{16}, Index{64}, plan.behind - 1}) {
        move.push_back(later < plan.behind ? text("%.2g", value(study, "state", version, layer, later)) : "");
      }
      lives += line_of(life);
      moves += line_of(move);
    }
  }
  return join(
      "Half-lives of channels, tokens:\n\n", lives,
      "\nHow far the state of a layer is from what it would be, relative to its size, after one changed token:\n\n",
      moves);
}

void run_all(const Settings& settings) {
  const Plan plan = settings.smoke ? smoke : full;
  const double work = static_cast<double>(plan.steps) * plan.work_of_a_step() +
                      static_cast<double>(plan.probes) * plan.work_of_a_probe();
  Study study(settings,
              join("width ", plan.sizes.width, ", ", plan.sizes.depth, " layers, ", plan.steps, " steps of ",
                   plan.batch, " x ", plan.length, " bytes"),
              "kind,version,layer,x,y", 2 * work);
  const Text text = Text::shakespeare();
  for (const std::string version : {"RWKV-4", "RWKV-7"}) {
    if (study.table.has("half-life," + version + ",0")) study.course.skip(work);
    else if (version == "RWKV-4") run_version<V4>(study, version, plan, text);
    else run_version<V7>(study, version, plan, text);
    if (stopped != 0) return;
  }
  study.report("Time horizons and information flow", tables(study, plan));
}

}  // namespace

int main(int argc, char** argv) {
  return study::run_study("horizons", "Measures how long layers remember, and how a changed token spreads.", argc, argv,
                          run_all);
}
