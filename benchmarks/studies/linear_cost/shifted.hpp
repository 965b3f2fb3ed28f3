#pragma once
/// A block behind a token shift, as all versions of RWKV have it; for `../recall`.
#include <string>

#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/op/mix.hpp"

namespace linear_cost {

using rwkv::Arena;
using rwkv::Index;
using rwkv::Mat;
using rwkv::Seq;
namespace arg = rwkv::arg;

/// The block K, which reads each token mixed with the one before it:
///
///     y = K(x'),   x'_t = x_t m + x_{t-1} (1 - m)
template <class K>
class Shifted {
 public:
  using backend = typename K::backend;
  using compute = typename K::compute;
  using storage = typename K::storage;
  static constexpr Index Width = K::Width;

  struct Params {
    rwkv::Channels<storage, Width> mix;

    static constexpr auto fields() {
      using rwkv::Axis;
      return rwkv::table(rwkv::field("time_mix", &Params::mix, rwkv::shape(Axis::one, Axis::one, Axis::width),
                                     rwkv::start::mix(0.5), rwkv::row::live(0, 1)));
    }
  };
  struct State {
    Mat<compute> shift;  // [batch, width], the last x
    typename K::State inner;
  };
  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    typename K::Tape inner;
  };

  K inner;
  Params params{};

  explicit Shifted(const rwkv::ModelSizes& sizes, Index layer = 0) : inner(sizes, layer) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      that of K, and scratch of one sequence
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    const auto shifted = mixed(be, ws, x, state);
    inner.forward(be, ws, shifted, state.inner, y);
  }
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               Tape& tape) const {
    tape.x = x;
    const auto shifted = mixed(be, ws, x, state);
    inner.forward(be, ws, shifted, state.inner, y, tape.inner);
  }

  /// The adjoint, see rwkv::Block; scratch of one sequence beside that of K.
  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, Shifted& grad, State& dfirst) const {
    const auto dmixed = ws.like<compute>(dy, inner.dims.width);
    inner.backward(be, ws, dy, tape.inner, first.inner, dlast.inner, dmixed, grad.inner, dfirst.inner);
    rows_back(be, ws, rwkv::Mix<rwkv::MixCurrent>{}, arg::in(tape.x), arg::prev(tape.x, first.shift),
              arg::chan(params.mix), arg::cot(dmixed), arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift),
              arg::sum(grad.params.mix));
  }

  void reset(backend& be, State& state) const {
    be.fill(state.shift, compute(0));
    inner.reset(be, state.inner);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    visit_fields(self.params, self.inner.dims, prefix, visitor);
    K::visit(self.inner, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(inner.dims.width), state.shift);
    inner.visit_state(state.inner, prefix, visitor);
  }

 private:
  Seq<const compute, Width> mixed(backend& be, Arena& ws, Seq<const compute, Width> x, State& state) const {
    const auto y = ws.like<compute>(x, inner.dims.width);
    be.rows(rwkv::Mix<rwkv::MixCurrent>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mix), arg::out(y));
    remember_last(be, x, state.shift);
    return y;
  }
};

}  // namespace linear_cost
