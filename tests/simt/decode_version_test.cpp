/// Layers of versions that a user wrote, fused or not. Oracle: the generic path in double.
#include <doctest/doctest.h>

#include "decode.hpp"

using namespace decode;

namespace {

/// A version that a user might write: every part differs from RWKV-4.
struct Own : Fused {
  struct Decay {
    template <class R>
    RWKV_HD void map(R x, R& y) const {
      y = sigmoid(x);
    }
  };
  struct Cell {
    static constexpr auto inputs = rwkv::Inputs{"decay", "bonus", "key", "value"};
    static constexpr int state_size = 2;
    template <class R>
    RWKV_HD static void init(R (&state)[2]) {
      state[0] = R(0);
      state[1] = R(1);
    }
    template <class R>
    RWKV_HD static R step(R (&state)[2], const R (&x)[4]) {
      const R y = state[0] + x[1] * x[3];
      state[0] = x[0] * state[0] + sigmoid(x[2]) * x[3];
      state[1] = R(0.5) * state[1] + state[0];
      return y + state[1];
    }
  };
  struct Gate {
    template <class R>
    RWKV_HD void map(R r, R x, R& y) const {
      y = (r + R(1)) * x;
    }
  };
  struct Activation {
    template <class R>
    RWKV_HD R operator()(R x) const {
      return x * sigmoid(x);
    }
  };
  using Mix = rwkv::MixPrevious;
};

/// A gate with a stage. It is not a function of one channel, so a layer with it is not fused.
struct Summing : Fused {
  struct Gate {
    using stages = rwkv::Stages<1>;
    template <class R, class... Rest>
    RWKV_HD void reduce(rwkv::Stage<0>, const R*, R* terms, R r, const Rest&...) const {
      terms[0] = r;
    }
    template <class R>
    RWKV_HD void map(const R* totals, R r, R x, R& y) const {
      y = (r + totals[0]) * x;
    }
  };
};

}  // namespace

TEST_CASE("simt: a layer at one token is that of the version") {
  for (const Index batch : {1, 3, 10}) {
    check_layer<Own, float>(40, 72, batch, batch == 3);
  }
  check_layer<Own, float, rwkv::Cuda>(40, 72, 10, false);
}

TEST_CASE("simt: a layer that cannot be fused takes the generic path") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 16, .depth = 1, .head_size = 0, .ffn = 20};
  LayerRunner<LayerOf<Summing, float, Gpu>> gpu(sizes, 2);
  LayerRunner<LayerOf<Summing, double, rwkv::Reference>> reference(sizes, 2);
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto x = tokens(2, 16, step);
    CHECK(distance(gpu.step(x, false), reference.step(x, false)) < 1e-5);
  }
}
