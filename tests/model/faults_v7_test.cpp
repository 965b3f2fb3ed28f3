/// Faults that ports of RWKV-7 have had or could have had, most of which the small published models do not show. Each is
/// injected by a template parameter (the recurrence, the backend, a block) or by the weights, and must be detected.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../instances.hpp"
#include "faults.hpp"

using namespace rwkv;

namespace {

using S = double;

enum class FaultV7 {
  none,
  key_after_update,
  coarse_constant,
  rounded_constant,
  not_normalised,
  floor_added,
  no_rate_in_write,
  no_tanh,
  no_inner_sigmoid,
  no_value_residual,
  no_removal,
  transposed_removal,
  read_before_update,
  att_shift_forgotten,
  ffn_shift_forgotten,
  wkv_forgotten,
};
FaultV7 fault = FaultV7::none;

/// PrepareKeys with a fault.
struct FaultyKeys : PrepareKeys {
  template <class R>
  static R key_of(R k, R a_in, R a0, R k_a) {
    return k * (R(1) + (sigmoid(a0 + a_in) - R(1)) * k_a);
  }
  template <class R, class... Rest>
  void reduce(Stage<0>, const R*, R* terms, R k, R, R a_in, R, R a0, R k_k, R k_a, const Rest&...) const {
    const R of = fault == FaultV7::key_after_update ? key_of(k, a_in, a0, k_a) : k;
    terms[0] = of * k_k * (of * k_k);
  }
  template <class R>
  void finish(Stage<0>, R* totals) const {
    if (fault == FaultV7::not_normalised) totals[0] = R(1);
    else if (fault == FaultV7::floor_added) totals[0] = R(1) / sqrt(totals[0] + R(1e-6));
    else PrepareKeys::finish(Stage<0>{}, totals);
  }
  template <class R>
  void map(const R* totals, R k, R w_in, R a_in, R w0, R a0, R k_k, R k_a, R& decay, R& key, R& remove,
           R& write) const {
    PrepareKeys::map(totals, k, w_in, a_in, w0, a0, k_k, k_a, decay, key, remove, write);
    if (fault == FaultV7::key_after_update) {
      remove = -key * k_k * totals[0];
      write = -remove * sigmoid(a0 + a_in);
    }
    if (fault == FaultV7::no_rate_in_write) write = -remove;
    if (fault == FaultV7::coarse_constant) decay = exp(R(-0.6065) * sigmoid(w0 + w_in));
    if (fault == FaultV7::rounded_constant) decay = exp(R(-0.606531) * sigmoid(w0 + w_in));
  }
};

/// WKV7 with a fault.
struct FaultyWkv7 : WKV7 {
  template <class R, class State, class Head>
  static R step(State state, const R (&x)[1], const Head& head) {
    R removed = R(0), before = R(0);
    for (Index n = 0; n < state.size; ++n) {
      removed += state[n] * head(a, n);
      before += state[n] * head(receptance, n);
    }
    if (fault == FaultV7::no_removal) removed = R(0);
    R y = R(0);
    for (Index n = 0; n < state.size; ++n) {
      state[n] = state[n] * head(decay, n) + removed * head(b, n) + x[0] * head(key, n);
      y += state[n] * head(receptance, n);
    }
    return fault == FaultV7::read_before_update ? before : y;
  }
};

/// A backend that runs the row programs, products and recurrences of RWKV-7 with a fault.
struct FaultyV7Backend : Reference {
  using Reference::recur;
  using Reference::rows;

  template <class... Op>
  void rows(const PrepareKeys& program, const Op&... ops) {
    Reference::rows(FaultyKeys{program}, ops...);
  }
  template <class U, class First, class Data, class Bias, class Y>
  void rows(const MixValues& program, const U& u, const First& first, const Data& x, const Bias& bias, const Y& y) {
    if (fault == FaultV7::no_value_residual) Reference::rows(Copy{}, u, y);
    else Reference::rows(program, u, first, x, bias, y);
  }

  template <class... P>
  void gemm(const P&... products) {
    (multiply(products), ...);
  }

  template <class T, Index M, class... Op>
  void recur(Arena ws, Sequential schedule, FaultyWkv7 cell, Extent<dyn> length, Mat<T, M> state, const Op&... ops) {
    if (fault != FaultV7::transposed_removal) Reference::recur(ws, schedule, cell, length, state, ops...);
    else if (!dry) with_transposed_removal(length, state, ops...);
  }

 private:
  template <class P>
  void multiply(const P& product) {
    Reference::gemm(product);
  }
  template <class T, class W>
  void multiply(const Product<T, W, Tanh>& product) {
    without_epilogue(product, fault == FaultV7::no_tanh);
  }
  template <class T, class W>
  void multiply(const Product<T, W, Sigmoid>& product) {
    without_epilogue(product, fault == FaultV7::no_inner_sigmoid);
  }
  template <class T, class W, class E>
  void without_epilogue(const Product<T, W, E>& product, bool faulty) {
    if (faulty) Reference::gemm(Product<T, W>{product.y, product.x, product.w, {}});
    else Reference::gemm(product);
  }

