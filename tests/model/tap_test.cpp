/// A tap sees what every layer leaves behind, and changes nothing.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <string>
#include <vector>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

TEST_CASE("a tap sees the residual stream and the state behind every layer") {
  config::each_version([&]<class V>() {
    using Net = LanguageModel<V, float, Cpu>;
    const ModelSizes sizes{.vocab = 37, .width = 24, .depth = 3, .head_size = 8};
    const auto net = live<Net>(sizes, Cpu());
    const auto tokens = some_tokens(50, sizes.vocab);
    auto plain = net.context({.chunk = 20}), tapped = net.context({.chunk = 20});
    const auto expected = plain.prefill(tokens);

    std::vector<Index> layers, times;
    std::vector<float> last_row, states;
    const auto logits = tapped.prefill(tokens, [&](const auto& layer, auto x, auto state) {
      layers.push_back(layer.index);
      times.push_back(x.time);
      last_row.assign(x.row(0, x.time - 1), x.row(0, x.time - 1) + sizes.width);
      if (layer.index == 0) states.clear();
      layer.visit_state(state, "", [&](const std::string&, Index, Mat<float> tensor) {
        states.insert(states.end(), tensor.row(0), tensor.row(0) + tensor.cols);
      });
    });
    CHECK(std::equal(logits.begin(), logits.end(), expected.begin(), expected.end()));
    CHECK(layers == std::vector<Index>{0, 1, 2, 0, 1, 2, 0, 1, 2});
    CHECK(times == std::vector<Index>{20, 20, 20, 20, 20, 20, 10, 10, 10});
    CHECK(states == tapped.state());
    CHECK(states == plain.state());

    // The head reads what the tap saw last.
    Cpu be;
    std::vector<float> again(static_cast<std::size_t>(sizes.vocab));
    const auto head = [&](Arena ws) {
      net.parts.head.forward(be, ws, Seq<const float>{last_row.data(), 1, 1, sizes.width},
                             Seq<float>{again.data(), 1, 1, sizes.vocab});
    };
    const auto memory = scratch_for(be, head);
    head(memory.arena());
    CHECK(std::equal(again.begin(), again.end(), expected.begin(), expected.end()));
  });
}
