/// What is between products and bound by memory, on arrays of at least 64 MB: norms, token shifts, gates, the optimiser,
/// the loss, gathering and scattering.
#include "rwkv/backend/transfer.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/mix.hpp"
#include "rwkv/op/norm.hpp"
#include "rwkv/train/adamw.hpp"
#include "suite.cuh"

namespace bench {

/// s = x + r, y = its layer norm: the end of one block and the start of the next.
struct SumNormalise : rwkv::Normalise {
  template <class R, class... Rest>
  RWKV_HD void reduce(rwkv::Stage<0>, const R*, R* terms, R x, R r, const Rest&...) const {
    terms[0] = x + r;
  }
  template <class R, class... Rest>
  RWKV_HD void reduce(rwkv::Stage<1>, const R* totals, R* terms, R x, R r, const Rest&...) const {
    const R rest = x + r - totals[0] * R(per_channel);
    terms[0] = rest;
    terms[1] = rest * rest;
  }
  template <class R>
  RWKV_HD void map(const R* totals, R x, R r, R scale, R shift, R& s, R& y) const {
    s = x + r;
    y = (s - totals[0]) * totals[1] * scale + shift;
  }
};

namespace {

using rwkv::Seq;
using rwkv::Token;
namespace arg = rwkv::arg;

/// Arrays that are no smaller than this.
constexpr Index least_bytes = Index{64} << 20;

/// Sequences of this width, in arrays of T that are large enough.
struct Shape {
  Index batch = 8, time, width;

  template <class T>
  static Shape with(Index width, Index batch = 8) {
    return {batch, (least_bytes / Index{sizeof(T)} + batch * width - 1) / (batch * width), width};
  }
  Index count() const { return batch * time * width; }
  std::string name() const { return by(batch, time, width); }
};

/// Some arrays of one shape, each in several sets.
template <class T>
class Arrays {
 public:
  Arrays(Cuda& be, const Shape& shape, Index arrays, Index sets)
      : shape_(shape), sets_(sets), numbers_(be, shape.count(), -1, 1, 1, arrays * sets) {}

  Seq<T> operator()(Index array, Index set) const {
    return {numbers_.data(array * sets_ + set), shape_.batch, shape_.time, shape_.width};
  }

 private:
  Shape shape_;
  Index sets_;
  Numbers<T> numbers_;
};

/// Measures call(arena, arrays, set) that reads `reads` of the arrays and writes as many more as `writes`.
template <class T, class Call>
void passes(Suite& suite, const std::string& kernel, const Shape& shape, Index reads, Index writes, double goal,
            const Call& call, Index arrays = 0) {
  const double bytes = static_cast<double>(shape.count()) * sizeof(T);
  const Case what{kernel,
                  shape.name(),
                  number_name<T>(),
                  {.read = static_cast<double>(reads) * bytes, .written = static_cast<double>(writes) * bytes},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index used = arrays == 0 ? reads + writes : arrays;
    const Index sets = suite.sets(static_cast<double>(used) * bytes);
    const Arrays<T> all(be, shape, used, sets);
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, all, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), all, set); });
  });
}

constexpr double forward_goal = share(0.88), backward_goal = share(0.80);
constexpr double epsilon = 1e-5;

