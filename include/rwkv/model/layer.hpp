#pragma once
#include <concepts>

#include "rwkv/block/concept.hpp"
#include "rwkv/block/layer_norm.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/model/tape_policy.hpp"
#include "rwkv/op/activation.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The pre-norm residual pair of every RWKV: x += time_mix(ln1(x)), then x += channel_mix(ln2(x)). Takes any two blocks
/// of the same scalar and backend.
template <class TimeMixing, class ChannelMixing>
class Layer {
  static_assert(Block<TimeMixing> && Block<ChannelMixing>, "rwkv: a layer is made of two blocks; see rwkv::Block");

 public:
  using backend = typename TimeMixing::backend;
  using compute = typename TimeMixing::compute;
  using storage = typename TimeMixing::storage;
  /// The norm in front of each block.
  using Norm = LayerNorm<Numerics<storage, compute>, backend, Dims<TimeMixing::Width>>;
  static_assert(std::is_same_v<backend, typename ChannelMixing::backend> &&
                    std::is_same_v<compute, typename ChannelMixing::compute>,
                "rwkv: the two blocks of a layer must share one backend and one computing scalar");
  static constexpr Index Width = TimeMixing::Width;
  static constexpr Index layers = 1;  ///< how many layers of the model this counts as
  static constexpr bool uses_side_streams =
      rwkv::uses_side_streams<TimeMixing> || rwkv::uses_side_streams<ChannelMixing>;
  static constexpr bool reads_tokens = rwkv::reads_tokens<TimeMixing> || rwkv::reads_tokens<ChannelMixing>;
  using Side = SideStreams<compute>;

  struct State {
    typename TimeMixing::State att;     ///< of the time mix
    typename ChannelMixing::State ffn;  ///< of the channel mix
  };

  /// Activations that forward keeps for backward; P is Keep or Recompute.
  template <class P>
  struct TapeFor {
    Seq<const compute, Width> x;
    Seq<compute, Width> middle, normed_att, normed_ffn;
    tape_t<TimeMixing, P> att;
    tape_t<ChannelMixing, P> ffn;
    Side side;
  };
  using Tape = TapeFor<Keep>;

  Index index;        ///< number of the layer in the model
  Norm ln1, ln2;      ///< in front of the time mix, and of the channel mix
  TimeMixing att;     ///< the time mix
  ChannelMixing ffn;  ///< the channel mix

  Layer(const ModelSizes& sizes, Index layer)
      : index(layer), ln1(sizes, layer), ln2(sizes, layer), att(sizes, layer), ffn(sizes, layer) {}

