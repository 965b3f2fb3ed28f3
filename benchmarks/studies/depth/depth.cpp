// How the gradient reaches the layers of deep models: its norm in every layer, before and after training, with official
// and with plain initial weights, with and without layer norms.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../study.hpp"
#include "bare_layer.hpp"

namespace {

using namespace study;

template <class L>
using Net = Model<Embedding<float, Cpu>, Stack<L>, Head<float, Cpu>>;
template <class V>
using NormedLayer = Layer<TimeMix<V, float, Cpu>, ChannelMix<V, float, Cpu>>;
template <class V>
using LayerWithoutNorms = BareLayer<TimeMix<V, float, Cpu>, ChannelMix<V, float, Cpu>>;

/// The sizes of the study.
struct Scale {
  std::vector<Index> depths{2, 6, 12, 24, 48};
  Index width = 64, head_size = 32, steps = 200;
  BatchShape shape{.batch = 8, .length = 64};

  static Scale smoke() { return {{2, 6}, 32, 16, 30, {.batch = 2, .length = 16}}; }
};

/// One of the models.
struct Case {
  std::string version, norms, weights;
  Index depth;

  std::string fields() const { return join(version, ",", norms, ",", weights, ",", depth); }
  /// The work of a training step, in layers of RWKV-4; embedding and head cost about as much as one.
  double work() const { return static_cast<double>(depth + 1) * (version == "RWKV-7" ? 2 : 1); }
};

std::vector<Case> all_cases(const Scale& scale) {
  std::vector<Case> cases;
  for (const char* version : {"RWKV-4", "RWKV-7"}) {
    for (const char* norms : {"normed", "bare"}) {
      for (const char* weights : {"official", "plain"}) {
        for (const Index depth : scale.depths) cases.push_back({version, norms, weights, depth});
      }
    }
  }
  return cases;
}

/// Whether a parameter is a matrix of a layer.
bool is_matrix(const TensorSpec& spec) { return spec.role == Role::matrix || spec.role == Role::low_rank; }

/// Plain initial weights: every matrix normal, with variance 1 / fan_in; vectors as in the official ones.
void start_plain(TensorSpec& spec) {
  const Index fan_in = spec.shape.sizes[spec.shape.rank - 1];
  if (spec.role != Role::vector) {
    spec.start = {.draw = Start::normal, .a = 1 / std::sqrt(static_cast<double>(fan_in))};
  }
}

/// The norm of the gradient of the matrices in each layer, and the loss, on one batch.
struct Measured {
  std::vector<double> norms;
  double loss = 0;
};

template <class N>
Measured measure(N& net, const Batch& batch) {
  Gradient<N> gradient(net, {.batch = batch.shape.batch, .length = batch.shape.length}, is_matrix);
  Measured measured;
  measured.loss = gradient.add(batch.tokens, batch.targets);
  measured.norms.resize(static_cast<std::size_t>(net.sizes().depth));
  for (const auto& parameter : gradient.parameters()) {
    double& squares = measured.norms[static_cast<std::size_t>(parameter.layer)];
    for (const float g : parameter.gradient) squares += double(g) * double(g);
  }
  for (double& norm : measured.norms) norm = std::sqrt(norm);
  return measured;
}

/// Throws unless the loss changes along the gradient g of the matrices as g says: (L(w + h g) - L(w - h g)) / 2h = g g.
template <class N>
void check_gradient(N& net, const Batch& batch) {
  Gradient<N> gradient(net, {.batch = batch.shape.batch, .length = batch.shape.length}, is_matrix);
  gradient.add(batch.tokens, batch.targets);
  std::vector<float> g;
  double squares = 0;
  for (const auto& parameter : gradient.parameters()) {
    g.insert(g.end(), parameter.gradient.begin(), parameter.gradient.end());
  }
  for (const float x : g) squares += double(x) * double(x);
  const auto loss_after = [&](double step) {
    auto next = g.begin();
    for (const auto& parameter : gradient.parameters()) {
      for (float& w : parameter.values) w += static_cast<float>(step) * *next++;
    }
    gradient.reset_state();
    return gradient.add(batch.tokens, batch.targets);
  };
  const double h = 0.01 / std::sqrt(squares);
  const double above = loss_after(h), below = loss_after(-2 * h);
  loss_after(h);
  const double slope = (above - below) / (2 * h);
  expects(std::abs(slope / squares - 1) < 0.02, "the loss changes by ", slope, " along a gradient that says ", squares);
}

template <class L>
void run(Study& study, const Case& one, const Scale& scale, const TokenData& text) {
  const Settings& settings = study.settings;
  Net<L> net({.vocab = 256, .width = scale.width, .depth = one.depth, .head_size = scale.head_size},
             Cpu(settings.threads));
  initialize(net, settings.seed, [&](TensorSpec& spec) {
    if (one.weights == "plain") start_plain(spec);
  });

  Batch judged;
  RandomWindows(text, scale.shape, Seed{settings.seed.value + 1}).fill(0, judged);
  std::string rows;
  const auto add_rows = [&](const char* at, Index steps) {
    const Measured measured = measure(net, judged);
    for (std::size_t layer = 0; layer < measured.norms.size(); ++layer) {
      rows +=
          join(one.fields(), ",", at, ",", layer + 1, ",", measured.norms[layer], ",", measured.loss, ",", steps, "\n");
    }
  };

  add_rows("start", 0);
  Trainer trainer(
      net, {.shape = scale.shape, .rate = {.peak = 1e-3, .warmup = scale.steps / 10, .decay = LearningRate::constant}});
  const RandomWindows windows(text, scale.shape, settings.seed);
  const Index steps = study.train(trainer, windows, scale.steps, one.fields(), one.work());
  if (stopped != 0) return;
  if (settings.smoke && one.weights == "official") check_gradient(net, judged);
  add_rows("end", steps);
  study.table.add(rows);
  study.forget_run();
}

template <class V>
void run_version(Study& study, const Case& one, const Scale& scale, const TokenData& text) {
  if (one.norms == "normed") run<NormedLayer<V>>(study, one, scale, text);
  else run<LayerWithoutNorms<V>>(study, one, scale, text);
}

/// The largest norm over the smallest.
std::string spread(const std::vector<double>& norms) {
  for (const double norm : norms) {
    if (!is_finite(norm)) return "overflow";
  }
  const auto [least, most] = std::minmax_element(norms.begin(), norms.end());
  return text("%.3g", *most / *least);
}

/// A row for each kind of model and a column for each depth: how far apart the layers are, and the loss.
std::string tables(const Study& study, const Scale& scale) {
  std::vector<std::string> head{"version", "layers", "weights", "at the"}, rule(head.size(), "---");
  for (const Index depth : scale.depths) head.push_back(join(depth)), rule.push_back("---:");
  std::string spreads = line_of(head) + line_of(rule), losses = spreads;
  const auto rows = study.table.rows();
  for (const Case& kind : all_cases(scale)) {
    if (kind.depth != scale.depths.front()) continue;
    for (const std::string at : {"start", "end"}) {
      std::vector<std::string> spread_cells{kind.version, kind.norms, kind.weights, at}, loss_cells = spread_cells;
      for (const Index depth : scale.depths) {
        std::vector<double> norms;
        std::string loss;
        for (const auto& row : rows) {
          if (row[0] != kind.version || row[1] != kind.norms || row[2] != kind.weights || row[3] != join(depth) ||
              row[4] != at) {
            continue;
          }
          norms.push_back(std::stod(row[6]));
          loss = is_finite(std::stod(row[7])) ? text("%.3f", std::stod(row[7])) : "overflow";
          if (at == "end" && row[8] != join(scale.steps)) loss = "ended after " + row[8];
        }
        spread_cells.push_back(spread(norms));
        loss_cells.push_back(loss);
      }
      spreads += line_of(spread_cells);
      losses += line_of(loss_cells);
    }
  }
  return join("The largest gradient of a layer over the smallest, by depth:\n\n", spreads,
              "\nThe loss on the batch of the measurements, nats per byte:\n\n", losses);
}

void run_all(const Settings& settings) {
  const Scale scale = settings.smoke ? Scale::smoke() : Scale();
  const auto cases = all_cases(scale);
  double work = 0;
  for (const Case& one : cases) work += one.work() * static_cast<double>(scale.steps);
  Study study(settings,
              join("width ", scale.width, ", ", scale.steps, " steps of ", scale.shape.batch, " x ", scale.shape.length,
                   " bytes"),
              "version,norms,weights,depth,at,layer,norm,loss,steps", work);
  const Text text = Text::shakespeare();
  for (const Case& one : cases) {
    if (study.table.has(one.fields())) study.course.skip(one.work() * static_cast<double>(scale.steps));
    else if (one.version == "RWKV-4") run_version<V4>(study, one, scale, text.training);
    else run_version<V7>(study, one, scale, text.training);
    if (stopped != 0) return;
  }
  study.report("Depth and gradients", tables(study, scale));
}

}  // namespace

int main(int argc, char** argv) {
  return study::run_study("depth", "Measures the gradient in every layer of deep models.", argc, argv, run_all);
}
