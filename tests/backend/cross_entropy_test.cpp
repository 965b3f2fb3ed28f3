/// Oracle: the crossentropy golden; the reference backend in double.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <cmath>
#include <numeric>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

TEST_CASE_TEMPLATE("cross entropy and its gradients are those of the golden", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  const golden::File file(golden::folder() / "ops/crossentropy_b2_t3_v11.safetensors");
  const auto targets = file["in.targets"].as<Token>();
  const auto rows = std::ssize(targets);
  const double mean = 1 / static_cast<double>(rows);
  for (const bool wrap : {false, true}) {
    auto be = C::backend();
    Buffer<T> logits(file["in.logits"].values), losses(rows);
    be.cross_entropy(logits.mat(rows, 11), targets, {mean, wrap ? 1e-4 * mean : 0}, std::span(losses.numbers));
    const std::vector<double> loss{mean * std::accumulate(losses.numbers.begin(), losses.numbers.end(), 0.0)};
    CHECK(golden::error_ratio<T>(loss, file["out.loss"]) < 1);
    CHECK(golden::error_ratio<T>(logits.numbers, file[wrap ? "grad.logits_l2wrap" : "grad.logits"]) < 1);
  }
}

namespace {

/// The losses of random logits, and the gradients that replace the logits; every third position has no target.
template <class T>
struct CrossEntropy {
  Index rows, vocab;
  double size;
  Buffer<T> logits{rows * vocab}, losses{rows, T(-1)};
  std::vector<Token> targets{};

  template <class B>
  CrossEntropy& run(B be) {
    const auto u = [](std::uint64_t stream, Index i) {
      return Philox{.key = 8, .stream = stream}.block(static_cast<std::uint64_t>(i)).uniform_double(0);
    };
    for (Index i = 0; i < rows * vocab; ++i) logits[i] = static_cast<T>(static_cast<float>(size * (2 * u(1, i) - 1)));
    for (Index r = 0; r < rows; ++r) {
      targets.push_back(r % 3 == 2 ? no_target : static_cast<Token>(u(2, r) * static_cast<double>(vocab)));
    }
    be.cross_entropy(logits.mat(rows, vocab), targets, {0.5, 1e-3}, std::span(losses.numbers));
    return *this;
  }
};

}  // namespace

#ifndef RWKV_TEST_CUDA
TEST_CASE_TEMPLATE("cross entropy agrees with the reference at every size of logits", T, float, double) {
  const double limit = std::is_same_v<T, double> ? 1e-13 : 1e-5;
  for (const Index vocab : {1, 2, 7, 8, 33, 301}) {
    for (const double size : {0.0, 1.0, 100.0, 1e4}) {
      CAPTURE(vocab);
      CAPTURE(size);
      const auto want = CrossEntropy<double>{140, vocab, size}.run(Reference());
      const auto got = CrossEntropy<T>{140, vocab, size}.run(Cpu(1));
      CHECK(golden::relative_error(got.losses.numbers, want.losses.numbers) < limit);
      CHECK(golden::relative_error(got.logits.numbers, want.logits.numbers) < limit);
      for (const int threads : {2, 3, 5}) {
        const auto more = CrossEntropy<T>{140, vocab, size}.run(Cpu(threads));
        CHECK(more.losses.numbers == got.losses.numbers);
        CHECK(more.logits.numbers == got.logits.numbers);
      }
      for (Index r = 2; r < 140; r += 3) {
        CHECK(got.losses.numbers[static_cast<std::size_t>(r)] == 0);
        CHECK(got.logits.numbers[static_cast<std::size_t>(r * vocab)] == 0);
      }
    }
  }
}
#endif

TEST_CASE_TEMPLATE("the loss of a position keeps its digits under large logits", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  auto be = C::backend();
  for (const double offset : {-1e4, 0.0, 1e4}) {
    CAPTURE(offset);
    Buffer<T> logits(3, static_cast<T>(offset)), losses(1);
    const Token target[] = {1};
    be.cross_entropy(logits.mat(1, 3), target, {}, std::span(losses.numbers));
    CHECK(losses[0] == doctest::Approx(std::log(3.0)).epsilon(std::is_same_v<T, double> ? 1e-14 : 1e-6));
  }
}
