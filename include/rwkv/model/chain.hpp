#pragma once
#include <tuple>
#include <utility>

#include "rwkv/block/concept.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/model/each_layer.hpp"
#include "rwkv/model/tape_policy.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Layers of different types, one after the other, as one block; the pattern is part of the type.
template <class First, class... Rest>
class Chain {
 public:
  using backend = typename First::backend;
  using compute = typename First::compute;
  using storage = typename First::storage;
  static_assert((std::is_same_v<backend, typename Rest::backend> && ...) &&
                    (std::is_same_v<compute, typename Rest::compute> && ...),
                "rwkv: the layers of a chain must share one backend and one computing scalar");
  static constexpr Index Width = First::Width;
  /// How many layers of the model this counts as.
  static constexpr Index layers = (First::layers + ... + Rest::layers);
  static constexpr bool uses_side_streams = rwkv::uses_side_streams<First> || (rwkv::uses_side_streams<Rest> || ...);
  static constexpr bool reads_tokens = rwkv::reads_tokens<First> || (rwkv::reads_tokens<Rest> || ...);
  using Side = SideStreams<compute>;

  using State = std::tuple<typename First::State, typename Rest::State...>;

  std::tuple<First, Rest...> parts;  ///< the layers

  Chain(const ModelSizes& sizes, Index layer) : Chain(sizes, layer, order{}) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto side = start_side_streams<Chain>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(backend& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state,
               Seq<compute, Width> y) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      const auto in = Nth == 0 ? x : Seq<const compute, Width>(y);
      forward_beside(std::get<Nth>(parts), be, ws, side, in, std::get<Nth>(state), y);
    });
  }

  template <class P>
  struct TapeFor {
    std::tuple<tape_t<First, P>, tape_t<Rest, P>...> parts;
    Side side;
  };
  using Tape = TapeFor<Keep>;

  /// The same for training: keeps the activations between the parts. y must not overlap x.
  template <class P>
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    auto side = start_side_streams<Chain>(ws, x);
    forward(be, ws, side, x, state, y, tape);
  }
  template <class P>
  void forward(backend& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    tape.side = side;
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      const auto out = Nth == sizeof...(Rest) ? y : ws.like<compute>(x, x.width);
      forward_beside(std::get<Nth>(parts), be, ws, side, x, std::get<Nth>(state), out, std::get<Nth>(tape.parts));
      x = out;
    });
  }

  /// The backward pass, see Block. dx may be dy.
  template <class P>
  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const TapeFor<P>& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, Chain& grad, State& dfirst) const {
    auto side = start_side_streams_back<Chain>(be, ws, tape.side);
    backward(be, ws, side, dy, tape, first, dlast, dx, grad, dfirst);
    end_side_streams_back<Chain>(be, side, dx);
  }
  template <class P>
  void backward(backend& be, Arena ws, Side& side, Seq<const compute, Width> dy, const TapeFor<P>& tape,
                const State& first, const State& dlast, Seq<compute, Width> dx, Chain& grad, State& dfirst) const {
    each([&]<std::size_t FromEnd>(std::integral_constant<std::size_t, FromEnd>) {
      constexpr std::size_t nth = sizeof...(Rest) - FromEnd;
      backward_beside(std::get<nth>(parts), be, ws, side, dy, std::get<nth>(tape.parts), std::get<nth>(first),
                      std::get<nth>(dlast), dx, std::get<nth>(grad.parts), std::get<nth>(dfirst));
      dy = dx;
    });
  }

  void reset(backend& be, State& state) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      std::get<Nth>(parts).reset(be, std::get<Nth>(state));
    });
  }

  void begin_tuning(backend& be, State& state) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      begin_tuning_of(std::get<Nth>(parts), be, std::get<Nth>(state));
    });
  }
  void make_valid(backend& be, State& state) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      make_valid_of(std::get<Nth>(parts), be, std::get<Nth>(state));
    });
  }

  template <class Call>
  void each_layer(State& state, Call&& call) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      rwkv::each_layer(std::get<Nth>(parts), std::get<Nth>(state), call);
    });
  }
  template <class P, class Call>
  void each_layer(State& state, TapeFor<P>& tape, Call&& call) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      rwkv::each_layer(std::get<Nth>(parts), std::get<Nth>(state), std::get<Nth>(tape.parts), call);
    });
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    std::apply([&](auto&... part) { (std::remove_cvref_t<decltype(part)>::visit(part, prefix, visitor), ...); },
               self.parts);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    each([&]<std::size_t Nth>(std::integral_constant<std::size_t, Nth>) {
      std::get<Nth>(parts).visit_state(std::get<Nth>(state), prefix, visitor);
    });
  }

 private:
  using order = std::index_sequence_for<First, Rest...>;

  template <std::size_t... Nth>
  Chain(const ModelSizes& sizes, Index layer, std::index_sequence<Nth...>)
      : parts(std::tuple_element_t<Nth, std::tuple<First, Rest...>>(sizes, layer + before<Nth>())...) {}

  /// The number of layers before part Nth.
  template <std::size_t Nth>
  static constexpr Index before() {
    constexpr Index counts[] = {First::layers, Rest::layers...};
    Index sum = 0;
    for (std::size_t i = 0; i < Nth; ++i) sum += counts[i];
    return sum;
  }

  template <class F>
  static void each(F&& call) {
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) { (call(std::integral_constant<std::size_t, Nth>{}), ...); }
    (order{});
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
