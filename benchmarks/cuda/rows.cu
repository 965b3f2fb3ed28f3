/// The other operations bound by memory: gates, sums, the optimiser, the loss, gathering and scattering.
#include "rows.cuh"

#include "rwkv/backend/flat_rows.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/model/model.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/train/adamw.hpp"

namespace bench {

namespace {

using rwkv::Token;
namespace arg = rwkv::arg;

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

constexpr Index vocab = 50277;

/// A tensor as the optimiser sees it.
struct Tensor {
  rwkv::ParameterTraits traits;
  Index rows, width;
};

/// All tensors of the 169M model.
std::vector<Tensor> tensors_of_169m(const Cuda& be) {
  using Net = rwkv::LanguageModel<rwkv::V4, float, Cuda>;
  Net net = Net::unbound({.vocab = vocab, .width = 768, .depth = 12}, be);
  std::vector<Tensor> tensors;
  for (const auto& parameter : net.parameters()) {
    const Index width = parameter.shape.sizes[parameter.shape.rank - 1];
    tensors.push_back({parameter, parameter.shape.count() / width, width});
  }
  return tensors;
}

/// The end of a training step, when all gradients are there, over the tensors of a whole model. They are larger
/// together than any cache.
void optimiser(Suite& suite) {
  Cuda& be = suite.backend();
  const auto tensors = tensors_of_169m(be);
  Index count = 0;
  for (const Tensor& tensor : tensors) count += tensor.rows * tensor.width;
  const std::string shape = rwkv::join("169M in ", tensors.size(), " tensors");
  const double bytes = static_cast<double>(count) * sizeof(float);

  // Gradient, parameter and both moments, of which the last three are replaced.
  const Case adamw{"AdamW", shape, "fp32", {.read = 4 * bytes, .written = 3 * bytes}, forward_goal};
  suite.run(adamw, [&] {
    const Numbers<float> g(be, count, -1, 1, 1), p(be, count, -1, 1, 2), m(be, count, -1, 1, 3), v(be, count, 0, 1, 4);
    using Update = rwkv::FlatRows<rwkv::AdamWUpdate, float, 4, 3>;
    std::vector<Update> updates;
    Index begin = 0;
    for (const auto& [traits, rows, width] : tensors) {
      float *const p_own = p.data() + begin, *const m_own = m.data() + begin, *const v_own = v.data() + begin;
      updates.push_back({rwkv::AdamWUpdate(rwkv::AdamW{}, traits, 1e-5, 10, 1),
                         rows,
                         width,
                         {g.data() + begin, p_own, m_own, v_own},
                         {p_own, m_own, v_own}});
      begin += rows * width;
    }
    suite.measure(adamw, 1, [&](Index) { be.rows_each(std::span<const Update>(updates)); });
  });

  // Clipping waits for this number, so the time includes launches and the copy to the host.
  const Case squares{"sum of squares", shape, "fp32", {.read = bytes}};
  suite.run(squares, [&] {
    const Numbers<float> g(be, count, -1, 1, 1);
    std::vector<rwkv::Mat<const float>> gradients;
    Index begin = 0;
    for (const auto& [traits, rows, width] : tensors) {
      gradients.push_back(rwkv::matrix(static_cast<const float*>(g.data() + begin), rows, width));
      begin += rows * width;
    }
    const auto call = [&](rwkv::Arena ws) {
      static_cast<void>(be.sum_of_squares(ws, std::span<const rwkv::Mat<const float>>(gradients)));
    };
    const auto scratch = scratch_for(be, call);
    suite.report(squares, host_seconds_of([&] { call(scratch.arena()); }), "with the sum on the host");
  });
}

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
    const rwkv::Memory<rwkv::Cuda> scratch(be, tokens * rwkv::Index{sizeof(rwkv::Token)} + rwkv::arena_alignment);
    suite.measure(what, sets, [&](Index set) {
      be.scatter_add_rows(scratch.arena(), rwkv::matrix(from.data(set), tokens, width), chosen(set),
                          rwkv::matrix(table.data(), vocab, width));
    });
  });
}

}  // namespace

void add_rows(Suite& suite) {
  pointwise<rwkv::bf16>(suite, 4096);
  pointwise<float>(suite, 4096);
  optimiser(suite);
  loss(suite);
  gather<rwkv::bf16>(suite, 4096);
  gather<float>(suite, 4096);
  scatter(suite, 4096);
}

}  // namespace bench
