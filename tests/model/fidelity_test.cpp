/// Oracle: logits and states of the official inference code, and of an independent evaluation in double.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../configs.hpp"
#include "../golden.hpp"
#include "../instances.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

/// One state tensor of all layers, [layers * width], in the layout of the official state.
template <class Context>
std::vector<double> state_of(Context& context, const std::string& name) {
  std::vector<double> numbers;
  context.visit_state([&](const std::string& tensor, auto view) {
    const Index width = view.cols;
    const auto append = [&](Index begin, Index end) {
      for (Index c = begin; c < end; ++c) numbers.push_back(static_cast<double>(view(0, c)));
    };
    if (name == "att_x" && tensor.ends_with("att.shift")) append(0, width);
    if (name == "ffn_x" && tensor.ends_with("ffn.shift")) append(0, width);
    if (tensor.ends_with("wkv")) {
      if (name == "wkv") append(0, width);
      if (name == "aa") append(0, width / 3);
      if (name == "bb") append(width / 3, width / 3 * 2);
      if (name == "pp") append(width / 3 * 2, width);
    }
  });
  return numbers;
}

template <class V, class S, class B = Cpu>
void check_model(const std::filesystem::path& weights, B backend) {
  using Net = LanguageModel<V, S, B>;
  using T = typename Net::compute;
  constexpr bool exact = std::is_same_v<T, double>;
  const golden::File expected(golden::folder() / "models" / (weights.stem().string() + ".expected.safetensors"));
  const auto tokens = expected["tokens"].template as<Token>();
  const auto logits_seq = expected["logits_seq"];
  const auto last = expected["logits_last_f64"];
  const auto net = load_checkpoint<Net>(weights, {}, backend);
  const std::size_t vocab = static_cast<std::size_t>(net.sizes().vocab);
  CAPTURE(weights.filename().string());

  // Chunks of 7 and of 1 also carry the state from chunk to chunk.
  for (const Index chunk : {Index(256), Index(7), Index(1)}) {
    CAPTURE(chunk);
    auto context = net.context({.chunk = chunk});
    std::vector<T> logits(tokens.size() * vocab);
    context.sequence(tokens, logits);
    CHECK(golden::max_error(logits, logits_seq.values) < 5e-5);
    if (exact) {
      CHECK(golden::max_error(std::span(logits).last(vocab), last.values) < 1e-9);
    }
    for (const char* name : {"att_x", "ffn_x", "aa", "bb", "pp", "wkv"}) {
      CAPTURE(name);
      if (!expected.has(std::string("state.") + name)) continue;
      auto state = state_of(context, name);
      if (std::string_view(name) == "wkv") state = config::official_state<V>(state, net.sizes().head_size);
      CHECK(golden::relative_error(state, expected[std::string("state.") + name].values) < 1e-5);
    }
  }

  auto context = net.context();
  const auto prompt = expected["greedy_prompt"].template as<Token>();
  const auto greedy = expected["greedy_tokens"].template as<Token>();
  std::vector<Token> continuation;
  auto logits = context.prefill(prompt);
  while (continuation.size() < greedy.size()) {
    continuation.push_back(argmax(logits));
    logits = context.step(continuation.back());
  }
  CHECK(continuation == greedy);
}

/// The checkpoints of a version; in the subset there is one.
template <class V>
std::vector<std::filesystem::path> models_of() {
  using Goldens = config::Goldens<V>;
  std::vector<std::filesystem::path> models;
  for (const auto& path : golden::files("models", Goldens::models, golden::is_subset() ? 2 : Goldens::model_files)) {
    if (path.string().find(".expected.") == std::string::npos) models.push_back(path);
  }
  return models;
}

}  // namespace

TEST_CASE_TEMPLATE("every checkpoint gives the official logits, states and continuation", C,
                   config::Config<double, Reference>, RWKV_CPU_CONFIGS) {
  config::each_version_in<C>([&]<class V>() {
    for (const auto& path : models_of<V>()) check_model<V, typename C::scalar>(path, C::backend());
  });
}

#ifdef RWKV_TEST_ALL
TEST_CASE("checkpoints with a decay for each head give the official logits, states and continuation") {
  for (const auto& path : models_of<V5_0>()) check_model<V5_0, double>(path, Cpu(2));
  for (const auto& path : models_of<V5_1>()) check_model<V5_1, double>(path, Cpu(2));
}
#endif

TEST_CASE("a bf16 checkpoint kept as bf16 gives the official logits") {
  for (const auto& path : models_of<V4>()) {
    if (path.string().find("bf16") == std::string::npos) continue;
    check_model<V4, bf16>(path, Cpu(2));
    check_model<V4, Numerics<bf16, double>>(path, Cpu(2));
  }
}

TEST_CASE("a 16-bit checkpoint kept as it is gives the official logits") {
#ifdef RWKV_TEST_ALL
  for (const auto& path : models_of<V5>()) {
    if (path.string().find("f16") != std::string::npos) check_model<V5, f16>(path, Cpu(2));
  }
  for (const auto& path : models_of<V6>()) check_model<V6, AsStored<float>>(path, Cpu(2));
#else
  for (const auto& path : models_of<V7>()) check_model<V7, AsStored<float>>(path, Cpu(2));
#endif
}
