/// Can the suite fail? Real ports of RWKV-4 have had the faults below, or could have had them. Each fault is injected
/// through a template parameter (a version policy, a recurrence, a block) or by swapping two views, and the oracles of
/// the suite must detect it.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../golden.hpp"
#include "../instances.hpp"
#include "faults.hpp"

using namespace rwkv;

namespace {

using B = Reference;
using S = double;

/// The active fault. One model type with run-time switches in its policies compiles much faster than one model type for
/// each fault.
enum class Fault {
  none,
  mix_previous,
  decay_sign,
  decay_twice,
  decay_raw,
  no_sigmoid,
  no_gate,
  relu_not_squared,
  square_without_relu,
  att_shift_forgotten,
  ffn_shift_forgotten,
  wkv_forgotten,
  maximum_not_shifted,
  bonus_left_out,
  bonus_in_state,
  read_after_update,
  decay_left_out,
  decay_before_read,
  denominator_forgets,
  key_and_value_swapped
};
Fault fault = Fault::none;

/// The recurrence with a fault.
struct FaultyCell : config::ChannelCell {
  template <class R>
  static R readout(const R (&s)[3], R boosted, R v) {
    const auto e = exp_pair(s[2], boosted);
    return (e.first * s[0] + e.second * v) / (e.first * s[1] + e.second);
  }
  template <class R>
  static R step(R (&s)[3], const R (&x)[4]) {
    const R w = x[0], u = x[1], k = x[2], v = x[3];
    switch (fault) {
      case Fault::maximum_not_shifted: {
        const R scale = exp(s[2]), a = scale * s[0], b = scale * s[1], e = exp(u + k);
        s[0] = exp(w) * a + exp(k) * v;
        s[1] = exp(w) * b + exp(k);
        s[2] = R(0);
        return (a + e * v) / (b + e);
      }
      case Fault::read_after_update: enter(s, lift(x)); return readout(s, u + k, v);
      case Fault::decay_before_read: {
        const R decayed[3] = {s[0], s[1], s[2] + w};
        enter(s, lift(x));
        return readout(decayed, u + k, v);
      }
      case Fault::key_and_value_swapped: {
        const R swapped[4] = {w, u, v, k};
        return config::ChannelCell::step(s, swapped);
      }
      default: break;
    }
    const R y = readout(s, fault == Fault::bonus_left_out ? k : u + k, v);
    enter(s, Stretch<R>{fault == Fault::decay_left_out ? R(0) : w, v, R(fault == Fault::denominator_forgets ? 0 : 1),
                        fault == Fault::bonus_in_state ? u + k : k});
    return y;
  }
};

/// RWKV-4 with a fault in one of its policies.
struct FaultyVersion : V4 {
  struct Mix {
    template <class R>
    static R mix(R x, R p, R m) {
      return fault == Fault::mix_previous ? MixPrevious::mix(x, p, m) : MixCurrent::mix(x, p, m);
    }
  };
  struct Decay {
    template <class R>
    void map(R x, R& y) const {
      switch (fault) {
        case Fault::decay_sign: y = exp(x); break;
        case Fault::decay_twice: y = -exp(-exp(x)); break;
        case Fault::decay_raw: y = x; break;
        default: y = -exp(x);
      }
    }
  };
  struct Gate {
    template <class R>
    void map(R r, R x, R& y) const {
      y = fault == Fault::no_gate ? x : fault == Fault::no_sigmoid ? r * x : sigmoid(r) * x;
    }
  };
  struct Activation {
    template <class R>
    R operator()(R x) const {
      const R positive = max(x, R(0));
      return fault == Fault::relu_not_squared      ? positive
             : fault == Fault::square_without_relu ? x * x
                                                   : positive * positive;
    }
  };
  using Cell = FaultyCell;
  using Schedule = Sequential;
};

struct FaultyTimeMix : TimeMix<FaultyVersion, S, B> {
  using TimeMix::TimeMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == Fault::att_shift_forgotten) be.fill(state.shift, S(0));
    if (fault == Fault::wkv_forgotten) state.wkv.reset(be);
    TimeMix::forward(be, ws, x, state, y);
  }
};
struct FaultyChannelMix : ChannelMix<FaultyVersion, S, B> {
  using ChannelMix::ChannelMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == Fault::ffn_shift_forgotten) be.fill(state.shift, S(0));
    ChannelMix::forward(be, ws, x, state, y);
  }
};
using FaultyLayer = Layer<FaultyTimeMix, FaultyChannelMix>;
using Net = Model<faults::FaultyEmbedding<B>, Stack<FaultyLayer>, faults::FaultyHead<B>>;
using Oracles = faults::Oracles<V4, Net>;

