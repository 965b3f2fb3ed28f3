/// Sequences of a batch that read prompts of their own, come and go: each equals the sequence that runs alone.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 20, .width = 16, .depth = 2, .head_size = 8};

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

}  // namespace

TEST_CASE("a sequence of a batch reads a prompt of its own") {
  config::each_version([&]<class V>() {
    const auto net = live<LanguageModel<V, float, Cpu>>(sizes, Cpu(2));
    auto context = net.context({.batch = 3, .chunk = 8});
    const Index lengths[] = {1, 21, 8};
    std::vector<std::vector<float>> states, logits;
    for (Index b = 0; b < 3; ++b) {
      auto alone = net.context({.chunk = 8});
      const auto prompt = some_tokens(lengths[b], 20, static_cast<std::uint64_t>(b) + 1);
      logits.push_back(copy(alone.prefill(prompt)));
      states.push_back(alone.state());
      CHECK(copy(context.prefill(b, prompt)) == logits.back());
    }
    const auto check = [&] {
      for (Index b = 0; b < 3; ++b) {
        CHECK(context.state(b) == states[static_cast<std::size_t>(b)]);
        CHECK(context.position(b) == lengths[b]);
      }
      CHECK(context.batch() == 3);
    };
    check();
    CHECK_THROWS_WITH_AS(context.prefill(3, some_tokens(2, 20)), "rwkv: there is no sequence 3 in a context of 3",
                         Error);
    CHECK_THROWS_WITH_AS(context.prefill(1, std::vector<Token>()),
                         "rwkv: there is no token to run: the prompt is empty", Error);
    CHECK_THROWS_WITH_AS(context.prefill(1, std::vector<Token>{3, 20}),
                         "rwkv: token 20 at position 1 is outside the vocabulary of 20", Error);
    check();

    // The logits of the others stay for a draw.
    context.step(std::vector<Token>{1, 2, 3});
    const auto largest = [&](Cpu&, Mat<const float> rows, Token* tokens) {
      for (Index b = 0; b < rows.rows; ++b) tokens[b] = argmax(std::span(rows.row(b), 20));
    };
    const auto drawn = context.draw(largest);
    const Token first = drawn[0], last = drawn[2];
    const Token second = argmax(context.prefill(1, some_tokens(4, 20)));
    const auto again = context.draw(largest);
    CHECK(again[0] == first);
    CHECK(again[1] == second);
    CHECK(again[2] == last);
  });
}

TEST_CASE("handles keep their sequences while others come and go") {
  const AnyModel net(live<LanguageModel<config::AnyVersion, float, Cpu>>(sizes, Cpu()));
  AnyContext context = net.context({.batch = 4});
  while (context.batch() > 1) context.remove(0);
  SequenceHandles players(context);
  CHECK(players[0] == 0);
  const Index a = players.add(), b = players.add(), c = players.add();
  CHECK_THROWS_WITH_AS(players.add(), "rwkv: the context is full: it holds 4 sequences", Error);
  for (const Index handle : {a, b, c}) context.prefill(players[handle], some_tokens(handle + 2, 20));
  players.remove(a);
  players.remove(0);
  CHECK(context.batch() == 2);
  CHECK(context.position(players[b]) == b + 2);
  CHECK(context.position(players[c]) == c + 2);
  const Index d = players.add();
  CHECK(d > c);
  CHECK(context.position(players[d]) == 0);
  CHECK(players.by_number()[static_cast<std::size_t>(players[b])] == b);
  CHECK_THROWS_WITH_AS(players[a], "rwkv: there is no sequence with the handle 1", Error);
  CHECK_THROWS_WITH_AS(players.remove(a), "rwkv: there is no sequence with the handle 1", Error);
  players.remove(players.by_number()[0]);
  CHECK(players.by_number().size() == 2);
}
