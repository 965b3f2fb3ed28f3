// A host whose compiler may assume that there is no NaN (-fno-honor-nans) or no infinity (-fno-honor-infinities):
// what the library refuses it still refuses.
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "../any_version.hpp"

namespace {

using namespace rwkv;
using Net = LanguageModel<config::AnyVersion, float, Cpu>;

// Made of bits, because such flags leave the value of a NaN open.
float of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

int failures = 0;

template <class F>
void refused(const char* what, std::string_view sentence, const F& f) {
  try {
    f();
    std::printf("%s: not refused\n", what);
    ++failures;
  } catch (const Error& error) {
    if (std::string_view(error.what()).find(sentence) != std::string_view::npos) return;
    std::printf("%s: refused with: %s\n", what, error.what());
    ++failures;
  }
}

}  // namespace

int main(int argc, char** argv) {
  // The numbers come from the command line, so that nothing is known when this is compiled.
  const auto nan = of_bits(0x7fc00000u + static_cast<std::uint32_t>(argc - 1));
  const auto infinity = of_bits(0x7f800000u + static_cast<std::uint32_t>(argc - 1));
  const std::string file = std::string(argv[0]) + ".safetensors";

  refused("argmax", "logit 1 is not a number", [&] { argmax(std::vector<float>{0, nan, 1}); });
  refused("sampler", "logit 2 is", [&] { Sampler{}(std::vector<float>{0, 1, nan}); });
  refused("temperature", "the temperature must be finite", [&] {
    Sampler{.temperature = nan}(std::vector<float>{0, 1});
  });
  for (const float bad : {nan, infinity, -infinity}) {
    Net net({.vocab = 16, .width = 8, .depth = 2}, Cpu(1));
    initialize(net, Seed{1});
    net.parameters().back().data[3] = bad;
    save_checkpoint(net, file);
    refused("load", "element 3 is not a finite number", [&] { load_checkpoint<Net>(file); });
    save_checkpoint<bf16>(net, file);
    refused("load bf16", "element 3 is not a finite number", [&] { load_checkpoint<Net>(file); });
  }
  {
    Net net({.vocab = 16, .width = 8, .depth = 2}, Cpu(1));
    initialize(net, Seed{1});
    Trainer trainer(net, {.shape = {1, 4}, .rate = {.steps = 2}});
    net.parameters().front().data[9] = nan;
    const float before = net.parameters().back().data[0];
    refused("training", "not finite", [&] {
      trainer.step({.shape = {1, 4}, .tokens = {1, 1, 1, 1}, .targets = {2, 3, 4, 5}});
    });
    if (net.parameters().back().data[0] != before) std::printf("training: the model changed\n"), ++failures;
  }
#if RWKV_SIMD_BYTES > 0
  using Lanes = Widest<float>;
  float lanes[RWKV_SIMD_BYTES / 4];
  std::fill(std::begin(lanes), std::end(lanes), nan);
  exp(Lanes::load(lanes)).store(lanes);
  if (!is_nan(lanes[0])) std::printf("exp: of a NaN is %g\n", static_cast<double>(lanes[0])), ++failures;
#endif
  const std::vector<float> logits{0, 1};
  refused("top-p", "top_p must be between", [&] { Sampler{.top_p = nan}(logits); });
  refused("penalty", "the penalty decay must be between", [&] { Sampler{.penalty_decay = nan}(logits); });
  refused("rate", "the peak must be above zero", [&] { LearningRate{.peak = nan, .steps = 2}.check(); });
  refused("warm-up", "must start from a part", [&] { LearningRate{.steps = 2, .start = nan}.check(); });
  refused("final rate", "the final rate must be between", [&] { LearningRate{.final = nan, .steps = 2}.check(); });
  refused("beta", "a beta must be in [0, 1)", [&] { AdamW{.beta2 = nan}.check(); });
  std::printf("%d failures\n", failures);
  return failures;
}