template <class T>
void norms(Suite& suite, Index width) {
  Cuda& be = suite.backend();
  const Shape shape = Shape::with<T>(width);
  const Numbers<float> scale(be, width, 0.5f, 1.5f, 1), shift(be, width, -0.1f, 0.1f, 2), dscale(be, width, -1, 1, 3),
      dshift(be, width, -1, 1, 4);
  passes<T>(suite, "layer norm", shape, 1, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    rwkv::layer_norm(be, all(0, set), scale.channels(), shift.channels(), epsilon, all(1, set));
  });
  passes<T>(suite, "layer norm back", shape, 2, 1, backward_goal, [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
    rwkv::layer_norm_back(be, ws, all(0, set), scale.vector(), epsilon, all(1, set), arg::out(all(2, set)),
                          dscale.vector(), dshift.vector());
  });
  passes<T>(suite, "residual + layer norm", shape, 2, 2, forward_goal,
            [&](rwkv::Arena, const Arrays<T>& all, Index set) {
              be.rows(SumNormalise{{1, 1.0 / static_cast<double>(width), epsilon}}, arg::in(all(0, set)),
                      arg::in(all(1, set)), arg::chan(scale.channels()), arg::chan(shift.channels()),
                      arg::out(all(2, set)), arg::out(all(3, set)));
            });
  const Index groups = width / 64;
  passes<T>(suite, "group norm", shape, 1, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    rwkv::group_norm(be, all(0, set), groups, scale.channels(), shift.channels(), epsilon, all(1, set));
  });
  passes<T>(suite, "group norm back", shape, 2, 1, backward_goal, [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
    rwkv::group_norm_back(be, ws, all(0, set), groups, scale.vector(), epsilon, all(1, set), arg::out(all(2, set)),
                          dscale.vector(), dshift.vector());
  });
}

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
void pointwise(Suite& suite, Index width) {
  Cuda& be = suite.backend();
  const Shape shape = Shape::with<T>(width);
  passes<T>(suite, "sigmoid gate", shape, 2, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    be.rows(rwkv::SigmoidGate{}, arg::in(all(0, set)), arg::in(all(1, set)), arg::out(all(2, set)));
  });
  passes<T>(suite, "sigmoid gate back", shape, 3, 2, backward_goal,
            [&](rwkv::Arena ws, const Arrays<T>& all, Index set) {
              rwkv::rows_back(be, ws, rwkv::SigmoidGate{}, arg::in(all(0, set)), arg::in(all(1, set)),
                              arg::cot(all(2, set)), arg::out(all(3, set)), arg::out(all(4, set)));
            });
  passes<T>(suite, "residual sum", shape, 2, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    be.rows(rwkv::Sum{}, arg::in(all(0, set)), arg::in(all(1, set)), arg::out(all(2, set)));
  });
  passes<T>(suite, "copy", shape, 1, 1, forward_goal, [&](rwkv::Arena, const Arrays<T>& all, Index set) {
    be.copy(rwkv::Mat<const T>(all(0, set).flat()), all(1, set).flat());
  });
}

/// Gradient, parameter and both moments, of which the last three are replaced.
void optimiser(Suite& suite, Index width) {
  Cuda& be = suite.backend();
  const rwkv::AdamWUpdate update(rwkv::AdamW{}, rwkv::Role::matrix, 1e-5, 10, 1);
  passes<float>(
      suite, "AdamW", Shape::with<float>(width, 1), 4, 3, forward_goal,
      [&](rwkv::Arena, const Arrays<float>& all, Index set) {
        const auto g = all(0, set), p = all(1, set), m = all(2, set), v = all(3, set);
        be.rows(update, arg::in(g), arg::in(p), arg::in(m), arg::in(v), arg::out(p), arg::out(m), arg::out(v));
      },
      4);
}

constexpr Index vocab = 50277;

/// Random tokens where the device reaches them, and how many different ones there are.
class Tokens {
 public:
  Tokens(Cuda& be, Index count, Index sets) : all_(be, static_cast<std::size_t>(count * sets)), count_(count) {
    const rwkv::Philox random{.key = 9};
    std::vector<bool> seen(static_cast<std::size_t>(vocab));
    for (std::size_t i = 0; i < all_.numbers().size(); ++i) {
      const auto token = random.block(i).words[0] % static_cast<std::uint32_t>(vocab);
      all_.numbers()[i] = static_cast<Token>(token);
      if (static_cast<Index>(i) < count) seen[token] = true;
    }
    different_ = std::count(seen.begin(), seen.end(), true);
  }
  std::span<const Token> operator()(Index set) {
    return std::span<const Token>(all_.numbers())
        .subspan(static_cast<std::size_t>(set * count_), static_cast<std::size_t>(count_));
  }
  double different() const { return static_cast<double>(different_); }

