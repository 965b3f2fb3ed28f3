/// Models of RWKV-7a. Oracles: the formula of a layer, number by number in double; RWKV-7, as which training starts; the
/// loss itself; and laws.
#include <doctest/doctest.h>

#include <rwkv/check/block_run.hpp>
#include <rwkv/io/load_model.hpp>
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "../numbers.hpp"
#include "../train/setup.hpp"
#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::some_tokens;
using config::TemporaryPath;

namespace {

constexpr ModelSizes sizes{
    .vocab = 23, .width = 24, .depth = 3, .head_size = 8, .ffn = 40, .ranks = {.w = 3, .a = 4, .v = 5, .g = 6, .s = 7}};

using Exact = LanguageModel<V7a, double, Reference>;
using OnCpu = LanguageModel<V7a, float, Cpu>;

std::string error_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A model whose layers shift by a token and then mix channels.
template <class T, class B>
using Shifting = Model<Embedding<T, B>, Stack<Layer<TokenShift<T, B>, ChannelMix<V7a, T, B>>>, Head<T, B>>;

/// The logits of a Shifting model, one sequence.
std::vector<double> formula(const Shifting<double, Reference>& net, const std::vector<Token>& text) {
  const Index C = net.sizes().width, F = net.sizes().ffn, N = net.sizes().ranks.s, V = net.sizes().vocab;
  const auto p = [&](const std::string& name) {
    for (const auto& parameter : net.parameters()) {
      if (parameter.name == name) {
        return config::as_in_files(parameter,
                                   std::vector<double>(parameter.numbers().begin(), parameter.numbers().end()));
      }
    }
    return std::vector<double>();
  };
  using Rows = std::vector<std::vector<double>>;
  const auto zeros = [](Index count) { return std::vector<double>(static_cast<std::size_t>(count)); };
  const auto norm = [&](const Rows& x, const std::string& name) {
    const auto scale = p(name + ".weight"), shift = p(name + ".bias");
    Rows y = x;
    for (auto& row : y) {
      double mean = 0, variance = 0;
      for (const double number : row) mean += number / static_cast<double>(C);
      for (const double number : row) variance += (number - mean) * (number - mean) / static_cast<double>(C);
      for (std::size_t c = 0; c < row.size(); ++c) {
        row[c] = (row[c] - mean) / std::sqrt(variance + 1e-5) * scale[c] + shift[c];
      }
    }
    return y;
  };
  // row times a matrix [in, out].
  const auto times = [&](const std::vector<double>& row, const std::vector<double>& matrix, Index out) {
    auto y = zeros(out);
    for (std::size_t i = 0; i < row.size(); ++i) {
      for (std::size_t o = 0; o < y.size(); ++o) y[o] += row[i] * matrix[i * y.size() + o];
    }
    return y;
  };
  const auto turned = [](const std::vector<double>& matrix, Index rows, Index cols) {
    return golden::transposed(matrix, rows, cols);
  };

  Rows rows;
  const auto table = p("emb.weight");
  for (const Token token : text) rows.emplace_back(table.begin() + token * C, table.begin() + (token + 1) * C);
  const Rows embedding = norm(rows, "blocks.0.ln0");
  Rows x = embedding;
  for (Index layer = 0; layer < net.sizes().depth; ++layer) {
    const std::string block = "blocks." + std::to_string(layer) + ".", ffn = block + "ffn.";
    const auto shifted = norm(x, block + "ln1");
    for (std::size_t t = 1; t < x.size(); ++t) {
      for (std::size_t c = 0; c < x[t].size(); ++c) x[t][c] += shifted[t - 1][c];
    }
    const auto in = norm(x, block + "ln2");
    const auto mix = p(ffn + "x_k"), s0 = p(ffn + "s0"), rows_of_tokens = p(ffn + "s_emb.weight");
    for (std::size_t t = 0; t < x.size(); ++t) {
      auto mixed = in[t];
      for (std::size_t c = 0; c < mixed.size(); ++c) mixed[c] += ((t == 0 ? 0 : in[t - 1][c]) - in[t][c]) * mix[c];
      auto hidden = times(mixed, turned(p(ffn + "key.weight"), F, C), F);
      auto matrix = times(embedding[t], turned(p(ffn + "s_emb_x.weight"), N * N, C), N * N);
      for (std::size_t i = 0; i < matrix.size(); ++i) {
        matrix[i] += rows_of_tokens[static_cast<std::size_t>(text[t]) * matrix.size() + i];
      }
      const auto scale = times(times(times(in[t], p(ffn + "s1"), N), matrix, N), p(ffn + "s2"), F);
      for (std::size_t f = 0; f < hidden.size(); ++f) {
        hidden[f] = std::max(hidden[f], 0.0) * std::max(hidden[f], 0.0) * (scale[f] + s0[f]);
      }
      const auto added = times(hidden, turned(p(ffn + "value.weight"), C, F), C);
      for (std::size_t c = 0; c < added.size(); ++c) x[t][c] += added[c];
    }
  }
  std::vector<double> logits;
  for (const auto& row : norm(x, "ln_out")) {
    const auto of_token = times(row, turned(p("head.weight"), V, C), V);
    logits.insert(logits.end(), of_token.begin(), of_token.end());
  }
  return logits;
}

/// The loss of a batch at changed weights.
struct Loss {
  Exact net = live<Exact>(sizes, Reference());
  GradientOptions options{.batch = 2, .length = 6};
  std::vector<Token> tokens = some_tokens(12, sizes.vocab, 3), targets = some_tokens(12, sizes.vocab, 4);
  Gradient<Exact> gradient{net, options};

