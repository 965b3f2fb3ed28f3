/// Layers of several versions in one body, some of them of RWKV-7, which read the value of the first of their kind.
/// Oracles: dual numbers, exact to rounding; the pass of one sequence; the gradient of the whole sequence.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include <string_view>

#include "../numbers.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

ModelSizes sizes(Index width, Index depth) {
  return {.width = width,
          .depth = depth,
          .head_size = width == 12 ? 4 : width,
          .ffn = 2 * width + 1,
          .ranks = config::small_ranks};
}

template <template <class> class BlockOf, class P, class B>
void check_adjoint(Index depth, const B& be) {
  std::uint64_t seed = 1;
  for (const Index width : {1, 7, 12}) {
    for (const Index time : {1, 2, 67}) {
      CAPTURE(width);
      CAPTURE(time);
      CHECK(adjoint_defect<BlockOf, P>(sizes(width, depth), {.batch = 3, .time = time, .seed = seed++}, be) < 1e-12);
    }
  }
}

template <class K>
constexpr bool trainable = Block<K>&& TrainableBlock<K, Keep>&& TrainableBlock<K, Recompute>;

template <class B>
constexpr bool all_trainable() {
  using Hybrids = config::HybridsOf<B>;
  bool all = trainable<typename Hybrids::template Chain<double>> && trainable<typename Hybrids::template Stack<double>>;
  config::each_version([&]<class V>() {
    using L = typename config::BlocksOf<V, B>::template Layer<double>;
    all = all && trainable<L> && trainable<Chain<L, L>> && trainable<Stack<L>> && trainable<Stack<L, 2>>;
  });
  return all;
}
static_assert(all_trainable<Reference>() && all_trainable<Cpu>());

}  // namespace

TEST_CASE("the backward pass of a hybrid is the adjoint of its forward pass, whatever it keeps") {
  using Hybrids = config::HybridsOf<Reference>;
  check_adjoint<Hybrids::Chain, Keep>(3, Reference());
  check_adjoint<Hybrids::Chain, Recompute>(3, Reference());
  check_adjoint<Hybrids::Stack, Keep>(6, Reference());
  check_adjoint<Hybrids::Stack, Recompute>(6, Reference());
}

TEST_CASE("a hybrid's batch is its sequences") {
  using Body = config::HybridsOf<Reference>::Stack<double>;
  const Index batch = 3, time = 9, width = 12;
  BlockRun<Body> together(sizes(width, 6), batch, time);
  detail::draw(together, sizes(width, 6), {.batch = batch, .time = time});
  together.forward_keeping();
  together.backward();
  for (Index b = 0; b < batch; ++b) {
    BlockRun<Body> alone(sizes(width, 6), 1, time);
    alone.parameters = together.parameters;
    // A state tensor of the batch is one row for each sequence.
    std::size_t from = 0, to = 0;
    const auto take_rows = [&](const std::vector<double>& all, std::vector<double>& own, std::size_t numbers) {
      std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(from + static_cast<std::size_t>(b) * numbers), numbers,
                  own.begin() + static_cast<std::ptrdiff_t>(to));
    };
    std::vector<double> last(alone.last.size()), dfirst(last.size());
    Body body(sizes(width, 6), 0);
    auto state = make_state(body);
    body.visit_state(state, "", [&](const std::string&, Index numbers, auto&) {
      const auto count = static_cast<std::size_t>(numbers);
      take_rows(together.first, alone.first, count);
      take_rows(together.dlast, alone.dlast, count);
      take_rows(together.last, last, count);
      take_rows(together.dfirst, dfirst, count);
      from += static_cast<std::size_t>(batch) * count;
      to += count;
    });
    const auto part = [&](const std::vector<double>& all) {
      const auto begin = all.begin() + b * time * width;
      return std::vector<double>(begin, begin + time * width);
    };
    alone.x = part(together.x);
    alone.dy = part(together.dy);
    alone.forward_keeping();
    alone.backward();
    CHECK(golden::relative_error(part(together.y), alone.y) < 1e-13);
    CHECK(golden::relative_error(part(together.dx), alone.dx) < 1e-12);
    CHECK(golden::relative_error(last, alone.last) < 1e-13);
    CHECK(golden::relative_error(dfirst, alone.dfirst) < 1e-12);
  }
}

TEST_CASE("the first layer of RWKV-7 mixes no value into its own, and the later ones do") {
  using Body = config::HybridsOf<Reference>::Stack<double>;
  BlockRun<Body> run(sizes(7, 6), 2, 5);
  detail::draw(run, sizes(7, 6), {.batch = 2, .time = 5});
  run.forward_keeping();
  run.backward();
  int first = 0, later = 0;
  std::size_t at = 0;
  for (const auto& parameter : run.parameter_table()) {
    const auto end = at + static_cast<std::size_t>(parameter.shape.count());
    const std::string_view name = parameter.name;
    if (name.ends_with("att.v0") || name.ends_with("att.v1") || name.ends_with("att.v2")) {
      CAPTURE(parameter.name);
      const bool zero = std::all_of(run.dparameters.begin() + static_cast<std::ptrdiff_t>(at),
                                    run.dparameters.begin() + static_cast<std::ptrdiff_t>(end),
                                    [](double slope) { return slope == 0; });
      CHECK(zero == (parameter.layer == 2));
      ++(parameter.layer == 2 ? first : later);
    }
    at = end;
  }
  CHECK(first == 3);
  CHECK(later == 3);
}

TEST_CASE("a hybrid is passed back in halves as it is as a whole") {
  for (const Index time : {2, 70}) {
    CHECK(split_defect<config::HybridsOf<Reference>::Stack<double>, Recompute>(sizes(12, 6), {.batch = 3, .time = time},
                                                                               time / 2) < 1e-10);
  }
}
