/// The forward pass of training as a cascade of layers: the bits of one layer after the other, on any number of threads.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <utility>

#include "../versions.hpp"
#include "gradients.hpp"

using namespace rwkv;
using config::gradients_in_order;

TEST_CASE("on threads, a cascade of layers passes the bits of one layer after the other to the backward pass") {
  config::each_version([&]<class V>() {
    using Net = LanguageModel<V, float, Cpu>;
    for (const Index depth : {1, 5}) {
      const ModelSizes sizes{.vocab = 37, .width = 24, .depth = depth, .head_size = 8};
      for (const auto& shape : {std::pair<Index, Index>{1, 2}, {1, 33}, {3, 50}, {2, 130}}) {
        const Index batch = shape.first, length = shape.second;
        CAPTURE(depth);
        CAPTURE(batch);
        CAPTURE(length);
        const auto expected = gradients_in_order<Net, Keep>(sizes, 1, batch, length, LayerOrder::one_by_one);
        for (const int threads : {1, 2, 3, 5}) {
          CAPTURE(threads);
          CHECK(gradients_in_order<Net, Keep>(sizes, threads, batch, length, LayerOrder::cascade) == expected);
        }
        CHECK(gradients_in_order<Net, Recompute>(sizes, 3, batch, length, LayerOrder::cascade) == expected);
        CHECK(gradients_in_order<Net, Keep>(sizes, 2, batch, length, LayerOrder::automatic) == expected);
        const Watch watch([](const Progress&) { return true; });  // then layers run one by one
        CHECK(gradients_in_order<Net, Keep>(sizes, 2, batch, length, LayerOrder::cascade) == expected);
      }
    }
  });
}

TEST_CASE("a cascade is what was asked for, and keeps hardly more for the backward pass") {
  using Net = LanguageModel<config::AnyVersion, float, Cpu>;
  const ModelSizes sizes{.vocab = 37, .width = 24, .depth = 5, .head_size = 8};
  auto net = config::live<Net>(sizes, Cpu(3));
  const auto bytes = [&](LayerOrder order) {
    return Gradient<Net, Keep>(net, {.batch = 2, .length = 100, .order = order}).tape_bytes();
  };
  const Index more = bytes(LayerOrder::cascade) - bytes(LayerOrder::one_by_one);
  CHECK(more > 0);  // what the threads tell each other
  CHECK(more <= sizes.depth * 128);
  const auto working = [&](LayerOrder order) {
    return Gradient<Net, Recompute>(net, {.batch = 2, .length = 100, .order = order}).working_bytes();
  };
  CHECK(working(LayerOrder::cascade) <= working(LayerOrder::one_by_one) + sizes.depth * 1024);
}
