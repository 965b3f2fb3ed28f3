/// Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../gates.hpp"

using namespace rwkv;

namespace {

/// A variant of RWKV-4 with other pointwise parts.
struct SoftSquare {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return exp(x * R(0.25));
  }
  template <class R>
  RWKV_HD R slope(R y) const {
    return R(0.25) * y;
  }
};
struct Variant : V4 {
  using Mix = MixPrevious;
  using Activation = SoftSquare;
  using Schedule = Scan;
};

template <class V, class S, class B = Reference>
using Plain = Layer<TimeMix<V, S, B>, ChannelMix<V, S, B>>;
template <class S>
using OneLayer = Plain<V4, S>;
template <class S>
using LayerV5 = Plain<V5, S>;
template <class S>
using VariantLayer = Plain<Variant, S>;
template <class S>
using Mixed =
    Chain<Plain<V4, S>, Layer<CellMix<config::LeakyGate, S, Reference>, TokenShift<S, Reference>>, Plain<Variant, S>>;
template <class S>
using AttendingLayer = Layer<CellMix<config::Attention, S, Reference>, ChannelMix<V4, S, Reference>>;
template <class S>
using Repeated = Stack<Chain<Plain<V4, S>, Plain<V5, S>, Plain<V4, S>>>;

template <template <class> class BlockOf, class P = Keep>
void check_adjoint(Index depth = 1) {
  std::uint64_t seed = 1;
  for (const Index width : {1, 7, 19}) {
    for (const Index time : {1, 2, 65, 130}) {
      CAPTURE(width);
      CAPTURE(time);
      CHECK(adjoint_defect<BlockOf, P>({.width = width, .depth = depth, .head_size = width, .ffn = 2 * width + 1},
                                       {.batch = 2, .time = time, .seed = seed++}) < 1e-12);
    }
  }
}

}  // namespace

TEST_CASE("a layer's backward is the adjoint of its forward, whatever it keeps") {
  check_adjoint<OneLayer>();
  check_adjoint<OneLayer, Recompute>();
  check_adjoint<LayerV5>();
  check_adjoint<LayerV5, Recompute>();
}

TEST_CASE("so is that of a variant of the version") { check_adjoint<VariantLayer>(); }

TEST_CASE("and that of a layer around a user's row cell") { check_adjoint<AttendingLayer>(); }

TEST_CASE("and that of layers one after the other") {
  check_adjoint<Mixed>();
  check_adjoint<Repeated, Recompute>(3);
}
