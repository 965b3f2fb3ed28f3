#pragma once
/// Models with live weights, and their logits for random text.
#include <vector>

#include "../instances.hpp"

namespace config {

using rwkv::ContextOptions;
using rwkv::Index;
using rwkv::ModelSizes;
using rwkv::Philox;
using rwkv::Token;

inline std::vector<Token> some_tokens(Index count, Index vocab, std::uint64_t seed = 5) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) {
    const double u = Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0);
    tokens.push_back(static_cast<Token>(u * static_cast<double>(vocab)));
  }
  return tokens;
}

template <class Net>
Net live(const ModelSizes& sizes, typename Net::backend be) {
  Net net(sizes, std::move(be));
  live_weights(net, 11);
  return net;
}

template <class Net>
auto all_logits(const Net& net, std::span<const Token> tokens, const ContextOptions& options = {}) {
  std::vector<typename Net::compute> logits(tokens.size() * static_cast<std::size_t>(net.sizes().vocab));
  auto context = net.context(options);
  context.sequence(tokens, logits);
  return logits;
}

}  // namespace config