  /// A backend with the verb layer_step may run a single token as one fused step. The fused step may prefetch weights
  /// before earlier queued work has ended. If you change weights through verbs, call sync() first.
  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto side = start_side_streams<Layer>(ws, x);
    forward(be, ws, side, x, state, y);
  }
  void forward(backend& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state,
               Seq<compute, Width> y) const {
    if constexpr (requires {
                    { be.layer_step(ws, *this, x, state, y) } -> std::same_as<bool>;
                  }) {
      if (x.time == 1 && be.layer_step(ws, *this, x, state, y)) return;
    }
    detail::advance(detail::Unit::layers, 1);
    auto normed = ws.like<compute>(x, x.width), mixed = ws.like<compute>(x, x.width);
    ln1.forward(be, x, normed);
    forward_beside(att, be, ws, side, normed, state.att, mixed);
    be.rows(Sum{}, arg::in(x), arg::in(mixed), arg::out(y));
    ln2.forward(be, y, normed);
    forward_beside(ffn, be, ws, side, normed, state.ffn, mixed);
    be.rows(Copy{}, arg::in(mixed), arg::add(y));
  }

  /// The same for training. y must not overlap x.
  template <class P>
  void forward(backend& be, Arena& ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    auto side = start_side_streams<Layer>(ws, x);
    forward(be, ws, side, x, state, y, tape);
  }
  template <class P>
  void forward(backend& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               TapeFor<P>& tape) const {
    tape.side = side;
    if constexpr (std::is_same_v<P, Recompute>) {
      tape.x = x;
      forward(be, Arena(ws), side, x, state, y);
    } else {
      keep(be, ws, side, x, state, y, tape);
    }
  }

  /// The backward pass, see Block. dx may be dy.
  template <class P>
  void backward(backend& be, Arena ws, Seq<const compute, Width> dy, const TapeFor<P>& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, Layer& grad, State& dfirst) const {
    auto side = start_side_streams_back<Layer>(be, ws, tape.side);
    backward(be, ws, side, dy, tape, first, dlast, dx, grad, dfirst);
    end_side_streams_back<Layer>(be, side, dx);
  }
  template <class P>
  void backward(backend& be, Arena ws, Side& side, Seq<const compute, Width> dy, const TapeFor<P>& tape,
                const State& first, const State& dlast, Seq<compute, Width> dx, Layer& grad, State& dfirst) const {
    if constexpr (std::is_same_v<P, Recompute>) {
      Tape again;
      // Forward overwrites its state, so it runs on a copy of `first` in dfirst, which is not in use yet.
      copy_block_state(be, att, first.att, dfirst.att);
      copy_block_state(be, ffn, first.ffn, dfirst.ffn);
      Side before = tape.side;
      again.side = before;
      keep(be, ws, before, tape.x, dfirst, ws.like<compute>(dx, dx.width), again);
      backward(be, ws, side, dy, again, first, dlast, dx, grad, dfirst);
    } else {
      detail::advance(detail::Unit::layers, 2);
      auto dnormed = ws.like<compute>(dx, dx.width);
      if (dx.data != dy.data) be.copy(dy.flat(), dx.flat());
      backward_beside(ffn, be, ws, side, dx, tape.ffn, first.ffn, dlast.ffn, dnormed, grad.ffn, dfirst.ffn);
      ln2.backward(be, ws, tape.middle, dnormed, arg::add(dx), grad.ln2);
      detail::advance(detail::Unit::layers, 0);
      backward_beside(att, be, ws, side, dx, tape.att, first.att, dlast.att, dnormed, grad.att, dfirst.att);
      ln1.backward(be, ws, tape.x, dnormed, arg::add(dx), grad.ln1);
    }
  }

  void reset(backend& be, State& state) const {
    att.reset(be, state.att);
    ffn.reset(be, state.ffn);
  }

  void begin_tuning(backend& be, State& state) const {
    begin_tuning_of(att, be, state.att);
    begin_tuning_of(ffn, be, state.ffn);
  }
  void make_valid(backend& be, State& state) const {
    make_valid_of(att, be, state.att);
    make_valid_of(ffn, be, state.ffn);
  }

  /// Calls call(layer, state), or call(layer, state, tape), for every layer, from the first to the last; so do Chain and
  /// Stack.
  template <class Call>
  void each_layer(State& state, Call&& call) const {
    call(*this, state);
  }
  template <class P, class Call>
  void each_layer(State& state, TapeFor<P>& tape, Call&& call) const {
    call(*this, state, tape);
  }

  /// The state of one sequence of a batch.
  State state_of(State state, Index sequence) const {
    state.att = rwkv::state_of(att, state.att, sequence);
    state.ffn = rwkv::state_of(ffn, state.ffn, sequence);
    return state;
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    const std::string block = self.name(prefix);
    const auto numbered = [&](TensorSpec spec, auto& view) {
      spec.layer = self.index;
      visitor(std::move(spec), view);
    };
    Norm::visit(self.ln1, block + "ln1.", numbered);
    TimeMixing::visit(self.att, block + "att.", numbered);
    Norm::visit(self.ln2, block + "ln2.", numbered);
    ChannelMixing::visit(self.ffn, block + "ffn.", numbered);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    att.visit_state(state.att, name(prefix) + "att.", visitor);
    ffn.visit_state(state.ffn, name(prefix) + "ffn.", visitor);
  }

 private:
  void keep(backend& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
            Tape& tape) const {
    detail::advance(detail::Unit::layers, 1);
    tape.x = x;
    for (auto* sequence : {&tape.middle, &tape.normed_att, &tape.normed_ffn}) {
      *sequence = ws.like<compute>(x, x.width);
    }
    ln1.forward(be, x, tape.normed_att);
    forward_beside(att, be, ws, side, tape.normed_att, state.att, y, tape.att);
    be.rows(Sum{}, arg::in(x), arg::in(y), arg::out(tape.middle));
    detail::advance(detail::Unit::layers, 0);
    ln2.forward(be, tape.middle, tape.normed_ffn);
    forward_beside(ffn, be, ws, side, tape.normed_ffn, state.ffn, y, tape.ffn);
    be.rows(Sum{}, arg::in(tape.middle), arg::in(y), arg::out(y));
  }

  /// Copies the states of a block by nested visits, which allocate nothing.
  template <class K>
  static void copy_block_state(backend& be, const K& block, typename K::State from, typename K::State& to) {
    int nth = 0;
    block.visit_state(from, std::string(), [&](const std::string&, Index, Mat<compute>& source) {
      int at = 0;
      block.visit_state(to, std::string(), [&](const std::string&, Index, Mat<compute>& target) {
        if (at++ == nth) be.copy(source, target);
      });
      ++nth;
    });
  }

  std::string name(const std::string& prefix) const { return join(prefix, "blocks.", index, "."); }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
