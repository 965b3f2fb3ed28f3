#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "rwkv/backend/rows_back.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/heads.hpp"
#include "rwkv/block/start.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/initial_state.hpp"
#include "rwkv/op/linear.hpp"
#include "rwkv/op/mix.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
/// The names of a cell's inputs, then of its shared vectors.
template <class C>
consteval auto names_of_inputs() {
  std::array<std::string_view, input_count<C> + shared_count<C>> names;
  [[maybe_unused]] const auto vectors = std::copy(C::inputs.begin(), C::inputs.end(), names.begin());
  if constexpr (RowCell<C>) std::copy(C::shared.begin(), C::shared.end(), vectors);
  return names;
}
}  // namespace detail

/// A time mix around any cell. The author writes the cell; the block adds token shift, one projection for each named
/// input of the cell, a receptance gate and the output projection:
///
///     x_i = W_i mix_i(x) for every input i,   y = W_o (sigmoid(W_r mix_r(x)) * cell(x_0, x_1, ...))
///
/// The shared vectors of a row cell are inputs as well, after the others. Tensors are named after the inputs:
/// `time_mix_key`, `key.weight`. The heads of a row cell have `head_size` channels, 64 unless the sizes say otherwise; no
/// tensor of the block holds that number, so a model from a file has the heads of its first layer's tensors, or of 64.
template <class Cell, class S, class B, class D>
class CellMix {
  static consteval bool inputs_are_named_apart() {
    for (const std::string_view name : detail::names_of_inputs<Cell>()) {
      if (name == "receptance" || name == "output") return false;
    }
    return true;
  }
  static_assert(explain_block_parameters<S, B>() && explain_recurrence<Cell>());
  static_assert(inputs_are_named_apart(),
                "rwkv: an input or shared vector of a cell in CellMix cannot be named receptance or output, the block "
                "has those itself");

 public:
  using backend = B;
  using compute = compute_t<S>;
  using storage = storage_t<S>;
  static constexpr Index Width = D::static_width;
  /// Names of the inputs and shared vectors of the cell, in order.
  static constexpr auto names = detail::names_of_inputs<Cell>();
  /// How many they are.
  static constexpr std::size_t inputs = names.size();

  struct Params {
    std::array<Channels<S, Width>, inputs> mixes;    ///< [width]
    std::array<Weights<S, Width>, inputs> matrices;  ///< [width, width]
    Channels<S, Width> mix_receptance;               ///< [width]
    Weights<S, Width> receptance, output;            ///< [width, width]
  };
  struct State {
    Mat<compute> shift;  ///< [batch, width], the last x
    Mat<compute> cell;   ///< [batch, state_size * width], of a row cell [batch, head_size * width]
  };
  /// Intermediate results of forward that backward reads.
  struct Tape {
    Seq<const compute, Width> x;
    std::array<Seq<compute, Width>, inputs> mixed, projected;
    Seq<compute, Width> xr, r, out, gated;
  };

  D dims;
  Params params{};

  explicit CellMix(const ModelSizes& sizes, Index = 0)
      : dims(D::from(RowCell<Cell> ? detail::with_heads<D>(sizes) : sizes)) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y must not overlap x
  /// Cost      inputs + 2 products of width x width; scratch of 2 inputs + 4 sequences
  void forward(B& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    Tape tape;
    forward(be, ws, x, state, y, tape);
  }
  void forward(B& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y, Tape& tape) const {
    tape.x = x;
    for (auto& sequence : tape.mixed) sequence = ws.like<compute>(x, dims.width);
    for (auto& sequence : tape.projected) sequence = ws.like<compute>(x, dims.width);
    for (auto* sequence : {&tape.xr, &tape.r, &tape.out, &tape.gated}) *sequence = ws.like<compute>(x, dims.width);
    with_inputs([&](auto... nth) {
      be.rows(Mix<MixCurrent>{}, arg::in(x), arg::prev(x, state.shift), arg::chan(params.mixes[nth])...,
              arg::chan(params.mix_receptance), arg::out(tape.mixed[nth])..., arg::out(tape.xr));
      remember_last(be, x, state.shift);
      be.gemm(linear(tape.mixed[nth], params.matrices[nth], tape.projected[nth])...,
              linear(tape.xr, params.receptance, tape.r));
      be.recur(ws, Auto{}, Cell{}, lane_state(), state.cell, given(nth, tape.projected[nth])..., arg::out(tape.out));
    });
    be.rows(SigmoidGate{}, arg::in(tape.r), arg::in(tape.out), arg::out(tape.gated));
    be.gemm(linear(tape.gated, params.output, y));
  }

