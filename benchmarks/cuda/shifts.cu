/// Mixes of each token with the one before: several of one array in one pass, and their adjoints.
#include "rwkv/op/mix.hpp"

#include "rows.cuh"

namespace bench {

namespace {

namespace arg = rwkv::arg;

template <class T, class Rule, Index... Nth>
void shifts(Suite& suite, Index width, std::integer_sequence<Index, Nth...>) {
  constexpr Index mixes = sizeof...(Nth);
  Cuda& be = suite.backend();
  const Shape shape = Shape::with<T>(width);
  const Numbers<float> weights(be, width, 0, 1, 1, mixes), dweights(be, width, -1, 1, 2, mixes);
  const Numbers<T> last(be, shape.batch * width, -1, 1, 3), dlast(be, shape.batch * width, -1, 1, 4),
      dfirst(be, shape.batch * width, -1, 1, 5);
  const auto row = [&](const Numbers<T>& numbers) { return rwkv::matrix(numbers.data(), shape.batch, width); };
  const auto weight = [&](Index nth) { return rwkv::Vec<const float>{weights.data(nth), width}; };
  const auto dweight = [&](Index nth) { return rwkv::Vec<float>{dweights.data(nth), width}; };
  const std::string name = "token shift, " + std::to_string(mixes) + (mixes == 1 ? " mix" : " mixes");
  passes<T>(suite, name, shape, 1, mixes, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    be.rows(rwkv::Mix<Rule>{}, arg::in(all(0, set)), arg::prev(all(0, set), row(last)), arg::chan(weight(Nth))...,
            arg::out(all(1 + Nth, set))...);
  });
  passes<T>(suite, name + " back", shape, 1 + mixes, 1, backward_goal,
            [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
              const auto x = all(0, set), dx = all(1 + mixes, set);
              rwkv::rows_back(be, ws, rwkv::Mix<Rule>{}, arg::in(x), arg::prev(x, row(last)), arg::chan(weight(Nth))...,
                              arg::cot(all(1 + Nth, set))..., arg::out(dx), arg::back(dx, row(dlast), row(dfirst)),
                              arg::sum(dweight(Nth))...);
            });
}

template <class T>
void of_number(Suite& suite, Index width) {
  shifts<T, rwkv::MixCurrent>(suite, width, std::make_integer_sequence<Index, 1>());
  shifts<T, rwkv::MixCurrent>(suite, width, std::make_integer_sequence<Index, 3>());
  shifts<T, rwkv::MixPrevious>(suite, width, std::make_integer_sequence<Index, 6>());
}

}  // namespace

void add_shifts(Suite& suite) {
  of_number<rwkv::bf16>(suite, 4096);
  of_number<float>(suite, 4096);
}

}  // namespace bench
