/// Composition: chains, stacks of chains, user recurrences, mixed with the blocks of a version.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include "../configs.hpp"
#include "../gates.hpp"
#include "../golden.hpp"
#include "live.hpp"

using namespace rwkv;
using config::all_logits;
using config::live;
using config::some_tokens;

namespace {

/// h_t = (1 - z_t) h_{t-1} + z_t c_t, y_t = h_t, with z = sigmoid(gate) and c = value.
struct LeakyGate {
  static constexpr auto inputs = Inputs{"gate", "value"};
  static constexpr int state_size = 1;
  template <class R>
  struct Map {  // h -> keep h + add
    R keep, add;
  };
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static Map<R> lift(const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    return {R(1) - z, z * x[1]};
  }
  template <class R>
  RWKV_HD static Map<R> compose(const Map<R>& a, const Map<R>& b) {
    return {a.keep * b.keep, b.keep * a.add + b.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Map<R>& map) {
    h[0] = map.keep * h[0] + map.add;
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    enter(h, lift(x));
    return h[0];
  }
};
static_assert(Scannable<LeakyGate>);

/// The same recurrence, not scannable.
struct StepOnly {
  static constexpr auto inputs = LeakyGate::inputs;
  static constexpr int state_size = 1;
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    LeakyGate::init(h);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    return LeakyGate::step(h, x);
  }
};
static_assert(Recurrence<StepOnly> && !Scannable<StepOnly>);

using Version = V4;  // whose tensors are named below

template <class T, class B>
using Plain = Layer<TimeMix<Version, T, B>, ChannelMix<Version, T, B>>;
template <class Cell, class T, class B>
using Own = Layer<CellMix<Cell, T, B>, ChannelMix<Version, T, B>>;
template <class Cell, class T, class B>
using Hybrid = Model<Embedding<T, B>, Stack<Chain<Plain<T, B>, Own<Cell, T, B>>>, Head<T, B>>;

}  // namespace

TEST_CASE_TEMPLATE("a user's recurrence runs in a stack with RWKV-4 layers, by step, sequence and scan", C,
                   config::Config<double, Reference>, config::Config<float, Cpu, 2>) {
  using T = typename C::scalar;
  using B = typename C::Backend;
  const ModelSizes sizes{.vocab = 20, .width = 12, .depth = 4};
  const auto net = live<Hybrid<LeakyGate, T, B>>(sizes, C::backend());
  const auto tokens = some_tokens(600, sizes.vocab);
  const auto whole = all_logits(net, tokens, {.chunk = 600});
  const auto steps = all_logits(net, tokens, {.chunk = 1});
  const double limit = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  CHECK(golden::relative_error(whole, steps) < limit);
  const auto step_only = live<Hybrid<StepOnly, T, B>>(sizes, C::backend());
  CHECK(golden::relative_error(all_logits(step_only, tokens), steps) < limit);
}

TEST_CASE("a user's row cell runs in a stack with RWKV-4 layers, on the CPU with the bits of its steps") {
  const ModelSizes sizes{.vocab = 20, .width = 18, .depth = 4, .head_size = 6};
  const auto tokens = some_tokens(70, sizes.vocab);
  const auto net = live<Hybrid<config::Attention, float, Cpu>>(sizes, Cpu(2));
  const auto whole = all_logits(net, tokens, {.chunk = 70});
  CHECK(all_logits(net, tokens, {.chunk = 1}) == whole);
  const auto exact = live<Hybrid<config::Attention, double, Reference>>(sizes, {});
  CHECK(golden::relative_error(whole, all_logits(exact, tokens)) < 2e-5);
}

TEST_CASE("both backends agree on a hybrid") {
  const ModelSizes sizes{.vocab = 20, .width = 18, .depth = 2};
  const auto tokens = some_tokens(40, sizes.vocab);
  CHECK(golden::relative_error(all_logits(live<Hybrid<LeakyGate, float, Cpu>>(sizes, Cpu(2)), tokens),
                               all_logits(live<Hybrid<LeakyGate, double, Reference>>(sizes, {}), tokens)) < 2e-5);
}

TEST_CASE("layers of a stack of chains are numbered through, and named after their inputs") {
  const Hybrid<LeakyGate, float, Cpu> net({.vocab = 5, .width = 4, .depth = 4});
  std::vector<std::string> names;
  for (const auto& parameter : net.parameters()) names.push_back(parameter.name);
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  CHECK(has("blocks.0.att.time_decay"));
  CHECK(has("blocks.1.att.time_mix_gate"));
  CHECK(has("blocks.1.att.value.weight"));
  CHECK(has("blocks.2.att.time_first"));
  CHECK(has("blocks.3.ffn.key.weight"));
  CHECK_FALSE(has("blocks.1.att.time_decay"));
  CHECK_THROWS_WITH_AS((Hybrid<LeakyGate, float, Cpu>({.vocab = 5, .width = 4, .depth = 3})),
                       "rwkv: a depth of 3 is no positive multiple of the pattern's 2 layers", Error);
}

TEST_CASE("a hybrid survives a file") {
  using Net = Hybrid<LeakyGate, float, Cpu>;
  const auto path = std::filesystem::temp_directory_path() / "rwkv_hybrid_round_trip.safetensors";
  const auto net = live<Net>({.vocab = 12, .width = 10, .depth = 2}, Cpu());
  save_checkpoint(net, path);
  const auto tokens = some_tokens(9, 12);
  CHECK(all_logits(load_checkpoint<Net>(path), tokens) == all_logits(net, tokens));
  std::filesystem::remove(path);
}

TEST_CASE("a chain is a body by itself") {
  using T = float;
  using B = Cpu;
  using Net = Model<Embedding<T, B>, Stack<Chain<Plain<T, B>, Plain<T, B>>, 1>, Head<T, B>>;
  const ModelSizes sizes{.vocab = 12, .width = 10, .depth = 2};
  const auto tokens = some_tokens(9, 12);
  CHECK(all_logits(live<Net>(sizes, Cpu()), tokens) ==
        all_logits(live<LanguageModel<Version, T, B>>(sizes, Cpu()), tokens));
}
