// A part of a larger program that the host's compiler compiles and that knows no CUDA. Three characters of a play speak
// side by side, on a model that a .cu file put on the GPU.
#include <rwkv/text/sampler.hpp>
#include <rwkv/text/tokenizer.hpp>

#include <iostream>
#include <string>
#include <vector>

#include "../program.hpp"
#include "gpu_model.hpp"

namespace {

void speak(const std::string& checkpoint) {
  std::vector<std::string> lines{"\nROMEO:\nO", "\nJULIET:\n", "\nNURSE:\nI"};  // of one length, so they start together
  const auto count = static_cast<rwkv::Index>(lines.size());
  const auto words = rwkv::Tokenizer::bytes();
  const rwkv::AnyModel model = load_on_gpu(checkpoint);
  rwkv::AnyContext context = model.context({.batch = count});

  std::vector<rwkv::Token> prompts;  // [sequence, time]
  for (const std::string& line : lines) {
    for (const rwkv::Token token : words.encode(line)) prompts.push_back(token);
  }
  std::vector<rwkv::Sampler> pick;
  for (rwkv::Index i = 0; i < count; ++i) pick.push_back({.top_p = 0.6, .seed = static_cast<std::uint64_t>(i)});

  auto logits = context.prefill(prompts);  // [sequence, vocab]
  std::vector<rwkv::Token> next(lines.size());
  const auto vocab = static_cast<std::size_t>(context.vocab());
  for (int n = 0; n < 100; ++n) {
    for (std::size_t i = 0; i < lines.size(); ++i) {
      next[i] = pick[i](logits.subspan(i * vocab, vocab));
      lines[i] += words.decode(next[i]);
    }
    logits = context.step(next);  // one token for each of them
  }
  for (const std::string& line : lines) std::cout << line << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  return example::run_program("characters", [&] {
    speak(argc > 1 ? argv[1] : RWKV_EXAMPLE_MODEL);
    return 0;
  });
}
