/// Can the suite fail? Real ports of RWKV-4 have had the faults below, or could have had them. Each fault is injected
/// through a template parameter (a version policy, a recurrence, a block) or by swapping two views, and the oracles of
/// the suite must detect it.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cstdio>
#include <functional>

#include "../golden.hpp"
#include "../instances.hpp"

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
  no_ln0,
  no_ln_out,
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

/// WKV4 with a fault.
struct FaultyCell : WKV4 {
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
        return WKV4::step(s, swapped);
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
struct FaultyV4 : V4 {
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

struct FaultyTimeMix : TimeMix<FaultyV4, S, B> {
  using TimeMix::TimeMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == Fault::att_shift_forgotten) be.fill(state.shift, S(0));
    if (fault == Fault::wkv_forgotten) state.wkv.reset(be);
    TimeMix::forward(be, ws, x, state, y);
  }
};
struct FaultyChannelMix : ChannelMix<FaultyV4, S, B> {
  using ChannelMix::ChannelMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == Fault::ffn_shift_forgotten) be.fill(state.shift, S(0));
    ChannelMix::forward(be, ws, x, state, y);
  }
};
struct FaultyEmbedding : Embedding<S, B> {
  using Embedding::Embedding;
  void forward(B& be, std::span<const Token> tokens, Seq<S> y) const {
    if (fault == Fault::no_ln0) return be.gather_rows(params.table, tokens, y.flat());
    Embedding::forward(be, tokens, y);
  }
};
struct FaultyHead : Head<S, B> {
  using Head::Head;
  void forward(B& be, Arena ws, Seq<const S> x, Seq<S> logits) const {
    if (fault == Fault::no_ln_out) return be.gemm(linear(x, params.table, logits));
    Head::forward(be, ws, x, logits);
  }
};

using FaultyLayer = Layer<FaultyTimeMix, FaultyChannelMix>;
using Net = Model<FaultyEmbedding, Stack<FaultyLayer>, FaultyHead>;

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

/// Does the model agree with the golden logits, as a sequence and step by step?
bool model_is_right(const std::function<void(Net&)>& alter = {}) {
  const auto folder = golden::folder() / "models";
  const golden::File expected(folder / "rwkv4-rand-l2-d32-f32.expected.safetensors");
  auto net = load_checkpoint<Net>(folder / "rwkv4-rand-l2-d32-f32.safetensors");
  if (alter) alter(net);
  const auto tokens = expected["tokens"].as<Token>();
  const auto want = expected["logits_last_f64"].values;
  for (const Index chunk : {256, 1}) {
    auto context = net.context({.chunk = chunk});
    if (golden::max_error(context.prefill(tokens), want) > 1e-9) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the oracles accept what is right") {
  fault = Fault::none;
  CHECK(model_is_right());
  CHECK(recurrence_is_right());
}

TEST_CASE("the oracles catch every single fault") {
  struct Row {
    const char* name;
    bool caught;
  };
  std::vector<Row> rows;

  // Faults in a policy.
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
      {Fault::no_ln0, "ln0 left out"},
      {Fault::no_ln_out, "ln_out left out"},
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
    rows.push_back({name, !model_is_right() || !recurrence_is_right()});
  }
  fault = Fault::none;

  // Faults that swap two parameters.
  using Alteration = std::function<void(FaultyLayer&)>;
  const std::pair<const char*, Alteration> in_each_layer[] = {
      {"epsilon of ln1 and ln2 1e-6", [](auto& l) { l.ln1.epsilon = l.ln2.epsilon = 1e-6; }},
      {"ln1 and ln2 exchanged", [](auto& l) { std::swap(l.ln1, l.ln2); }},
      {"time mix: k and v mixes exchanged", [](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_v); }},
      {"time mix: k and r mixes exchanged", [](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_r); }},
      {"channel mix: mixes exchanged", [](auto& l) { std::swap(l.ffn.params.mix_k, l.ffn.params.mix_r); }},
      {"key and value matrices exchanged", [](auto& l) { std::swap(l.att.params.key, l.att.params.value); }},
      {"decay and bonus exchanged", [](auto& l) { std::swap(l.att.params.decay, l.att.params.first); }}};
  for (const auto& exchange : in_each_layer) {
    const auto everywhere = [&](Net& net) {
      std::for_each(net.parts.body.parts.begin(), net.parts.body.parts.end(), exchange.second);
    };
    rows.push_back({exchange.first, !model_is_right(everywhere)});
  }
  const std::pair<const char*, std::function<void(Net&)>> in_the_model[] = {
      {"epsilon of ln0 1e-6", [](Net& net) { net.parts.embedding.ln0.epsilon = 1e-6; }},
      {"epsilon of ln_out 1e-6", [](Net& net) { net.parts.head.ln_out.epsilon = 1e-6; }},
      {"layers in the wrong order",
       [](Net& net) { std::swap(net.parts.body.parts.front(), net.parts.body.parts.back()); }},
      {"head tied to the embedding", [](Net& net) { net.parts.head.params.table = net.parts.embedding.params.table; }}};
  for (const auto& [name, alteration] : in_the_model) rows.push_back({name, !model_is_right(alteration)});

  std::size_t caught = 0;
  for (const auto& row : rows) {
    std::printf("  %-7s %s\n", row.caught ? "caught" : "MISSED", row.name);
    caught += row.caught ? 1 : 0;
  }
  std::printf("  %zu of %zu faults caught\n", caught, rows.size());
  CHECK(caught == rows.size());
}