  double operator()() {
    gradient.clear();
    gradient.reset_state();
    return gradient.add(tokens, targets);
  }
};

}  // namespace

TEST_CASE("a model with DeepEmbed reads the tokens and their embedding in every layer") {
  const auto text = some_tokens(9, sizes.vocab);
  const auto net = live<Shifting<double, Reference>>(sizes, Reference());
  const auto wanted = formula(net, text);
  CHECK(golden::relative_error(all_logits(net, text), wanted) < 1e-12);
  CHECK(golden::relative_error(all_logits(net, text, {.chunk = 4}), wanted) < 1e-12);
  CHECK(golden::relative_error(all_logits(live<Shifting<float, Cpu>>(sizes, Cpu(3)), text), wanted) < 1e-4);
}

TEST_CASE("RWKV-7a on the CPU has the logits of the reference, with the same bits by steps, chunks and threads") {
  const auto text = some_tokens(40, sizes.vocab);
  const auto wanted = all_logits(live<Exact>(sizes, Reference()), text);
  const auto net = live<OnCpu>(sizes, Cpu(1));
  const auto logits = all_logits(net, text);
  CHECK(golden::relative_error(logits, wanted) < 1e-4);
  CHECK(all_logits(net, text, {.chunk = 7}) == logits);
  CHECK(all_logits(live<OnCpu>(sizes, Cpu(3)), text) == logits);

  auto single = net.context();
  auto batch = net.context({.batch = 3});
  for (std::size_t t = 0; t < 20; ++t) {
    const auto here = std::span(logits).subspan(t * 23, 23);
    CHECK(std::ranges::equal(single.step(text[t]), here));
    const Token tokens[] = {text[t + 1], text[t], text[t + 2]};
    CHECK(std::ranges::equal(batch.step(tokens).subspan(23, 23), here));
  }
}

TEST_CASE("RWKV-7a starts as RWKV-7") {
  using Plain = LanguageModel<V7, float, Cpu>;
  Plain plain(sizes, Cpu(1));
  OnCpu deep(sizes, Cpu(1));
  initialize(plain, Seed{5});
  initialize(deep, Seed{5});
  const auto text = some_tokens(12, sizes.vocab);
  CHECK(all_logits(deep, text) == all_logits(plain, text));
}

TEST_CASE("the gradient of every parameter of RWKV-7a is the slope of the loss, whatever a pass keeps") {
  Loss loss;
  loss();
  std::vector<std::vector<double>> slopes;
  for (const auto& parameter : loss.gradient.parameters()) {
    slopes.emplace_back(parameter.gradient.begin(), parameter.gradient.end());
  }
  std::uint64_t nth = 0;
  for (const auto& parameter : loss.gradient.parameters()) {
    CAPTURE(parameter.name);
    const auto& slope = slopes[nth];
    const auto u = detail::centred_numbers(slope.size(), 9, nth++);
    const std::vector<double> at(parameter.values.begin(), parameter.values.end());
    const auto loss_at = [&](double h) {
      for (std::size_t i = 0; i < at.size(); ++i) parameter.values[i] = at[i] + h * u[i];
      const double value = loss();
      std::copy(at.begin(), at.end(), parameter.values.begin());
      return value;
    };
    double expected = 0, size = 0;
    for (std::size_t i = 0; i < u.size(); ++i) {
      expected += slope[i] * u[i];
      size += std::abs(slope[i] * u[i]);
    }
    CHECK(size > 0);
    const double h = 1e-4;
    const double measured = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
    CHECK(std::abs(measured - expected) < 1e-7 * size);
  }

  Gradient<Exact, Recompute> again(loss.net, loss.options);
  again.add(loss.tokens, loss.targets);
  for (std::size_t i = 0; i < slopes.size(); ++i) {
    CHECK(golden::relative_error(again.parameters()[i].gradient, slopes[i]) < 1e-13);
  }
}

