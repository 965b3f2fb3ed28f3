/// The channel mix of RWKV-7a. Oracles: its formula, number by number in double; dual numbers; the block in double.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "../configs.hpp"
#include "../numbers.hpp"
#include "../versions.hpp"
#include "harness.hpp"

using namespace rwkv;
using config::noise;
using config::Standalone;

namespace {

template <class T, class B>
using DeepEmbed = ChannelMix<V7a, T, B>;

constexpr Index vocab = 7;

struct Case {
  Index batch, time, width, ffn, rank;

  ModelSizes sizes() const { return {.vocab = vocab, .width = width, .ffn = ffn, .ranks = {.s = rank}}; }
  Index tokens() const { return batch * time; }
  std::vector<double> x() const { return noise(tokens() * width, 1); }
  std::vector<double> embedding() const { return noise(tokens() * width, 2); }
  std::vector<double> before() const { return noise(batch * width, 3); }
  std::vector<double> dy() const { return noise(tokens() * width, 4); }
  std::vector<double> dlast() const { return noise(batch * width, 5); }
  std::vector<Token> text() const {
    std::vector<Token> tokens;
    for (Index i = 0; i < this->tokens(); ++i) tokens.push_back(static_cast<Token>((3 * i + i * i) % vocab));
    return tokens;
  }
};
constexpr Case cases[] = {{1, 1, 5, 6, 2}, {2, 9, 8, 13, 3}, {3, 4, 24, 40, 32}};

/// A parameter in the order of memory.
std::vector<double> parameter(const TensorSpec& spec) {
  return noise(spec.shape.count(),
               10 + static_cast<std::uint64_t>(spec.name.size()) * 31 + static_cast<std::uint64_t>(spec.name.back()));
}

template <class T, class B>
Standalone<DeepEmbed<T, B>> block_of(const Case& of, Index batch, B be, const std::vector<double>& before) {
  return Standalone<DeepEmbed<T, B>>(of.sizes(), batch, std::move(be), parameter,
                                     [&](const std::string&) { return before; });
}

/// y of the formula, with every parameter in the order of official files.
std::vector<double> formula(const Case& of) {
  std::map<std::string, std::vector<double>> p;
  DeepEmbed<double, Reference> block(of.sizes());
  DeepEmbed<double, Reference>::visit(
      block, "", [&](const TensorSpec& spec, auto&) { p[spec.name] = config::as_in_files(spec, parameter(spec)); });
  const auto x = of.x(), e = of.embedding(), before = of.before();
  const auto text = of.text();
  const auto at = [](const std::vector<double>& numbers, Index i) { return numbers[static_cast<std::size_t>(i)]; };
  const Index C = of.width, F = of.ffn, N = of.rank;
  std::vector<double> y;
  for (Index token = 0; token < of.tokens(); ++token) {
    std::vector<double> asked, answered, hidden;
    for (Index i = 0; i < N; ++i) {
      double sum = 0;
      for (Index c = 0; c < C; ++c) sum += at(x, token * C + c) * at(p["s1"], c * N + i);
      asked.push_back(sum);
    }
    for (Index j = 0; j < N; ++j) {
      double sum = 0;
      for (Index i = 0; i < N; ++i) {
        double number = at(p["s_emb.weight"], text[static_cast<std::size_t>(token)] * N * N + i * N + j);
        for (Index c = 0; c < C; ++c) number += at(p["s_emb_x.weight"], (i * N + j) * C + c) * at(e, token * C + c);
        sum += at(asked, i) * number;
      }
      answered.push_back(sum);
    }
    for (Index f = 0; f < F; ++f) {
      double k = 0, scale = at(p["s0"], f);
      for (Index c = 0; c < C; ++c) {
        const double now = at(x, token * C + c);
        const double last = token % of.time == 0 ? at(before, token / of.time * C + c) : at(x, (token - 1) * C + c);
        k += at(p["key.weight"], f * C + c) * (now + (last - now) * at(p["x_k"], c));
      }
      for (Index j = 0; j < N; ++j) scale += at(answered, j) * at(p["s2"], j * F + f);
      hidden.push_back(std::max(k, 0.0) * std::max(k, 0.0) * scale);
    }
    for (Index c = 0; c < C; ++c) {
      double sum = 0;
      for (Index f = 0; f < F; ++f) sum += at(p["value.weight"], c * F + f) * at(hidden, f);
      y.push_back(sum);
    }
  }
  return y;
}

/// The numbers of the tokens [begin, end) of every sequence.
template <class T>
std::vector<T> part_of(const std::vector<T>& all, const Case& of, Index begin, Index end) {
  const Index per_token = std::ssize(all) / of.tokens();
  std::vector<T> part;
  for (Index b = 0; b < of.batch; ++b) {
    const auto from = all.begin() + b * of.time * per_token;
    part.insert(part.end(), from + begin * per_token, from + end * per_token);
  }
  return part;
}

template <class T>
std::vector<T> as(const std::vector<double>& numbers) {
  return std::vector<T>(numbers.begin(), numbers.end());
}

/// Runs a block forwards and backwards, and returns dx.
template <class T, class Block>
std::vector<T> pass_back(const Case& of, Block& block) {
  block.embedding(of.text(), of.embedding());
  return block.forward_and_backward(as<T>(of.x()), of.time, as<T>(of.dy()),
                                    [&](const std::string&) { return of.dlast(); });
}

template <class S>
using Shifting = Layer<TokenShift<S, Reference>, DeepEmbed<S, Reference>>;
template <class S>
using Twice = Stack<Chain<Shifting<S>, Layer<TokenShift<S, Reference>, ChannelMix<V7, S, Reference>>, Shifting<S>>>;
template <class S>
using Alone = DeepEmbed<S, Reference>;

template <template <class> class BlockOf, class P = Keep>
void check_laws(Index depth) {
  std::uint64_t seed = 1;
  for (const Index width : {1, 7, 19}) {
    for (const Index time : {1, 2, 21}) {
      CAPTURE(width);
      CAPTURE(time);
      const ModelSizes sizes{
          .vocab = vocab, .width = width, .depth = depth, .ffn = 2 * width + 1, .ranks = config::small_ranks};
      CHECK(adjoint_defect<BlockOf, P>(sizes, {.time = time, .seed = seed++}) < 1e-12);
      if (time > 1) CHECK(split_defect<BlockOf<double>, P>(sizes, {.time = time, .seed = seed}, time / 2) < 1e-12);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the channel mix of RWKV-7a is its formula", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const Case& of : cases) {
    CAPTURE(of.width);
    auto block = block_of<T>(of, of.batch, C::backend(), of.before());
    block.embedding(of.text(), of.embedding());
    const auto y = block.forward(as<T>(of.x()), of.batch, of.time);
    CHECK(golden::relative_error(y, formula(of)) < (std::is_same_v<T, double> ? 1e-14 : 1e-5));
    CHECK(block.state("shift") == part_of(as<T>(of.x()), of, of.time - 1, of.time));
  }
}

TEST_CASE_TEMPLATE("a sequence of it equals its steps, and a batch its sequences", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const bool same_bits = host_reaches<typename C::Backend>;
  const auto agree = [&](const std::vector<T>& a, const std::vector<T>& b) {
    return same_bits ? a == b : golden::relative_error(a, b) < 1e-6;
  };
  for (const Case& of : cases) {
    CAPTURE(of.width);
    const auto whole_of = [&](const Case& part, const std::vector<double>& x, const std::vector<double>& e,
                              const std::vector<Token>& text, const std::vector<double>& before) {
      auto block = block_of<T>(part, part.batch, C::backend(), before);
      block.embedding(text, e);
      return block.forward(as<T>(x), part.batch, part.time);
    };
    const auto whole = whole_of(of, of.x(), of.embedding(), of.text(), of.before());
    auto stepped = block_of<T>(of, of.batch, C::backend(), of.before());
    for (Index t = 0; t < of.time; ++t) {
      const auto now = [&](const auto& all) { return part_of(all, of, t, t + 1); };
      stepped.embedding(now(of.text()), now(of.embedding()));
      CHECK(agree(stepped.forward(as<T>(now(of.x())), of.batch, 1), now(whole)));
    }
    for (Index b = 0; b < of.batch; ++b) {
      Case one = of;
      one.batch = 1;
      const auto own = [&](const auto& all) {
        const Index count = std::ssize(all) / of.batch;
        return std::vector(all.begin() + b * count, all.begin() + (b + 1) * count);
      };
      CHECK(agree(whole_of(one, own(of.x()), own(of.embedding()), own(of.text()), own(of.before())), own(whole)));
    }
  }
}

TEST_CASE_TEMPLATE("its gradients are those in double", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const double limit = std::is_same_v<T, double> ? 1e-13 : 2e-5;
  for (const Case& of : cases) {
    CAPTURE(of.width);
    auto block = block_of<T>(of, of.batch, C::backend(), of.before());
    auto exact = block_of<double>(of, of.batch, Reference(), of.before());
    CHECK(golden::relative_error(pass_back<T>(of, block), pass_back<double>(of, exact)) < limit);
    CHECK(golden::relative_error(block.state_gradient("shift"), exact.state_gradient("shift")) < limit);
    CHECK(golden::relative_error(block.embedding_cotangent(), exact.embedding_cotangent()) < limit);
    for (std::size_t i = 0; i < exact.gradients().size(); ++i) {
      CAPTURE(exact.gradients()[i].first.name);
      CHECK(golden::relative_error(block.gradients()[i].second, exact.gradients()[i].second) < limit);
    }
  }
}

TEST_CASE("its backward pass is the adjoint of its forward pass, alone and in layers, whatever they keep") {
  check_laws<Alone>(1);
  check_laws<Shifting>(1);
  check_laws<Twice>(6);
  check_laws<Twice, Recompute>(6);
}

TEST_CASE("it needs a vocabulary") {
  CHECK_THROWS_WITH_AS((DeepEmbed<float, Cpu>({.width = 8})),
                       "rwkv: DeepEmbed has a matrix for every token, so its sizes need a vocabulary", Error);
}