/// Does the recurrence agree with the wkv4 goldens?
bool recurrence_is_right() {
  for (const auto& path : golden::files("ops", "wkv4_", 6)) {
    const golden::File file(path);
    const auto k = file["in.k"].values, v = file["in.v"].values, u = file["in.time_first"].values;
    const auto raw = file["in.time_decay"].values, want = file["out.y"].values;
    const auto shape = file["in.k"].shape;
    const auto width = static_cast<std::size_t>(shape[2]), time = static_cast<std::size_t>(shape[1]);
    const auto aa = file["in.state.aa"].values, bb = file["in.state.bb"].values, pp = file["in.state.pp"].values;
    const auto out_a = file["out.state.aa"].values, out_b = file["out.state.bb"].values,
               out_p = file["out.state.pp"].values;
    std::vector<double> got(want.size()), states, wanted_states;
    for (std::size_t i = 0; i < aa.size(); ++i) {
      const std::size_t b = i / width, c = i % width;
      One<S> state[3] = {One<S>(aa[i]), One<S>(bb[i]), One<S>(pp[i])};
      for (std::size_t t = 0; t < time; ++t) {
        const std::size_t at = (b * time + t) * width + c;
        const One<S> x[4] = {One<S>(-std::exp(raw[c])), One<S>(u[c]), One<S>(k[at]), One<S>(v[at])};
        got[at] = FaultyCell::step(state, x).v;
      }
      for (const auto& number : state) states.push_back(number.v);
      for (const double number : {out_a[i], out_b[i], out_p[i]}) wanted_states.push_back(number);
    }
    if (golden::error_ratio<S>(got, file["out.y"]) >= 1) return false;
    if (golden::relative_error(states, wanted_states) > golden::tolerance<S>(file["out.y"])) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the oracles accept RWKV-4, and catch every single fault") {
  const Oracles oracles;
  CHECK(oracles.from_golden() < 1e-9);
  CHECK(oracles.from_live() == 0);
  CHECK(oracles.from_library() < 1e-12);
  CHECK(recurrence_is_right());

  faults::Table table;
  const std::pair<Fault, const char*> switched[] = {
      {Fault::mix_previous, "mix weighs the token before"},
      {Fault::decay_sign, "decay with the wrong sign"},
      {Fault::decay_twice, "decay exponentiated twice"},
      {Fault::decay_raw, "decay not exponentiated"},
      {Fault::no_sigmoid, "receptance without its sigmoid"},
      {Fault::no_gate, "receptance gate left out"},
      {Fault::relu_not_squared, "relu not squared"},
      {Fault::square_without_relu, "square without relu"},
      {Fault::att_shift_forgotten, "time mix: shift state not carried"},
      {Fault::ffn_shift_forgotten, "channel mix: shift state not carried"},
      {Fault::wkv_forgotten, "recurrent state not carried"},
      {Fault::maximum_not_shifted, "maximum not shifted out of the exponentials"},
      {Fault::bonus_left_out, "bonus left out"},
      {Fault::bonus_in_state, "bonus enters the state"},
      {Fault::read_after_update, "read after the update"},
      {Fault::decay_left_out, "decay left out"},
      {Fault::decay_before_read, "state decayed before it is read"},
      {Fault::denominator_forgets, "denominator not updated"},
      {Fault::key_and_value_swapped, "key and value exchanged in the recurrence"}};
  for (const auto& [which, name] : switched) {
    fault = which;
    table.add(name, oracles.from_golden(), oracles.from_live(), !recurrence_is_right());
  }
  fault = Fault::none;
  const std::pair<bool*, const char*> left_out[] = {{&faults::no_ln0, "ln0 left out"},
                                                    {&faults::no_ln_out, "ln_out left out"}};
  for (const auto& [norm, name] : left_out) {
    *norm = true;
    table.add(name, oracles.from_golden(), oracles.from_live());
    *norm = false;
  }

  // Faults that swap two parameters.
  const auto in_each_layer = [](auto change) {
    return [change](Net& net) { std::for_each(net.parts.body.parts.begin(), net.parts.body.parts.end(), change); };
  };
  const std::pair<const char*, Oracles::Alteration> altered[] = {
      {"epsilon of ln1 and ln2 1e-6", in_each_layer([](auto& l) { l.ln1.epsilon = l.ln2.epsilon = 1e-6; })},
      {"ln1 and ln2 exchanged", in_each_layer([](auto& l) { std::swap(l.ln1, l.ln2); })},
      {"time mix: k and v mixes exchanged",
       in_each_layer([](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_v); })},
      {"time mix: k and r mixes exchanged",
       in_each_layer([](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_r); })},
      {"channel mix: mixes exchanged",
       in_each_layer([](auto& l) { std::swap(l.ffn.params.mix_k, l.ffn.params.mix_r); })},
      {"key and value matrices exchanged",
       in_each_layer([](auto& l) { std::swap(l.att.params.key, l.att.params.value); })},
      {"decay and bonus exchanged", in_each_layer([](auto& l) { std::swap(l.att.params.decay, l.att.params.first); })},
      {"epsilon of ln0 1e-6", [](Net& net) { net.parts.embedding.ln0.epsilon = 1e-6; }},
      {"epsilon of ln_out 1e-6", [](Net& net) { net.parts.head.ln_out.epsilon = 1e-6; }},
      {"layers in the wrong order",
       [](Net& net) { std::swap(net.parts.body.parts.front(), net.parts.body.parts.back()); }},
      {"head tied to the embedding", [](Net& net) { net.parts.head.params.table = net.parts.embedding.params.table; }}};
  for (const auto& [name, alter] : altered) table.add(name, oracles.from_golden(alter), oracles.from_live(alter));
  table.check("RWKV-4");
}
