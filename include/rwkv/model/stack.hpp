#pragma once
#include <array>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/block/concept.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/each_layer.hpp"
#include "rwkv/model/tape_policy.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A layer or chain, repeated N times, as one block; when N is dyn, the model's depth sets the number.
template <class L, Index N>
class Stack {
  template <class T>
  using Repeated =
      std::conditional_t<N == dyn, std::vector<T>, std::array<T, static_cast<std::size_t>(N == dyn ? 0 : N)>>;

 public:
  using backend = typename L::backend;
  using compute = typename L::compute;
  using storage = typename L::storage;
  static constexpr Index Width = L::Width;
  static constexpr bool uses_side_streams = rwkv::uses_side_streams<L>;
  static constexpr bool reads_tokens = rwkv::reads_tokens<L>;
  using Side = SideStreams<compute>;

  using State = Repeated<typename L::State>;

  Repeated<L> parts;  ///< the layers

  explicit Stack(const ModelSizes& sizes, Index first_layer = 0) : parts(make(sizes, first_layer)) {}

  /// A state with one part per repetition, not yet bound to memory.
  State make_state() const {
    State state{};
    if constexpr (N == dyn) state.resize(parts.size());
    return state;
  }

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto side = start_side_streams<L>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(backend& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state,
               Seq<compute, Width> y) const {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      forward_beside(parts[i], be, ws, side, i == 0 ? x : Seq<const compute, Width>(y), state[i], y);
    }
  }

  template <class P>
  struct TapeFor {
    Repeated<tape_t<L, P>> parts;
    Side side;
  };
  using Tape = TapeFor<Keep>;
  template <class P>
  TapeFor<P> make_tape() const {
    TapeFor<P> tape{};
    if constexpr (N == dyn) tape.parts.resize(parts.size());
    return tape;
  }

  /// The same for training: keeps the activations between the parts. y must not overlap x.
  template <class P>
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    auto side = start_side_streams<L>(ws, x);
    forward(be, ws, side, x, state, y, tape);
  }
  template <class P>
  void forward(backend& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    tape.side = side;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto out = i + 1 == parts.size() ? y : ws.like<compute>(x, x.width);
      forward_beside(parts[i], be, ws, side, x, state[i], out, tape.parts[i]);
      x = out;
    }
  }

  /// The backward pass, see Block. dx may be dy.
  template <class P>
  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const TapeFor<P>& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, Stack& grad, State& dfirst) const {
    auto side = start_side_streams_back<L>(be, ws, tape.side);
    backward(be, ws, side, dy, tape, first, dlast, dx, grad, dfirst);
    end_side_streams_back<L>(be, side, dx);
  }
  template <class P>
  void backward(backend& be, Arena ws, Side& side, Seq<const compute, Width> dy, const TapeFor<P>& tape,
                const State& first, const State& dlast, Seq<compute, Width> dx, Stack& grad, State& dfirst) const {
    for (std::size_t i = parts.size(); i-- > 0;) {
      backward_beside(parts[i], be, ws, side, dy, tape.parts[i], first[i], dlast[i], dx, grad.parts[i], dfirst[i]);
      dy = dx;
    }
  }

  void reset(backend& be, State& state) const {
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].reset(be, state[i]);
  }

  void begin_tuning(backend& be, State& state) const {
    for (std::size_t i = 0; i < parts.size(); ++i) begin_tuning_of(parts[i], be, state[i]);
  }
  void make_valid(backend& be, State& state) const {
    for (std::size_t i = 0; i < parts.size(); ++i) make_valid_of(parts[i], be, state[i]);
  }

  template <class Call>
  void each_layer(State& state, Call&& call) const {
    for (std::size_t i = 0; i < parts.size(); ++i) rwkv::each_layer(parts[i], state[i], call);
  }
  template <class P, class Call>
  void each_layer(State& state, TapeFor<P>& tape, Call&& call) const {
    for (std::size_t i = 0; i < parts.size(); ++i) rwkv::each_layer(parts[i], state[i], tape.parts[i], call);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    for (auto& part : self.parts) L::visit(part, prefix, visitor);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].visit_state(state[i], prefix, visitor);
  }

 private:
  template <std::size_t... Nth>
  static std::array<L, sizeof...(Nth)> repeat(const ModelSizes& sizes, Index first_layer, std::index_sequence<Nth...>) {
    return {L(sizes, first_layer + static_cast<Index>(Nth) * L::layers)...};
  }
  static Repeated<L> make(const ModelSizes& sizes, Index first_layer) {
    const Index repeats = sizes.depth / L::layers;
    expects(sizes.depth > 0 && repeats * L::layers == sizes.depth, "rwkv: a depth of ", sizes.depth,
            " is no positive multiple of the pattern's ", L::layers, " layers");
    if constexpr (N == dyn) {
      std::vector<L> made;
      made.reserve(static_cast<std::size_t>(repeats));
      for (Index i = 0; i < repeats; ++i) made.emplace_back(sizes, first_layer + i * L::layers);
      return made;
    } else {
      expects(repeats == N, "rwkv: the depth is fixed to ", N * L::layers, " by the type, the model has ", sizes.depth);
      return repeat(sizes, first_layer, std::make_index_sequence<static_cast<std::size_t>(N)>());
    }
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
