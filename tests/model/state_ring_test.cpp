/// Positions, and rings of states: going back equals never having gone on.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../versions.hpp"
#include "live.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 20, .width = 16, .depth = 2, .head_size = 8};

template <class V>
using NetOf = LanguageModel<V, float, Cpu>;
using Net = NetOf<config::AnyVersion>;

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

template <class C>
std::vector<Index> positions(const C& context) {
  std::vector<Index> all;
  for (Index b = 0; b < context.batch(); ++b) all.push_back(context.position(b));
  return all;
}
using Positions = std::vector<Index>;

template <class V>
void check_going_back() {
  const auto net = live<NetOf<V>>(sizes, Cpu());
  const Index batch = 2, most = 3, steps = 9;
  const auto tokens = some_tokens(batch * steps, sizes.vocab);
  const auto nth = [&](Index step) {
    return std::span(tokens).subspan(static_cast<std::size_t>(step * batch), static_cast<std::size_t>(batch));
  };
  std::vector<std::vector<float>> logits;  // that follow each step
  auto straight = net.context({.batch = batch});
  straight.prefill(some_tokens(batch * 4, sizes.vocab, 6));
  for (Index step = 0; step < steps; ++step) logits.push_back(copy(straight.step(nth(step))));

  for (Index back = 0; back <= most; ++back) {
    CAPTURE(back);
    auto context = net.context({.batch = batch});
    context.prefill(some_tokens(batch * 4, sizes.vocab, 6));
    StateRing ring(context, most);
    CHECK(ring.kept() == 0);
    Index step = 0;
    for (; step < 5; ++step) {
      context.step(nth(step));
      ring.push();
      CHECK(ring.kept() == std::min(step + 1, most));
    }
    context.step(std::vector<Token>{1, 2});  // not pushed
    ring.back(back);
    step -= back;
    CHECK(ring.kept() == most - back);
    CHECK(positions(context) == Positions{4 + step, 4 + step});
    for (; step < steps; ++step) {
      CHECK(copy(context.step(nth(step))) == logits[static_cast<std::size_t>(step)]);
      ring.push();
    }
    ring.back(most);
    CHECK(copy(context.step(nth(steps - most))) == logits[static_cast<std::size_t>(steps - most)]);
    CHECK(ring.kept() == 0);
  }
}

}  // namespace

TEST_CASE("going back by a ring equals never having gone on, bit for bit") {
  config::each_version([&]<class V>() { check_going_back<V>(); });
}

TEST_CASE("a ring refuses what it does not have, and nothing changes") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context({.batch = 2});
  CHECK_THROWS_WITH_AS((StateRing(context, 0)), "rwkv: a ring of states goes back by 1 to 1048576 pushes, not by 0",
                       Error);
  CHECK_THROWS_AS((StateRing(context, (Index{1} << 20) + 1)), Error);
  StateRing ring(context, 4);
  const std::vector<Token> two{3, 4};
  for (int i = 0; i < 2; ++i) {
    context.step(two);
    ring.push();
  }
  auto state = context.state();
  CHECK_THROWS_WITH_AS(ring.back(3), "rwkv: the ring can go back by 0 to 2 pushes, not by 3", Error);
  CHECK_THROWS_WITH_AS(ring.back(-1), "rwkv: the ring can go back by 0 to 2 pushes, not by -1", Error);
  CHECK(context.state() == state);
  CHECK(positions(context) == Positions{2, 2});
  CHECK(ring.kept() == 2);

  context.remove(0);
  state = context.state();
  const auto lost = "rwkv: the ring has no states of these sequences: one was added or removed since the last push";
  CHECK(ring.kept() == 0);
  CHECK_THROWS_WITH_AS(ring.back(1), lost, Error);
  context.add();
  CHECK_THROWS_WITH_AS(ring.back(0), lost, Error);
  CHECK(positions(context) == Positions{2, 0});
  ring.push();
  CHECK(ring.kept() == 0);
  state = context.state();
  context.reset();
  context.step(two);
  ring.push();
  ring.back(1);
  CHECK(context.state() == state);
  CHECK(positions(context) == Positions{2, 0});
}

TEST_CASE("after going back there are no logits to draw from") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context();
  StateRing ring(context, 1);
  const auto first = [](Cpu&, Mat<const float>, Token* tokens) { tokens[0] = 0; };
  context.step(3);
  ring.push();
  ring.back(1);
  CHECK_THROWS_WITH_AS(context.draw(first), doctest::Contains("rwkv: there are no logits to draw a token from"), Error);
}