TEST_CASE("training RWKV-7a lowers the loss, with the same bits on any number of threads") {
  const auto losses_on = [](int threads) {
    OnCpu net = config::initialized<OnCpu>(sizes, threads);
    Trainer<OnCpu> trainer(net, config::small_options());
    return config::train(trainer, config::small_options().shape, sizes.vocab, 0, 12);
  };
  const auto losses = losses_on(1);
  CHECK(losses.back() < losses.front());
  CHECK(losses_on(3) == losses);
}

TEST_CASE("a checkpoint of RWKV-7a is known by its names, and loads as it was saved") {
  const TemporaryPath path("rwkv-deep-embed.safetensors"), plain("rwkv-without-deep-embed.safetensors");
  const auto text = some_tokens(12, sizes.vocab);
  const auto net = live<OnCpu>(sizes, Cpu(1));
  save_checkpoint(net, path);
  const auto loaded = load_checkpoint<OnCpu>(path);
  CHECK(loaded.sizes().ranks.s == sizes.ranks.s);
  CHECK(config::all_weights(loaded) == config::all_weights(net));
  CHECK(all_logits(loaded, text) == all_logits(net, text));
  const auto file = open_tensors(path);
  CHECK(version_named_by(file) == &V7a::official);
  CHECK(file.find("blocks.1.ffn.s_emb.weight")->shape == std::vector<Index>{23, 49});
  CHECK(file.find("blocks.1.ffn.s_emb_x.weight")->shape == std::vector<Index>{49, 24});
  CHECK(file.find("blocks.1.ffn.s0")->shape == std::vector<Index>{40});
  CHECK(file.find("blocks.1.ffn.s1")->shape == std::vector<Index>{24, 7});
  CHECK(file.find("blocks.1.ffn.s2")->shape == std::vector<Index>{7, 40});

  auto any = load_model(path, Cpu(1));
  auto context = any.context();
  auto own = net.context();
  CHECK(std::ranges::equal(context.prefill(text), own.prefill(text)));

  const auto seven = live<LanguageModel<V7, float, Cpu>>(sizes, Cpu(1));
  save_checkpoint(seven, plain);
  CHECK(version_named_by(open_tensors(plain)) == &V7::official);
  CHECK(mentions(error_of([&] { load_checkpoint<OnCpu>(plain); }), "(by its names it holds RWKV-7):"));
  CHECK(mentions(error_of([&] { load_checkpoint<LanguageModel<V7, float, Cpu>>(path); }),
                 "(by its names it holds RWKV-7a):\n  'blocks.0.ffn.s_emb.weight': unexpected, the model has no such"));
}

TEST_CASE("tables of DeepEmbed that stay in 16 bits compute as their widened copies") {
  const TemporaryPath path("rwkv-deep-embed-bf16.safetensors");
  const auto text = some_tokens(12, sizes.vocab);
  save_checkpoint<bf16>(live<OnCpu>(sizes, Cpu(1)), path);
  const auto wide = all_logits(load_checkpoint<OnCpu>(path), text);
  CHECK(all_logits(load_checkpoint<LanguageModel<V7a, bf16, Cpu>>(path), text) == wide);
  CHECK(golden::relative_error(all_logits(load_checkpoint<LanguageModel<V7a, AsStored<float>, Cpu>>(path), text),
                               wide) < 1e-6);
}

TEST_CASE("a table of the wrong shape is named in one line") {
  const TemporaryPath path("rwkv-deep-embed.safetensors"), wrong("rwkv-wrong-deep-embed.safetensors");
  save_checkpoint(live<OnCpu>(sizes, Cpu(1)), path);
  const auto file = open_tensors(path);
  std::vector<TensorView> tensors(file.tensors().begin(), file.tensors().end());
  for (auto& tensor : tensors) {
    if (tensor.name != "blocks.2.ffn.s_emb.weight") continue;
    tensor.shape = {23, 48};
    tensor.bytes = tensor.bytes.first(23 * 48 * 4);
  }
  save_safetensors(wrong, tensors);
  CHECK(error_of([&] { load_checkpoint<OnCpu>(wrong); })
            .ends_with("in 1 place (by its names it holds RWKV-7a):\n  blocks.2.ffn.s_emb.weight: file has [23, 48], "
                       "model expects [23, 49]"));
}
