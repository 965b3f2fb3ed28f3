/// A language model in one scalar, and the gradient of its loss.
#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

double loss(Net& net, std::span<const rwkv::Token> tokens, std::span<const rwkv::Token> targets) {
  rwkv::Gradient<Net> gradient(net, {.batch = 1, .length = static_cast<rwkv::Index>(tokens.size())});
  return gradient.add(tokens, targets);
}
