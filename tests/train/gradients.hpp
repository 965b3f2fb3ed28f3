#pragma once
/// What training passes compute, for comparisons to the last bit.
#include <rwkv/train/gradient.hpp>

#include <vector>

#include "../model/live.hpp"

namespace config {

/// The gradients of all parameters after two batches, the second from the state after the first; behind them the losses,
/// the states and their gradients.
template <class Net, class P>
std::vector<double> gradients_in_order(const ModelSizes& sizes, int threads, Index batch, Index length,
                                       rwkv::LayerOrder order) {
  Net net = live<Net>(sizes, rwkv::Cpu(threads));
  rwkv::Gradient<Net, P> gradient(net, {.batch = batch, .length = length, .order = order});
  std::vector<double> all;
  const auto add = [&](const auto& numbers) { all.insert(all.end(), numbers.begin(), numbers.end()); };
  const auto add_state = [&](const auto& state) {
    const auto row = state.numbers();
    all.insert(all.end(), row.data, row.data + row.cols);
  };
  for (const std::uint64_t seed : {1u, 2u}) {
    const auto tokens = some_tokens(batch * length, sizes.vocab, seed);
    all.push_back(gradient.add(tokens, some_tokens(batch * length, sizes.vocab, seed + 5)));
    add_state(gradient.state());
    add_state(gradient.state_gradient());
  }
  for (const auto& parameter : gradient.parameters()) add(parameter.gradient);
  return all;
}

}  // namespace config
