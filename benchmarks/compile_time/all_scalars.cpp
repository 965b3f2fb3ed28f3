/// A language model loaded from a file, in every scalar.
#include <rwkv/rwkv.hpp>

template <class S>
double first_logit(const char* file, std::span<const rwkv::Token> prompt) {
  auto net = rwkv::load_checkpoint<rwkv::LanguageModel<rwkv::V4, S, rwkv::Cpu>>(file);
  auto context = net.context();
  return static_cast<double>(context.prefill(prompt)[0]);
}

double sum_of_logits(const char* file, std::span<const rwkv::Token> prompt) {
  return first_logit<float>(file, prompt) + first_logit<double>(file, prompt) + first_logit<rwkv::bf16>(file, prompt) +
         first_logit<rwkv::f16>(file, prompt);
}