 private:
  rwkv::Exchange<Token, Cuda> all_;
  Index count_, different_ = 0;
};

/// The logits become their gradient, so all calls after the first see that.
void loss(Suite& suite) {
  const Index rows = suite.quick() ? 512 : 2048;
  const double bytes = static_cast<double>(rows * vocab) * sizeof(float);
  const Case what{"cross entropy", by(rows, vocab), "fp32", {.read = bytes, .written = bytes}, backward_goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(bytes);
    const Numbers<float> logits(be, rows * vocab, -8, 8, 1, sets);
    Tokens targets(be, rows, sets);
    rwkv::Exchange<float, Cuda> losses(be, static_cast<std::size_t>(rows));
    suite.measure(what, sets, [&](Index set) {
      be.cross_entropy(rwkv::matrix(logits.data(set), rows, vocab), targets(set), {}, losses.numbers());
    });
  });
}

template <class W>
void gather(Suite& suite, Index width) {
  const Index tokens = least_bytes / (width * Index{sizeof(float)});
  const double count = static_cast<double>(tokens * width);
  const Case what{"gather rows",
                  by(vocab, width) + " at " + std::to_string(tokens),
                  number_name<W>(),
                  {.read = count * sizeof(W), .written = count * sizeof(float)},
                  forward_goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Numbers<W> table(be, vocab * width, -1, 1, 1);
    const Numbers<float> to(be, tokens * width, -1, 1, 2, sets);
    Tokens chosen(be, tokens, sets);
    suite.measure(what, sets, [&](Index set) {
      be.gather_rows(rwkv::matrix(std::as_const(table).data(), vocab, width), chosen(set),
                     rwkv::matrix(to.data(set), tokens, width));
    });
  });
}

void scatter(Suite& suite, Index width) {
  Cuda& be = suite.backend();
  const Index tokens = least_bytes / (width * Index{sizeof(float)});
  const double row = static_cast<double>(width) * sizeof(float);
  const double rows = Tokens(be, tokens, 1).different();
  const Case what{"scatter and add rows",
                  by(vocab, width) + " at " + std::to_string(tokens),
                  "fp32",
                  {.read = (static_cast<double>(tokens) + rows) * row, .written = rows * row},
                  backward_goal};
  suite.run(what, [&] {
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Numbers<float> table(be, vocab * width, -1, 1, 1), from(be, tokens * width, -1, 1, 2, sets);
    Tokens chosen(be, tokens, sets);
    suite.measure(what, sets, [&](Index set) {
      be.scatter_add_rows(rwkv::matrix(from.data(set), tokens, width), chosen(set),
                          rwkv::matrix(table.data(), vocab, width));
    });
  });
}

template <class T>
void of_number(Suite& suite, Index width) {
  norms<T>(suite, width);
  shifts<T, rwkv::MixCurrent>(suite, width, std::make_integer_sequence<Index, 1>());
  shifts<T, rwkv::MixCurrent>(suite, width, std::make_integer_sequence<Index, 3>());
  shifts<T, rwkv::MixPrevious>(suite, width, std::make_integer_sequence<Index, 6>());
  pointwise<T>(suite, width);
}

}  // namespace

void add_rows(Suite& suite) {
  suite.section("Bound by memory");
  of_number<rwkv::bf16>(suite, 4096);
  of_number<float>(suite, 4096);
  if (!suite.quick()) norms<float>(suite, 768);
  optimiser(suite, 4096);
  loss(suite);
  gather<rwkv::bf16>(suite, 4096);
  gather<float>(suite, 4096);
  scatter(suite, 4096);
}

}  // namespace bench
