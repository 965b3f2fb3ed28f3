#pragma once
// What every translation unit of this program does on its own with the library.
#include <rwkv/block/cell_mix.hpp>
#include <rwkv/check/live_weights.hpp>
#include <rwkv/rwkv.hpp>

#include <numeric>

#include "../any_version.hpp"
#include "answers.hpp"

/// The sum of the logits of a small model after a few tokens, on one backend.
template <class S, class B>
double answer(B backend) {
  using namespace rwkv;
  using Mixed = Layer<CellMix<config::ChannelCell, S, B>, ChannelMix<config::AnyVersion, S, B>>;
  using Plain = Layer<TimeMix<config::AnyVersion, S, B>, ChannelMix<config::AnyVersion, S, B>>;
  using Net = Model<Embedding<S, B>, Stack<Chain<Plain, Mixed>>, Head<S, B>>;
  Net net({.vocab = 61, .width = 48, .depth = 4}, backend);
  live_weights(net, 7);
  auto context = net.context();
  const Token tokens[] = {3, 1, 4, 1, 5, 9, 2, 6};
  context.prefill(tokens);
  const auto logits = context.step(Token{60});
  return std::accumulate(logits.begin(), logits.end(), 0.0);
}

namespace {

Answers answers() {
  Answers all{answer<float>(rwkv::Cpu(1)), answer<float>(rwkv::Cpu(2)), answer<double>(rwkv::Reference()), false};
  try {
    rwkv::Tokenizer::world("no vocabulary", "here");
  } catch (const rwkv::Error&) {
    all.caught = true;
  }
  return all;
}

}  // namespace
