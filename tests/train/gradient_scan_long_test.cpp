/// Oracle: the gradient of the same model with the sequential schedule.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/train/gradient.hpp>

#include "../model/live.hpp"
#include "../numbers.hpp"

using namespace rwkv;
using config::live;
using config::Scanning;
using config::some_tokens;

namespace {

/// The gradient of every parameter and of the initial state after two batches in a row.
template <class V>
std::vector<std::vector<double>> gradients(int threads) {
  using Net = LanguageModel<V, double, Cpu>;
  const ModelSizes sizes{.vocab = 61, .width = 45, .depth = 2, .ffn = 83};
  const Index batch = 2, length = 300;  // longer than a chunk of the scan, 128
  auto net = live<Net>(sizes, Cpu(threads));
  Gradient<Net> gradient(net, {.batch = batch, .length = length});
  for (const std::uint64_t seed : {1u, 2u}) {
    gradient.add(some_tokens(batch * length, sizes.vocab, seed), some_tokens(batch * length, sizes.vocab, seed + 5));
  }
  std::vector<std::vector<double>> all;
  for (const auto& parameter : gradient.parameters()) {
    all.emplace_back(parameter.gradient.begin(), parameter.gradient.end());
  }
  const auto state = gradient.state_gradient().numbers();
  all.emplace_back(state.data, state.data + state.cols);
  return all;
}

}  // namespace

TEST_CASE("the gradient of a scanning model is that of the sequence, with the same bits on any number of threads") {
  const auto want = gradients<config::AnyVersion>(1);
  const auto got = gradients<Scanning>(1);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(golden::relative_error(got[i], want[i]) < 1e-10);
  }
  for (const int threads : {2, 3}) CHECK(gradients<Scanning>(threads) == got);
}
