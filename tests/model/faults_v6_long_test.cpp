/// Faults that ports of RWKV-6 have had or could have had. Each is injected by a template parameter (a policy of the
/// version, the recurrence, the backend, a block) or by the weights, and must be detected.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../instances.hpp"
#include "faults.hpp"

using namespace rwkv;

namespace {

using S = double;

enum class FaultV6 {
  none,
  mix_current,
  decay_without_exp,
  decay_raw,
  decay_of_token_left_out,
  no_tanh_in_mixes,
  no_tanh_in_decay,
  no_gate,
  sigmoid_gate,
  no_receptance,
  bonus_left_out,
  bonus_in_state,
  read_after_update,
  decay_left_out,
  att_shift_forgotten,
  ffn_shift_forgotten,
  wkv_forgotten,
};
FaultV6 fault = FaultV6::none;

/// WKV5 with a fault.
struct FaultyWkv5 : WKV5 {
  template <class R, class State, class Head>
  static R step(State state, const R (&x)[1], const Head& head) {
    R y = R(0);
    for (Index n = 0; n < state.size; ++n) {
      const R added = x[0] * head(key, n), boosted = head(bonus, n) * added;
      const R before = state[n], u = fault == FaultV6::bonus_left_out ? added : boosted;
      state[n] = before * (fault == FaultV6::decay_left_out ? R(1) : head(decay, n)) +
                 (fault == FaultV6::bonus_in_state ? boosted : added);
      y += (fault == FaultV6::read_after_update ? state[n] : before + u) * head(receptance, n);
    }
    return y;
  }
};

/// RWKV-6 with a fault in one of its policies.
struct FaultyV6 : V6 {
  struct Mix : MixPrevious {
    template <class R>
    static R mix(R x, R p, R m) {
      return fault == FaultV6::mix_current ? MixCurrent::mix(x, p, m) : MixPrevious::mix(x, p, m);
    }
  };
  struct Decay {
    template <class R>
    void map(R stored, R of_token, R& y) const {
      const R x = fault == FaultV6::decay_of_token_left_out ? stored : stored + of_token;
      y = fault == FaultV6::decay_without_exp ? exp(-x) : fault == FaultV6::decay_raw ? x : exp(-exp(x));
    }
  };
  struct OutputGate {
    template <class R>
    void map(R g, R x, R& y) const {
      y = fault == FaultV6::no_gate ? x : fault == FaultV6::sigmoid_gate ? sigmoid(g) * x : g * sigmoid(g) * x;
    }
  };
  struct Gate {
    template <class R>
    void map(R r, R x, R& y) const {
      y = fault == FaultV6::no_receptance ? x : sigmoid(r) * x;
    }
  };
  using Cell = FaultyWkv5;
  using Schedule = Sequential;
};

/// A backend that may leave out a tanh: behind the first factors of the mixes, which are a product alone, or of the decay.
struct FaultyV6Backend : Reference {
  template <class... P>
  void gemm(const P&... products) {
    (multiply(products, sizeof...(P) == 1), ...);
  }

 private:
  template <class P>
  void multiply(const P& product, bool) {
    Reference::gemm(product);
  }
  template <class T, class W>
  void multiply(const Product<T, W, Tanh>& product, bool alone) {
    if (fault == (alone ? FaultV6::no_tanh_in_mixes : FaultV6::no_tanh_in_decay)) {
      Reference::gemm(Product<T, W>{product.y, product.x, product.w, {}});
    } else {
      Reference::gemm(product);
    }
  }
};
using B = FaultyV6Backend;

struct FaultyTimeMixV6 : TimeMix<FaultyV6, S, B> {
  using TimeMix::TimeMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == FaultV6::att_shift_forgotten) be.fill(state.shift, S(0));
    if (fault == FaultV6::wkv_forgotten) state.wkv.reset(be);
    TimeMix::forward(be, ws, x, state, y);
  }
};
struct FaultyChannelMixV6 : ChannelMix<FaultyV6, S, B> {
  using ChannelMix::ChannelMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == FaultV6::ffn_shift_forgotten) be.fill(state.shift, S(0));
    ChannelMix::forward(be, ws, x, state, y);
  }
};
using LayerOfV6 = Layer<FaultyTimeMixV6, FaultyChannelMixV6>;
using Net = Model<faults::FaultyEmbedding<B>, Stack<LayerOfV6>, faults::FaultyHead<B>>;
using Oracles = faults::Oracles<V6, Net>;

