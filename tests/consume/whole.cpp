// A user's program with the whole library.
#include <rwkv/rwkv.hpp>

#include <iostream>

int main() {
  try {
    const rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu> net({.vocab = 16, .width = 8, .depth = 2}, rwkv::Cpu(2));
    auto context = net.context();
    const auto logits = context.step(rwkv::Token{3});
    std::cout << logits.size() << " logits of a model with " << net.parameter_count() << " zero weights\n";
    rwkv::open_tensors("no such model.safetensors");
  } catch (const rwkv::Error& error) {
    std::cout << error.what() << '\n';
    return 0;
  }
  return 1;
}
