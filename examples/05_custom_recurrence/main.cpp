// A recurrence of one's own, written once: run token by token, as a sequence and as a scan over time, in a model whose
// other layers are RWKV-4.
#include <rwkv/check/live_weights.hpp>
#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include "../program.hpp"

using namespace rwkv;

// [cell]
// h_t = (1 - z_t) h_{t-1} + z_t c_t,  y_t = h_t        z_t = sigmoid(gate), c_t = value
struct LeakyGate {
  static constexpr auto inputs = Inputs{"gate", "value"};  // one projection of the token each
  static constexpr int state_size = 1;                     // numbers kept per channel

  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    h[0] = (1 - z) * h[0] + z * x[1];
    return h[0];
  }
};
static_assert(Recurrence<LeakyGate>);
// [cell]

// [scan]
struct ScannableLeakyGate : LeakyGate {
  template <class R>
  struct Map {  // a stretch of time: h -> keep h + add
    R keep, add;
  };
  template <class R>
  RWKV_HD static Map<R> lift(const R (&x)[2]) {
    const R z = sigmoid(x[0]);
    return {1 - z, z * x[1]};
  }
  template <class R>
  RWKV_HD static Map<R> compose(const Map<R>& earlier, const Map<R>& later) {
    return {earlier.keep * later.keep, later.keep * earlier.add + later.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Map<R>& stretch) {
    h[0] = stretch.keep * h[0] + stretch.add;
  }
};
static_assert(Scannable<ScannableLeakyGate>);
// [scan]

// [model]
template <class Cell, class T, class B>
using Pair = Chain<Layer<TimeMix<V4, T, B>, ChannelMix<V4, T, B>>,     // an RWKV-4 layer,
                   Layer<CellMix<Cell, T, B>, ChannelMix<V4, T, B>>>;  // then one around the cell
template <class Cell, class T, class B>
using Net = Model<Embedding<T, B>, Stack<Pair<Cell, T, B>>, Head<T, B>>;
// [model]

namespace {

double seconds_of(auto&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, double(std::abs(a[i] - b[i])));
  return largest;
}

/// The cell alone over one long and narrow sequence: 16 channels leave nothing but time to share among threads.
template <class Cell, class Schedule>
std::vector<float> run_cell(Schedule schedule, const char* what) {
  const Index time = 200'000, width = 16;
  std::vector<float> gate(static_cast<std::size_t>(time * width)), value = gate, out = gate, state(16);
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const auto random = Philox{.key = 1}.block(i);
    gate[i] = 4 * random.uniform_float(0) - 2;
    value[i] = 2 * random.uniform_float(1) - 1;
  }
  Cpu cpu(2);
  const Memory<Cpu> scratch(cpu, 1 << 24);
  const auto view = [&](std::vector<float>& x) { return Seq<float>{x.data(), 1, time, width}; };
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 7; ++repeat) {
    std::fill(state.begin(), state.end(), 0.0f);
    seconds.push_back(seconds_of([&] {
      cpu.recur(scratch.arena(), schedule, Cell{}, Extent<1>{}, matrix(state.data(), 1, width), arg::in(view(gate)),
                arg::in(view(value)), arg::out(view(out)));
    }));
  }
  std::nth_element(seconds.begin(), seconds.begin() + 3, seconds.end());
  std::printf("  %-38s %6.2f ns per token\n", what, seconds[3] / static_cast<double>(time) * 1e9);
  return out;
}

void run() {
  const ModelSizes sizes{.vocab = 256, .width = 128, .depth = 4};
  Net<ScannableLeakyGate, float, Cpu> net(sizes, Cpu(2));
  live_weights(net, 1);
  std::vector<Token> text(300);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i * 37 % 256);

  std::vector<float> steps(text.size() * 256), sequence = steps;
  net.context({.chunk = 1}).sequence(text, steps);
  net.context().sequence(text, sequence);
  std::printf("a model of %td layers and %td parameters, every second layer around the cell\n", sizes.depth,
              net.parameter_count());
  const double apart = largest_difference(steps, sequence);
  expects(apart < 1e-4, "steps and sequence differ by ", apart);
  std::printf("  step by step against sequence: largest difference of a logit %.1e\n\n", apart);

  std::printf("the cell alone, 200 000 tokens of 16 channels, 2 threads\n");
  const auto plain = run_cell<LeakyGate>(Sequential{}, "step only: token after token");
  const auto scanned = run_cell<ScannableLeakyGate>(Scan{1024}, "with lift, compose, enter: a scan");
  const double rounding = largest_difference(plain, scanned);
  expects(rounding < 1e-4, "scan and sequence differ by ", rounding);
  std::printf("  the two against each other: largest difference %.1e\n", rounding);
}

}  // namespace

int main() {
  return example::run_program("custom_recurrence", [] {
    run();
    return 0;
  });
}
