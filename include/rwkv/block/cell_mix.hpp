#pragma once
#include <algorithm>
#include <array>
#include <utility>

#include "rwkv/block/concept.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/linear.hpp"
#include "rwkv/op/mix.hpp"
#include "rwkv/op/recurrence.hpp"

namespace rwkv::inline RWKV_ABI {

/// A time mix around any channel recurrence: the author writes the cell, the block supplies token shift, one projection
/// for each input the cell names, a receptance gate and the output projection:
///
///     x_i = W_i mix_i(x) for every input i,   y = W_o (sigmoid(W_r mix_r(x)) * cell(x_0, x_1, ...))
///
/// Tensors are named after the inputs: `time_mix_key`, `key.weight`.
template <class Cell, class S, class B, class D = Dims<>>
class CellMix {
  static consteval bool inputs_are_named_apart() {
    return std::ranges::none_of(Cell::inputs, [](auto name) { return name == "receptance" || name == "output"; });
  }
  static_assert(explain_block_parameters<S, B>() && explain_recurrence<Cell>());
  static_assert(!RowCell<Cell>,
                "rwkv: CellMix runs channel cells; a row cell needs a block that makes its shared vectors");
  static_assert(inputs_are_named_apart(),
                "rwkv: an input of a cell in CellMix cannot be named receptance or output, the block has those itself");

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  static constexpr std::size_t inputs = input_count<Cell>;

  struct Params {
    std::array<Vec<storage, Width>, inputs> mixes;     // [width]
    std::array<Mat<storage, Width>, inputs> matrices;  // [width, width]
    Vec<storage, Width> mix_receptance;
    Mat<storage, Width> receptance, output;
  };
  struct State {
    Mat<compute> shift;  // [batch, width], the last x
    Mat<compute> cell;   // [batch, state_size * width]
  };

  D dims;
  Params params{};

  explicit CellMix(const ModelSizes& sizes, Index = 0) : dims(D::from(sizes)) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      inputs + 2 products of width x width; scratch of 2 inputs + 3 sequences
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    std::array<Seq<compute, Width>, inputs> mixed, projected;
    for (std::size_t i = 0; i < inputs; ++i) {
      mixed[i] = ws.like<compute>(x, dims.width);
      projected[i] = ws.like<compute>(x, dims.width);
      mix(be, x, state, params.mixes[i], mixed[i]);
    }
    auto xr = ws.like<compute>(x, dims.width), r = ws.like<compute>(x, dims.width),
         out = ws.like<compute>(x, dims.width);
    mix(be, x, state, params.mix_receptance, xr);
    remember_last(be, x, state.shift);
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
      be.gemm(linear(mixed[Nth], params.matrices[Nth], projected[Nth])..., linear(xr, params.receptance, r));
      be.recur(ws, Auto{}, Cell{}, Extent<Cell::state_size>{}, state.cell, arg::in(projected[Nth])..., arg::out(out));
    }
    (std::make_index_sequence<inputs>());
    be.rows(SigmoidGate{}, arg::in(r), arg::in(out), arg::out(r));
    be.gemm(linear(r, params.output, y));
  }

  void reset(B& be, State& state) const {
    be.fill(state.shift, compute(0));
    reset_state<Cell>(be, state.cell);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    auto& p = self.params;
    const Shape channel = shape(Axis::one, Axis::one, Axis::width)(self.dims);
    const Shape square = shape(Axis::width, Axis::width)(self.dims);
    for (std::size_t i = 0; i < inputs; ++i) {
      const std::string name(Cell::inputs[i]);
      visitor(TensorSpec{prefix + "time_mix_" + name, channel, Role::mix}, p.mixes[i]);
      visitor(TensorSpec{prefix + name + ".weight", square, Role::matrix}, p.matrices[i]);
    }
    visitor(TensorSpec{prefix + "time_mix_receptance", channel, Role::mix, {.scale = 0.5}}, p.mix_receptance);
    visitor(TensorSpec{prefix + "receptance.weight", square, Role::matrix}, p.receptance);
    visitor(TensorSpec{prefix + "output.weight", square, Role::matrix, {.scale = 0}}, p.output);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(dims.width), state.shift);
    visitor(prefix + "cell", Cell::state_size * dims.width, state.cell);
  }

 private:
  static void mix(B& be, Seq<const compute, Width> x, const State& state, Vec<storage, Width> weights,
                  Seq<compute, Width> y) {
    be.rows(Mix<MixCurrent>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(weights), arg::out(y));
  }
};

}  // namespace rwkv::inline RWKV_ABI
