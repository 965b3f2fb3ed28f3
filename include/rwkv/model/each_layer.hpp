#pragma once
/// The layers of a body, one by one.
#include <span>
#include <utility>

#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Calls call(layer, state) for every layer of a body, from the first to the last. A block that is no Layer, Chain or
/// Stack counts as one layer.
template <class Body, class Call>
void each_layer(const Body& body, typename Body::State& state, Call&& call) {
  if constexpr (requires { body.each_layer(state, call); }) body.each_layer(state, call);
  else call(body, state);
}
/// The same with the tape of every layer: call(layer, state, tape).
template <class Body, class Tape, class Call>
void each_layer(const Body& body, typename Body::State& state, Tape& tape, Call&& call) {
  if constexpr (requires { body.each_layer(state, tape, call); }) body.each_layer(state, tape, call);
  else call(body, state, tape);
}

/// Does what forward_of_tokens does, and calls tap(layer, y, state) after every layer, when the layer has run: y is what
/// it leaves in the residual stream, [batch, time, width], and state its state after the last token.
template <class Body, class Tap>
void forward_tapped(const Body& body, typename Body::backend& be, Arena ws, std::span<const Token> tokens,
                    Seq<typename Body::compute, Body::Width> x, typename Body::State& state,
                    Seq<typename Body::compute, Body::Width> y, Tap& tap) {
  using Input = Seq<const typename Body::compute, Body::Width>;
  auto side = start_side_streams<Body>(ws, x, tokens);
  Input in = x;
  each_layer(body, state, [&](const auto& layer, auto& layer_state) {
    forward_beside(layer, be, ws, side, in, layer_state, y);
    in = y;
    be.sync();
    tap(layer, in, layer_state);
  });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