  /// The recurrence, where the transpose of S takes part in the removal. A lane sees only its own row of S, so this is no
  /// fault of a cell.
  template <class State, class V, class R, class W, class K, class A, class B, class Y>
  static void with_transposed_removal(Index size, State state, const V& v, const R& r, const W& w, const K& k,
                                      const A& a, const B& b, const Y& out) {
    const Seq<S> y = out.y;
    std::vector<S> removed(static_cast<std::size_t>(size));
    for (Index s = 0; s < y.batch; ++s) {
      for (Index t = 0; t < y.time; ++t) {
        for (Index begin = 0; begin < y.width; begin += size) {
          const auto at = [&](Index key, Index value) -> S& { return state.row(s)[begin * size + key * size + value]; };
          for (Index i = 0; i < size; ++i) {
            S& sum = removed[static_cast<std::size_t>(i)] = 0;
            for (Index n = 0; n < size; ++n) sum += at(i, n) * a.row(s, t)[begin + n];
          }
          for (Index i = 0; i < size; ++i) {
            S read = 0;
            for (Index n = 0; n < size; ++n) {
              const Index c = begin + n;
              at(n, i) = at(n, i) * w.row(s, t)[c] + removed[static_cast<std::size_t>(i)] * b.row(s, t)[c] +
                         v.row(s, t)[begin + i] * k.row(s, t)[c];
              read += at(n, i) * r.row(s, t)[c];
            }
            y.row(s, t)[begin + i] = read;
          }
        }
      }
    }
  }
};
using B = FaultyV7Backend;

struct FaultyV7 : V7 {
  using Cell = FaultyWkv7;
  using Schedule = Sequential;
};

struct FaultyTimeMixV7 : TimeMix<FaultyV7, S, B> {
  using TimeMix::forward;
  using TimeMix::TimeMix;
  void forward(B& be, Arena ws, Side& side, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == FaultV7::att_shift_forgotten) be.fill(state.shift, S(0));
    if (fault == FaultV7::wkv_forgotten) state.wkv.reset(be);
    TimeMix::forward(be, ws, side, x, state, y);
  }
};
struct FaultyChannelMixV7 : ChannelMix<FaultyV7, S, B> {
  using ChannelMix::ChannelMix;
  void forward(B& be, Arena ws, Seq<const S> x, State& state, Seq<S> y) const {
    if (fault == FaultV7::ffn_shift_forgotten) be.fill(state.shift, S(0));
    ChannelMix::forward(be, ws, x, state, y);
  }
};
using LayerOfV7 = Layer<FaultyTimeMixV7, FaultyChannelMixV7>;
using Net = Model<faults::FaultyEmbedding<B>, Stack<LayerOfV7>, faults::FaultyHead<B>>;
using Oracles = faults::Oracles<V7, Net>;

}  // namespace

TEST_CASE("the oracles accept RWKV-7, and catch every single fault") {
  const Oracles oracles;
  CHECK(oracles.from_golden() < 1e-9);
  CHECK(oracles.from_live() == 0);
  CHECK(oracles.from_library() < 1e-12);

  faults::Table table;
  const std::pair<FaultV7, const char*> switched[] = {
      {FaultV7::key_after_update, "removal key from the updated key"},
      {FaultV7::coarse_constant, "constant of the decay 0.6065"},
      {FaultV7::rounded_constant, "constant of the decay 0.606531"},
      {FaultV7::not_normalised, "removal key not normalised"},
      {FaultV7::floor_added, "1e-6 added under the root of the removal key's length"},
      {FaultV7::no_rate_in_write, "rate left out of the write term"},
      {FaultV7::no_tanh, "tanh left out of the decay"},
      {FaultV7::no_inner_sigmoid, "inner sigmoid left out of the gate"},
      {FaultV7::no_value_residual, "value residual left out"},
      {FaultV7::no_removal, "removal term left out"},
      {FaultV7::transposed_removal, "state transposed in the removal term"},
      {FaultV7::read_before_update, "read before the update"},
      {FaultV7::att_shift_forgotten, "time mix: shift state not carried"},
      {FaultV7::ffn_shift_forgotten, "channel mix: shift state not carried"},
      {FaultV7::wkv_forgotten, "recurrent state not carried"}};
  for (const auto& [which, name] : switched) {
    fault = which;
    table.add(name, oracles.from_golden(), oracles.from_live());
  }
  fault = FaultV7::none;
  faults::no_ln0 = true;
  table.add("ln0 left out", oracles.from_golden(), oracles.from_live());
  faults::no_ln0 = false;

  const auto in_each_layer = [](auto change) {
    return [change](Net& net) { std::for_each(net.parts.body.parts.begin(), net.parts.body.parts.end(), change); };
  };
  const std::pair<const char*, Oracles::Alteration> altered[] = {
      {"epsilon of ln_x 1e-5", in_each_layer([](auto& l) { l.att.epsilon = 1e-5; })},
      {"epsilon of ln1 and ln2 1e-6", in_each_layer([](auto& l) { l.ln1.epsilon = l.ln2.epsilon = 1e-6; })},
      {"mixes of r and w exchanged", in_each_layer([](auto& l) { std::swap(l.att.params.mix_r, l.att.params.mix_w); })},
      {"mixes of k and v exchanged", in_each_layer([](auto& l) { std::swap(l.att.params.mix_k, l.att.params.mix_v); })},
      {"mixes of a and g exchanged", in_each_layer([](auto& l) { std::swap(l.att.params.mix_a, l.att.params.mix_g); })},
      {"update of the key left out", [](Net& net) { faults::set(net, "att.k_a", 0); }},
      {"bonus left out", [](Net& net) { faults::set(net, "att.r_k", 0); }}};
  for (const auto& [name, alter] : altered) table.add(name, oracles.from_golden(alter), oracles.from_live(alter));
  table.check("RWKV-7");
}
