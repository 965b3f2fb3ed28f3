// Learning rates: closed forms, the recipe of RWKV-4, and settings that make no schedule.
#include "rwkv/train/schedule.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "../golden.hpp"

using rwkv::Error;
using rwkv::LearningRate;

namespace {

doctest::Approx near(double value) { return doctest::Approx(value).epsilon(1e-15); }

}  // namespace

TEST_CASE("learning rate: closed forms of every decay") {
  LearningRate rate{.peak = 8, .final = 2, .steps = 4, .warmup = 0, .decay = LearningRate::linear};
  CHECK(rate(0) == near(6.5));
  CHECK(rate(1) == near(5));
  CHECK(rate(2) == near(3.5));
  rate.decay = LearningRate::cosine;
  CHECK(rate(0) == near(5 + 3 * std::sqrt(0.5)));
  CHECK(rate(1) == near(5));
  CHECK(rate(2) == near(5 - 3 * std::sqrt(0.5)));
  rate.decay = LearningRate::exponential;
  CHECK(rate(0) == near(8 / std::sqrt(2)));
  CHECK(rate(1) == near(4));
  CHECK(rate(2) == near(4 / std::sqrt(2)));
  for (const LearningRate::Decay decay : {LearningRate::linear, LearningRate::cosine, LearningRate::exponential}) {
    rate.decay = decay;
    for (const rwkv::Index step : {3, 4, 5, 1000000}) CHECK(rate(step) == 2);
  }
  rate.decay = LearningRate::constant;
  for (const rwkv::Index step : {0, 3, 4, 1000000}) CHECK(rate(step) == 8);
}

TEST_CASE("learning rate: warm-up") {
  for (const LearningRate::Decay decay :
       {LearningRate::constant, LearningRate::linear, LearningRate::cosine, LearningRate::exponential}) {
    const LearningRate rate{.peak = 1, .final = 0.25, .steps = 6, .warmup = 4, .start = 0.2, .decay = decay};
    CHECK(rate(0) == near(0.2));
    CHECK(rate(1) == near(0.4));
    CHECK(rate(2) == near(0.6));
    CHECK(rate(3) == near(0.8));
    CHECK(rate(4) == near(decay == LearningRate::constant ? 1 : decay == LearningRate::exponential ? 0.5 : 0.625));
    CHECK(rate(5) == near(decay == LearningRate::constant ? 1 : 0.25));
  }
  const LearningRate all{.peak = 1, .final = 0, .steps = 2, .warmup = 2, .start = 0};
  CHECK(all(0) == 0);
  CHECK(all(1) == near(0.5));
  CHECK(all(2) == 0);
  const LearningRate one{.peak = 1, .final = 0.5, .steps = 1};
  CHECK(one(0) == 0.5);
}

TEST_CASE("learning rate: the recipe of RWKV-4") {
  const auto lr = golden::File(golden::folder() / "training" / "rwkv4-recipe-20steps.safetensors")["lr"].values;
  const LearningRate rate{
      .peak = 2e-3, .final = 2e-4, .steps = 20, .warmup = 5, .start = 0.2, .decay = LearningRate::exponential};
  REQUIRE(lr.size() == 20);
  for (std::size_t n = 0; n < lr.size(); ++n) {
    CAPTURE(n);
    CHECK(std::abs(rate(static_cast<rwkv::Index>(n)) - lr[n]) <= 4e-16 * lr[n]);
  }
}

TEST_CASE("learning rate: settings that make no schedule are refused in a sentence") {
  const LearningRate good{.peak = 1, .final = 0.1, .steps = 10, .warmup = 5, .decay = LearningRate::exponential};
  CHECK_NOTHROW(good.check());
  const auto refused = [&](auto change, const char* sentence) {
    LearningRate rate = good;
    change(rate);
    CHECK_THROWS_WITH_AS(rate.check(), sentence, Error);
    CHECK_THROWS_WITH_AS(rate(0), sentence, Error);
  };
  refused([](LearningRate& r) { r.peak = 0; }, "rwkv: learning rate: the peak must be above zero, not 0");
  refused([](LearningRate& r) { r.peak = std::numeric_limits<double>::infinity(); },
          "rwkv: learning rate: the peak must be above zero, not inf");
  refused([](LearningRate& r) { r.warmup = -1; }, "rwkv: learning rate: the warm-up must not have -1 steps");
  refused([](LearningRate& r) { r.start = 1.5; },
          "rwkv: learning rate: the warm-up must start from a part of the peak between 0 and 1, not 1.5");
  refused([](LearningRate& r) { r.steps = 0; },
          "rwkv: learning rate: a decay needs a number of steps above zero, not 0");
  refused([](LearningRate& r) { r.warmup = 11; }, "rwkv: learning rate: a warm-up of 11 steps does not fit into 10");
  refused([](LearningRate& r) { r.final = -0.5; },
          "rwkv: learning rate: the final rate must be between zero and the peak of 1, not -0.5");
  refused([](LearningRate& r) { r.final = 2; },
          "rwkv: learning rate: the final rate must be between zero and the peak of 1, not 2");
  refused([](LearningRate& r) { r.final = std::nan(""); },
          "rwkv: learning rate: the final rate must be between zero and the peak of 1, not nan");
  refused([](LearningRate& r) { r.final = 0; }, "rwkv: learning rate: an exponential decay never reaches zero");
  CHECK_THROWS_WITH_AS(good(-1), "rwkv: learning rate: there is no step -1", Error);
  const LearningRate constant{.peak = 1, .final = 2, .decay = LearningRate::constant};
  CHECK(constant(7) == 1);
}
