/// Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include "../gates.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

/// A variant of a version with other pointwise parts.
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
struct Variant : config::AnyVersion {
  using Mix = MixPrevious;
  using Activation = SoftSquare;
  using Schedule = Scan;
};

template <class V, class S>
using Plain = typename config::BlocksOf<V, Reference>::template Layer<S>;
template <class S>
using VariantLayer = Plain<Variant, S>;
template <class S>
using Mixed = Chain<Plain<config::AnyVersion, S>,
                    Layer<CellMix<config::LeakyGate, S, Reference>, TokenShift<S, Reference>>, Plain<Variant, S>>;
template <class S>
using AttendingLayer = Layer<CellMix<config::Attention, S, Reference>, ChannelMix<config::AnyVersion, S, Reference>>;
template <class S>
using Repeated = Stack<Chain<Plain<config::AnyVersion, S>, Plain<V5, S>, Plain<config::AnyVersion, S>>>;

template <template <class> class BlockOf, class P = Keep>
void check_adjoint(Index depth = 1) {
  std::uint64_t seed = 1;
  for (const Index width : {1, 7, 19}) {
    for (const Index time : {1, 2, 65, 130}) {
      CAPTURE(width);
      CAPTURE(time);
      CHECK(
          adjoint_defect<BlockOf, P>(
              {.width = width, .depth = depth, .head_size = width, .ffn = 2 * width + 1, .ranks = config::small_ranks},
              {.batch = 2, .time = time, .seed = seed++}) < 1e-12);
    }
  }
}

}  // namespace

TEST_CASE("a layer's backward is the adjoint of its forward, whatever it keeps") {
  config::each_version([&]<class V>() {
    check_adjoint<config::BlocksOf<V, Reference>::template Layer>();
    check_adjoint<config::BlocksOf<V, Reference>::template Layer, Recompute>();
  });
}

TEST_CASE("so is that of a variant of the version") { check_adjoint<VariantLayer>(); }

TEST_CASE("and that of a layer around a user's row cell") { check_adjoint<AttendingLayer>(); }

TEST_CASE("and that of layers one after the other") {
  check_adjoint<Mixed>();
  check_adjoint<Repeated, Recompute>(3);
}
