/// The forward pass of training as a cascade of layers, of models with layers of several kinds.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <utility>

#include "../versions.hpp"
#include "gradients.hpp"

using namespace rwkv;
using config::gradients_in_order;
using config::live;

namespace {

// The read value of RWKV-7 starts in the third layer, and crosses chains.
using Hybrid = Model<Embedding<float, Cpu>, typename config::HybridsOf<Cpu>::Stack<float>, Head<float, Cpu>>;
// Every layer reads the tokens.
using WithTokens = LanguageModel<V7a, float, Cpu>;

// A block whose tape takes memory that is not like x.
struct GreedyMix : TimeMix<V4, float, Cpu> {
  using Base = TimeMix<V4, float, Cpu>;
  using Base::Base, Base::forward;
  static constexpr bool cuts_freely = true;
  void forward(Cpu& be, Arena& ws, Seq<const float> x, State& state, Seq<float> y, Tape& tape) const {
    static_cast<void>(ws.take<float>(x.batch * x.time * dims.width));
    Base::forward(be, ws, x, state, y, tape);
  }
  void backward(Cpu& be, Arena ws, Seq<const float> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<float> dx, GreedyMix& grad, State& dfirst) const {
    Base::backward(be, ws, dy, tape, first, dlast, dx, grad, dfirst);
  }
};
using Greedy = Model<Embedding<float, Cpu>, Stack<Layer<GreedyMix, ChannelMix<V4, float, Cpu>>>, Head<float, Cpu>>;

template <class Net>
void check_orders(const ModelSizes& sizes) {
  for (const auto& shape : {std::pair<Index, Index>{1, 40}, {2, 23}}) {
    const Index batch = shape.first, length = shape.second;
    CAPTURE(batch);
    const auto expected = gradients_in_order<Net, Keep>(sizes, 1, batch, length, LayerOrder::one_by_one);
    for (const int threads : {2, 3, 5}) {
      CAPTURE(threads);
      CHECK(gradients_in_order<Net, Keep>(sizes, threads, batch, length, LayerOrder::cascade) == expected);
    }
  }
}

}  // namespace

TEST_CASE("on threads, a cascade of layers of several versions has the bits of one layer after the other") {
  check_orders<Hybrid>({.vocab = 37, .width = 24, .depth = 6, .head_size = 8});
}

TEST_CASE("on threads, a cascade of layers that read tokens has the bits of one layer after the other") {
  check_orders<WithTokens>({.vocab = 37, .width = 24, .depth = 3, .head_size = 8});
}

TEST_CASE("a layer that says it cuts freely, and takes other memory for some tokens than for all, is refused") {
  const ModelSizes sizes{.vocab = 37, .width = 24, .depth = 2, .head_size = 8};
  auto net = live<Greedy>(sizes, Cpu(2));
  const auto make = [&](LayerOrder order) { Gradient<Greedy, Keep>(net, {.batch = 2, .length = 20, .order = order}); };
  CHECK_NOTHROW(make(LayerOrder::one_by_one));
  CHECK_THROWS_WITH_AS(
      make(LayerOrder::cascade),
      "rwkv: in a cascade the tape of a layer takes its memory like x; of this one a tile took 73856 bytes, all tokens 76928",
      Error);
}
