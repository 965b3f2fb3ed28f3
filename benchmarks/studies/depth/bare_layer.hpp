#pragma once
// A layer without norms.
#include <rwkv/blocks.hpp>

#include <string>

namespace study {

using namespace rwkv;

/// x += time_mix(x), then x += channel_mix(x): rwkv::Layer without its two layer norms. For a Stack, which calls its
/// layers with the sequences that they hand on.
template <class TimeMixing, class ChannelMixing>
class BareLayer {
 public:
  using backend = typename TimeMixing::backend;
  using compute = typename TimeMixing::compute;
  using storage = typename TimeMixing::storage;
  static constexpr Index Width = TimeMixing::Width;
  static constexpr Index layers = 1;
  static constexpr bool uses_side_streams = true;
  using Side = SideStreams<compute>;

  struct State {
    typename TimeMixing::State att;
    typename ChannelMixing::State ffn;
  };
  struct Tape {
    Seq<compute, Width> middle;  // between the two
    typename TimeMixing::Tape att;
    typename ChannelMixing::Tape ffn;
  };

  Index index;
  TimeMixing att;
  ChannelMixing ffn;

  BareLayer(const ModelSizes& sizes, Index layer) : index(layer), att(sizes, layer), ffn(sizes, layer) {}

  void forward(backend& be, Arena ws, Side& side, Seq<const compute, Width> x, State& state,
               Seq<compute, Width> y) const {
    const auto mixed = ws.like<compute>(x, x.width);
    forward_beside(att, be, ws, side, x, state.att, mixed);
    be.rows(Sum{}, arg::in(x), arg::in(mixed), arg::out(y));
    forward_beside(ffn, be, ws, side, y, state.ffn, mixed);
    be.rows(Copy{}, arg::in(mixed), arg::add(y));
  }

  void forward(backend& be, Arena& ws, Side& side, Seq<const compute, Width> x, State& state, Seq<compute, Width> y,
               Tape& tape) const {
    tape.middle = ws.like<compute>(x, x.width);
    forward_beside(att, be, ws, side, x, state.att, y, tape.att);
    be.rows(Sum{}, arg::in(x), arg::in(y), arg::out(tape.middle));
    forward_beside(ffn, be, ws, side, tape.middle, state.ffn, y, tape.ffn);
    be.rows(Sum{}, arg::in(tape.middle), arg::in(y), arg::out(y));
  }

  void backward(backend& be, Arena ws, Side& side, Seq<const compute, Width> dy, const Tape& tape, const State& first,
                const State& dlast, Seq<compute, Width> dx, BareLayer& grad, State& dfirst) const {
    const auto through = ws.like<compute>(dx, dx.width);  // the cotangent that has passed through a block
    if (dx.data != dy.data) be.copy(dy.flat(), dx.flat());
    backward_beside(ffn, be, ws, side, dx, tape.ffn, first.ffn, dlast.ffn, through, grad.ffn, dfirst.ffn);
    be.rows(Copy{}, arg::in(through), arg::add(dx));
    backward_beside(att, be, ws, side, dx, tape.att, first.att, dlast.att, through, grad.att, dfirst.att);
    be.rows(Copy{}, arg::in(through), arg::add(dx));
  }

  void reset(backend& be, State& state) const {
    att.reset(be, state.att);
    ffn.reset(be, state.ffn);
  }

  template <class Self, class Visitor>
  static void visit(Self& self, const std::string& prefix, Visitor&& visitor) {
    const auto numbered = [&](TensorSpec spec, auto& view) {
      spec.layer = self.index;
      visitor(std::move(spec), view);
    };
    TimeMixing::visit(self.att, self.name(prefix) + "att.", numbered);
    ChannelMixing::visit(self.ffn, self.name(prefix) + "ffn.", numbered);
  }

  template <class Visitor>
  void visit_state(State& state, const std::string& prefix, Visitor&& visitor) const {
    att.visit_state(state.att, name(prefix) + "att.", visitor);
    ffn.visit_state(state.ffn, name(prefix) + "ffn.", visitor);
  }

 private:
  std::string name(const std::string& prefix) const { return join(prefix, "blocks.", index, "."); }
};

}  // namespace study
