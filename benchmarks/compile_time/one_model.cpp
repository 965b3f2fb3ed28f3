/// A language model in one scalar, run by step and prefill.
#include <rwkv/blocks.hpp>

using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

float first_logit(const Net& net, std::span<const rwkv::Token> prompt) {
  auto context = net.context();
  context.prefill(prompt);
  return context.step(rwkv::Token{0})[0];
}