TEST_CASE("a context counts the tokens of each sequence") {
  const auto net = live<Net>(sizes, Cpu());
  auto context = net.context({.batch = 3, .chunk = 2});
  const std::vector<Token> three{1, 2, 3};
  const auto first = [](Cpu&, Mat<const float> logits, Token* tokens) { std::fill_n(tokens, logits.rows, 0); };
  CHECK(positions(context) == Positions{0, 0, 0});
  context.prefill(some_tokens(3 * 5, 20));
  CHECK(positions(context) == Positions{5, 5, 5});
  context.step(three);
  context.step(three, first);
  std::vector<float> logits(3 * 2 * 20);
  context.sequence(some_tokens(3 * 2, 20), logits);
  CHECK(positions(context) == Positions{9, 9, 9});

  CHECK_THROWS_AS(context.prefill(std::vector<Token>{1, 2}), Error);
  CHECK_THROWS_AS(context.step(std::vector<Token>{1, 2, 20}), Error);
  CHECK_THROWS_AS(context.step(std::vector<Token>{1, 2, 20}, first), Error);
  CHECK_THROWS_AS(context.sequence(three, logits), Error);
  CHECK_THROWS_AS(context.remove(3), Error);
  CHECK_THROWS_AS(context.add(), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(context.position(3)), "rwkv: there is no sequence 3 in a context of 3", Error);
  CHECK_THROWS_AS(static_cast<void>(context.position(-1)), Error);
  CHECK(positions(context) == Positions{9, 9, 9});

  const auto state = context.state(0);
  context.remove(1);
  CHECK(context.add() == 2);
  CHECK(positions(context) == Positions{9, 9, 0});
  context.step(three);
  context.remove(0);  // the last takes its place
  CHECK(positions(context) == Positions{1, 10});
  auto fork = context.fork();
  context.step(std::vector<Token>{1, 2});
  CHECK(positions(fork) == Positions{1, 10});
  CHECK(positions(context) == Positions{2, 11});

  context.restore(0, state, 9);
  CHECK(positions(context) == Positions{9, 11});
  CHECK_THROWS_WITH_AS(context.restore(0, state, -1),
                       "rwkv: a position counts tokens, from 0 to 1152921504606846976, so it is not -1", Error);
  CHECK_THROWS_AS(context.restore(0, std::span(state).first(3), 7), Error);
  CHECK(positions(context) == Positions{9, 11});
  context.restore(0, state);
  CHECK(positions(context) == Positions{0, 11});
  context.restore(context.state());
  CHECK(positions(context) == Positions{0, 0});
  fork.reset();
  CHECK(positions(fork) == Positions{0, 0});
}

TEST_CASE("a context behind a handle counts as well") {
  const AnyModel net(live<Net>(sizes, Cpu()));
  AnyContext context = net.context({.batch = 2});
  context.prefill(some_tokens(6, 20));
  CHECK(positions(context) == Positions{3, 3});
  context.restore(1, context.state(0), 8);
  CHECK(positions(context.fork()) == Positions{3, 8});
}

TEST_CASE("a context behind a handle goes back as well") {
  const AnyModel net(live<Net>(sizes, Cpu()));
  AnyContext context = net.context();
  AnyContext fork = context.fork();
  const auto expected = copy(fork.step(2));
  StateRing ring(context, 2);
  for (const Token token : {5, 6}) context.step(token), ring.push();
  CHECK(ring.kept() == 2);
  ring.back(2);
  CHECK(positions(context) == Positions{0});
  CHECK(copy(context.step(2)) == expected);

  for (int i = 0; i < 3; ++i) context = net.context();
  CHECK(ring.kept() == 0);
  const char* const sentence = "rwkv: the context of the ring was moved, or replaced by another";
  CHECK_THROWS_WITH_AS(ring.push(), sentence, Error);
  CHECK_THROWS_WITH_AS(ring.back(0), sentence, Error);
}

TEST_CASE("a ring notices that its context was replaced") {
  const auto net = live<LanguageModel<config::AnyVersion, float, Cpu>>({.vocab = 9, .width = 8, .depth = 1}, Cpu());
  auto context = net.context();
  StateRing ring(context, 2);
  ring.push();
  for (int i = 0; i < 3; ++i) {  // of the same size, and at a later turn in the same memory: what was kept is lost
    context = net.context();
    CHECK(ring.kept() == 0);
  }
  CHECK_THROWS_WITH_AS(ring.back(1),
                       "rwkv: the ring has no states of these sequences: one was added or removed since the last push",
                       Error);
  ring.push();
  CHECK(ring.kept() == 0);
  context = net.context({.batch = 4});
  CHECK_THROWS_WITH_AS(ring.push(), "rwkv: the context of the ring was moved, or replaced by another", Error);
}