  /// The adjoint, see Block; scratch of 2 inputs + 4 sequences.
  void backward(B& be, Arena ws, Seq<const compute, Width> dy, const Tape& tape, const State& first, const State& dlast,
                Seq<compute, Width> dx, CellMix& grad, State& dfirst) const {
    auto dgated = ws.like<compute>(dy, dims.width), dr = ws.like<compute>(dy, dims.width),
         dout = ws.like<compute>(dy, dims.width), dxr = ws.like<compute>(dy, dims.width);
    std::array<Seq<compute, Width>, inputs> dmixed, dprojected;
    for (auto& sequence : dmixed) sequence = ws.like<compute>(dy, dims.width);
    for (auto& sequence : dprojected) sequence = ws.like<compute>(dy, dims.width);
    be.gemm(linear_back(dy, params.output, dgated), linear_back_weights(dy, tape.gated, grad.params.output));
    rows_back(be, ws, SigmoidGate{}, arg::in(tape.r), arg::in(tape.out), arg::cot(dgated), arg::out(dr),
              arg::out(dout));
    with_inputs([&](auto... nth) {
      be.recur_back(ws, Auto{}, Cell{}, lane_state(), Mat<const compute>(first.cell), Mat<const compute>(dlast.cell),
                    dfirst.cell, given(nth, tape.projected[nth])..., arg::cot(dout), arg::out(dprojected[nth])...);
      be.gemm(linear_back(dprojected[nth], params.matrices[nth], dmixed[nth])...,
              linear_back_weights(dprojected[nth], tape.mixed[nth], grad.params.matrices[nth])...,
              linear_back(dr, params.receptance, dxr), linear_back_weights(dr, tape.xr, grad.params.receptance));
      rows_back(be, ws, Mix<MixCurrent>{}, arg::in(tape.x), arg::prev(tape.x, first.shift),
                arg::chan(params.mixes[nth])..., arg::chan(params.mix_receptance), arg::cot(dmixed[nth])...,
                arg::cot(dxr), arg::out(dx), arg::back(dx, dlast.shift, dfirst.shift),
                arg::sum(grad.params.mixes[nth])..., arg::sum(grad.params.mix_receptance));
    });
  }

  void reset(B& be, State& state) const {
    be.fill(state.shift, compute(0));
    reset_state<Cell>(be, state.cell);
  }

  /// For training the initial state: see op/initial_state.hpp.
  void begin_tuning(B& be, State& state) const {
    reset(be, state);
    rwkv::begin_tuning<Cell>(be, state.cell);
  }
  void make_valid(B& be, State& state) const { rwkv::make_valid<Cell>(be, state.cell); }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    const auto show = [&](const std::string& name, Axes axes, auto& view, const auto&... entries) {
      const auto row = field("", 0, axes, entries...);
      visitor(TensorSpec(row.traits, prefix + name, axes, self.dims), view);
    };
    constexpr Axes channel = shape(Axis::one, Axis::one, Axis::width), square = shape(Axis::width, Axis::width);
    constexpr auto unit = row::live(0, 1);
    auto& p = self.params;
    for (std::size_t i = 0; i < inputs; ++i) {
      const std::string name(names[i]);
      show("time_mix_" + name, channel, p.mixes[i], start::mix(), unit);
      show(name + ".weight", square, p.matrices[i], start::matrix(1));
    }
    show("time_mix_receptance", channel, p.mix_receptance, start::mix(0.5), unit);
    show("receptance.weight", square, p.receptance, start::matrix(1));
    show("output.weight", square, p.output, start::matrix(0));
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    visitor(prefix + "shift", Index(dims.width), state.shift);
    visitor(prefix + "cell", lane_state() * dims.width, state.cell);
  }

 private:
  /// The numbers of state of a lane: in a row cell the head size.
  auto lane_state() const {
    if constexpr (RowCell<Cell>) return detail::head_extent(dims);
    else return Extent<Cell::state_size>{};
  }

  /// Calls f(0, 1, ...) with the indices of all inputs, as constants.
  template <class F>
  static void with_inputs(const F& f) {
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) { f(std::integral_constant<std::size_t, Nth>{}...); }
    (std::make_index_sequence<inputs>());
  }

  /// Input Nth as an operand of the recurrence.
  template <std::size_t Nth>
  static auto given(std::integral_constant<std::size_t, Nth>, Seq<const compute, Width> x) {
    if constexpr (Nth < input_count<Cell>) return arg::in(x);
    else return arg::shared(arg::in(x));
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
