#pragma once
#include "rwkv/block/concept.hpp"
#include "rwkv/block/layer_norm.hpp"
#include "rwkv/op/activation.hpp"

namespace rwkv::inline RWKV_ABI {

/// The pre-norm residual pair of every RWKV: x += time_mix(ln1(x)), then x += channel_mix(ln2(x)). Any two blocks of
/// one scalar and backend fit.
template <class TimeMixing, class ChannelMixing>
class Layer {
  static_assert(Block<TimeMixing> && Block<ChannelMixing>, "rwkv: a layer is made of two blocks; see rwkv::Block");

 public:
  using backend = typename TimeMixing::backend;
  using compute = typename TimeMixing::compute;
  using Norm = LayerNorm<typename TimeMixing::storage, backend, decltype(TimeMixing::dims)>;
  static_assert(std::is_same_v<backend, typename ChannelMixing::backend> &&
                    std::is_same_v<compute, typename ChannelMixing::compute>,
                "rwkv: the two blocks of a layer must share one backend and one computing scalar");
  static constexpr Index Width = TimeMixing::Width;
  static constexpr Index layers = 1;  ///< how many layers of the model this is

  struct State {
    typename TimeMixing::State att;
    typename ChannelMixing::State ffn;
  };

  Index index;  ///< number of the layer in the model
  Norm ln1, ln2;
  TimeMixing att;
  ChannelMixing ffn;

  Layer(const ModelSizes& sizes, Index layer)
      : index(layer), ln1(sizes, layer), ln2(sizes, layer), att(sizes, layer), ffn(sizes, layer) {}

  /// Shapes    x, y: [batch, time, width]
  /// Aliasing  y may be x
  void forward(backend& be, Arena ws, Seq<const compute, Width> x, State& state, Seq<compute, Width> y) const {
    auto normed = ws.like<compute>(x, x.width), mixed = ws.like<compute>(x, x.width);
    ln1.forward(be, x, normed);
    att.forward(be, ws, normed, state.att, mixed);
    be.rows(Sum{}, arg::in(x), arg::in(mixed), arg::out(y));
    ln2.forward(be, y, normed);
    ffn.forward(be, ws, normed, state.ffn, mixed);
    be.rows(Copy{}, arg::in(mixed), arg::add(y));
  }

  void reset(backend& be, State& state) const {
    att.reset(be, state.att);
    ffn.reset(be, state.ffn);
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
  std::string name(const std::string& prefix) const { return join(prefix, "blocks.", index, "."); }
};

}  // namespace rwkv::inline RWKV_ABI
