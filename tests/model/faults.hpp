#pragma once
/// What the mutation tests of all versions share: comparison with the golden logits, and with the logits of the same
/// model without a fault; the table of faults.
#include <doctest/doctest.h>

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../golden.hpp"
#include "../versions.hpp"
#include "live.hpp"

namespace faults {

using namespace rwkv;

/// Embedding and head of the models with faults, which read `no_ln0` and `no_ln_out`.
inline bool no_ln0 = false, no_ln_out = false;
template <class B>
struct FaultyEmbedding : Embedding<double, B> {
  using Embedding<double, B>::Embedding;
  void forward(B& be, std::span<const Token> tokens, Seq<double> y) const {
    if (no_ln0) return be.gather_rows(this->params.table, tokens, y.flat());
    Embedding<double, B>::forward(be, tokens, y);
  }
};
template <class B>
struct FaultyHead : Head<double, B> {
  using Head<double, B>::Head;
  void forward(B& be, Arena ws, Seq<const double> x, Seq<double> logits) const {
    if (no_ln_out) return be.gemm(linear(x, this->params.table, logits));
    Head<double, B>::forward(be, ws, x, logits);
  }
};

/// The numbers of all parameters whose names end so.
template <class Net, class F>
void each_called(Net& net, std::string_view end, const F& f) {
  for (auto& parameter : net.parameters()) {
    if (parameter.name.ends_with(end)) f(parameter.numbers());
  }
}
template <class Net>
void set(Net& net, std::string_view end, double value) {
  each_called(net, end, [&](auto numbers) { std::fill(numbers.begin(), numbers.end(), value); });
}

/// How far the logits of a model with faults are from what they should be, at most: from the golden logits, as a sequence
/// and step by step; and from the logits of the same type without a fault, where its weights are live. Construct it
/// without a fault.
template <class V, class Net>
class Oracles {
 public:
  using Alteration = std::function<void(Net&)>;

  Oracles()
      : tokens_(expected_["tokens"].template as<Token>()), last_(expected_["logits_last_f64"].values),
        live_logits_(live_logits()) {}

  double from_golden(const Alteration& alter = {}) const {
    double worst = 0;
    auto net = load_checkpoint<Net>(golden::folder() / "models" / (std::string(name) + ".safetensors"));
    if (alter) alter(net);
    for (const Index chunk : {256, 1}) {
      auto context = net.context({.chunk = chunk});
      worst = std::max(worst, golden::max_error(context.prefill(tokens_), last_));
    }
    return worst;
  }
  double from_live(const Alteration& alter = {}) const { return golden::max_error(live_logits(alter), live_logits_); }

  /// The distance of the live model from the library's own.
  double from_library() const {
    return golden::max_error(
        live_logits_, config::all_logits(config::live<LanguageModel<V, double, Reference>>(sizes, {}), live_tokens()));
  }

 private:
  static constexpr const char* name = config::Goldens<V>::model;
  static constexpr ModelSizes sizes{.vocab = 23, .width = 24, .depth = 3, .head_size = 8};

  static std::vector<Token> live_tokens() { return config::some_tokens(12, sizes.vocab); }
  static std::vector<double> live_logits(const Alteration& alter = {}) {
    auto net = config::live<Net>(sizes, {});
    if (alter) alter(net);
    return config::all_logits(net, live_tokens(), {.chunk = 5});
  }

  golden::File expected_{golden::folder() / "models" / (std::string(name) + ".expected.safetensors")};
  std::vector<Token> tokens_;
  std::vector<double> last_, live_logits_;
};

/// The table of faults. One that changes no logit by 1e-9 is missed, unless another oracle has seen it.
class Table {
 public:
  void add(const char* name, double from_golden, double from_live, bool seen = false) {
    rows_.push_back({name, from_golden, from_live, seen || from_golden > 1e-9 || from_live > 1e-9});
  }
  void check(const char* version) const {
    std::size_t caught = 0;
    std::printf("  %-7s %9s %9s\n", version, "golden", "live");
    for (const auto& row : rows_) {
      std::printf("  %-7s %9.1e %9.1e  %s\n", row.caught ? "caught" : "MISSED", row.from_golden, row.from_live,
                  row.name);
      caught += row.caught ? 1 : 0;
    }
    std::printf("  %zu of %zu faults caught\n", caught, rows_.size());
    CHECK(caught == rows_.size());
  }

 private:
  struct Row {
    const char* name;
    double from_golden, from_live;
    bool caught;
  };
  std::vector<Row> rows_;
};

}  // namespace faults
