/// Oracle: dual numbers, exact to rounding.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>
#include <rwkv/check/adjoint.hpp>

#include <set>
#include <string>

#include "../gates.hpp"
#include "../versions.hpp"

using namespace rwkv;

namespace {

template <class S>
using Shift = TokenShift<S, Reference>;
template <class S>
using Norm = LayerNorm<S, Reference>;
template <class S>
using Gated = CellMix<config::LeakyGate, S, Reference>;
template <class S>
using Scanned = CellMix<config::ScannedGate, S, Reference>;
template <class S>
using Attending = CellMix<config::Attention, S, Reference>;

template <template <class> class BlockOf>
void check_adjoint() {
  std::uint64_t seed = 1;
  for (const Index width : {1, 7, 18}) {
    for (const Index time : {1, 2, 65, 130}) {
      for (const Index before : {0, 3}) {
        CAPTURE(width);
        CAPTURE(time);
        CAPTURE(before);
        CHECK(adjoint_defect<BlockOf>({.width = width,
                                       .head_size = width == 18 ? 6 : width,
                                       .ffn = 2 * width + 1,
                                       .ranks = config::small_ranks},
                                      {.batch = 2, .time = time, .before = before, .seed = seed++}) < 1e-12);
      }
    }
  }
}

}  // namespace

TEST_CASE("every block's backward is the adjoint of its forward") {
  config::each_version([&]<class V>() {
    check_adjoint<config::BlocksOf<V, Reference>::template Time>();
    check_adjoint<config::BlocksOf<V, Reference>::template Channel>();
  });
  check_adjoint<Shift>();
  check_adjoint<Norm>();
}

TEST_CASE("around a user's cell as well, with composition and without, and around a row cell") {
  check_adjoint<Gated>();
  check_adjoint<Scanned>();
  check_adjoint<Attending>();
}

TEST_CASE("the adjoint of a step is its derivative") {
  for (const double spread : {0.1, 2.0, 30.0, 80.0}) {
    CAPTURE(spread);
    CHECK(cell_adjoint_defect<config::ChannelCell>(3, spread) < 1e-13);
    CHECK(cell_adjoint_defect<config::LeakyGate>(4, spread) < 1e-13);
    CHECK(cell_adjoint_defect<config::ScannedGate>(5, spread) < 1e-13);
  }
}

namespace {

/// Cells and blocks with a faulty backward pass.
struct ForgetfulGate : config::LeakyGate {
  template <class R>
  RWKV_HD static void step_back(const R (&before)[1], const R (&x)[2], R dy, R (&dstate)[1], R (&dx)[2]) {
    dstate[0] = R(0);
    derived_step_back<LeakyGate>(before, x, dy, dstate, dx);
  }
};

template <class S>
struct WrongShift : TokenShift<S, Reference> {
  using Base = TokenShift<S, Reference>;
  using Base::Base;
  void backward(Reference& be, Arena ws, Seq<const S> dy, const typename Base::Tape& tape,
                const typename Base::State& first, const typename Base::State& dlast, Seq<S> dx, WrongShift& grad,
                typename Base::State& dfirst) const {
    Base::backward(be, ws, dy, tape, first, dlast, dx, grad, dfirst);
    dfirst.shift(0, 0) *= 1.0001;
  }
};

template <class S>
using RightMix = ChannelMix<config::AnyVersion, S, Reference>;

}  // namespace

TEST_CASE("a wrong adjoint shows") {
  CHECK(cell_adjoint_defect<ForgetfulGate>() > 1e-3);
  CHECK(adjoint_defect<WrongShift>({.width = 3}) > 1e-7);
}

TEST_CASE("a wrong adjoint shows by its tensor") {
  const auto defects = adjoint_defects<WrongShift>({.width = 3});
  REQUIRE(defects.size() > 1);
  CHECK(defects[0].name == "state.shift");
  CHECK(defects[0].defect > 1e-7);
  for (std::size_t i = 1; i < defects.size(); ++i) CHECK(defects[i].defect < 1e-13);

  const auto right = adjoint_defects<RightMix>({.width = 3});
  std::set<std::string> names;
  for (const auto& [name, defect] : right) {
    CHECK(names.insert(name).second);
    CHECK(defect < 1e-12);
  }
  CHECK(names.contains("x"));
  CHECK(names.contains("key.weight"));
  CHECK(names.contains("state.shift"));
}