/// Reads the parts of the data-dependent mixes in the order that begins with another one.
void rotate_parts(Net& net, std::size_t by) {
  for (const char* factor : {"att.time_maa_w1", "att.time_maa_w2"}) {
    faults::each_called(net, factor, [&](auto numbers) {
      std::rotate(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 5 * by),
                  numbers.end());
    });
  }
}
/// Exchanges two parts.
void exchange_parts(Net& net, std::size_t first, std::size_t second) {
  for (const char* factor : {"att.time_maa_w1", "att.time_maa_w2"}) {
    faults::each_called(net, factor, [&](auto numbers) {
      const std::size_t size = numbers.size() / 5;
      const auto a = numbers.subspan(first * size, size), b = numbers.subspan(second * size, size);
      std::swap_ranges(a.begin(), a.end(), b.begin());
    });
  }
}

}  // namespace

TEST_CASE("the oracles accept RWKV-6, and catch every single fault") {
  const Oracles oracles;
  CHECK(oracles.from_golden() < 1e-9);
  CHECK(oracles.from_live() == 0);
  CHECK(oracles.from_library() < 1e-12);

  faults::Table table;
  const std::pair<FaultV6, const char*> switched[] = {
      {FaultV6::mix_current, "mixes weigh the token itself"},
      {FaultV6::decay_without_exp, "decay left without its inner exp"},
      {FaultV6::decay_raw, "decay left without any exp"},
      {FaultV6::decay_of_token_left_out, "decay does not depend on the token"},
      {FaultV6::no_tanh_in_mixes, "tanh left out of the mixes"},
      {FaultV6::no_tanh_in_decay, "tanh left out of the decay"},
      {FaultV6::no_gate, "gate left out"},
      {FaultV6::sigmoid_gate, "gate a sigmoid"},
      {FaultV6::no_receptance, "channel mix: receptance left out"},
      {FaultV6::bonus_left_out, "bonus left out"},
      {FaultV6::bonus_in_state, "bonus enters the state"},
      {FaultV6::read_after_update, "read after the update"},
      {FaultV6::decay_left_out, "decay left out"},
      {FaultV6::att_shift_forgotten, "time mix: shift state not carried"},
      {FaultV6::ffn_shift_forgotten, "channel mix: shift state not carried"},
      {FaultV6::wkv_forgotten, "recurrent state not carried"}};
  for (const auto& [which, name] : switched) {
    fault = which;
    table.add(name, oracles.from_golden(), oracles.from_live());
  }
  fault = FaultV6::none;
  faults::no_ln_out = true;
  table.add("ln_out left out", oracles.from_golden(), oracles.from_live());
  faults::no_ln_out = false;

  const auto in_each_layer = [](auto change) {
    return [change](Net& net) { std::for_each(net.parts.body.parts.begin(), net.parts.body.parts.end(), change); };
  };
  const std::pair<const char*, Oracles::Alteration> altered[] = {
      {"parts of the mixes in the order k, v, r, g, w", [](Net& net) { rotate_parts(net, 1); }},
      {"parts of the mixes in the order r, g, w, k, v", [](Net& net) { rotate_parts(net, 3); }},
      {"parts of k and v exchanged", [](Net& net) { exchange_parts(net, 1, 2); }},
      {"mixes of k and r exchanged", in_each_layer([](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_r); })},
      {"epsilon of ln_x 1e-5", in_each_layer([](auto& l) { l.att.epsilon = 1e-5; })},
      {"epsilon of ln1 and ln2 1e-6", in_each_layer([](auto& l) { l.ln1.epsilon = l.ln2.epsilon = 1e-6; })},
      {"mix of the mixes left out", [](Net& net) { faults::set(net, "att.time_maa_x", 0); }}};
  for (const auto& [name, alter] : altered) table.add(name, oracles.from_golden(alter), oracles.from_live(alter));
  table.check("RWKV-6");
}
