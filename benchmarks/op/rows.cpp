/// The row programs between products, their adjoints, and the gather of embeddings: memory-bound, so each is one pass.
/// `_derived` is the adjoint from dual numbers, for comparison with the hand-written one.
#include "../report.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;
using rwkv::Cpu;
using rwkv::Seq;
using rwkv::Vec;
using Mix = rwkv::Mix<rwkv::MixCurrent>;
namespace arg = rwkv::arg;

/// A sequence that owns its numbers.
class OwnedSeq {
 public:
  OwnedSeq(Index time, Index width, std::uint64_t seed)
      : numbers_(bench::uniform<float>(time * width, -1, 1, seed)), time_(time), width_(width) {}
  Seq<float> view() { return {numbers_.data(), 1, time_, width_}; }
  Vec<const float> channels() const { return {numbers_.data(), width_}; }
  Vec<float> vector() { return {numbers_.data(), width_}; }

 private:
  std::vector<float> numbers_;
  Index time_, width_;
};

bench::Work passes(double sequences, Index time, Index width, double flops, int threads) {
  const double numbers = static_cast<double>(time * width);
  return {.bytes = sequences * numbers * sizeof(float),
          .flops = flops * numbers,
          .tokens = static_cast<double>(time),
          .threads = threads};
}

void layer_norm(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq x(time, width, 1), y(time, width, 2), scale(1, width, 3), shift(1, width, 4);
  bench::measure(state, passes(2, time, width, 10, threads),
                 [&] { rwkv::layer_norm(cpu, x.view(), scale.channels(), shift.channels(), 1e-5, y.view()); });
}

/// Three mixes of one x in one pass, which reads x once.
void mix_together(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq x(time, width, 1), last(1, width, 2), m0(1, width, 3), m1(1, width, 4), m2(1, width, 5), y0(time, width, 6),
      y1(time, width, 7), y2(time, width, 8);
  bench::measure(state, passes(4, time, width, 12, threads), [&] {
    cpu.rows(rwkv::Mix<rwkv::MixCurrent>{}, arg::in(x.view()), arg::prev(x.view(), last.view().flat()),
             arg::chan(m0.channels()), arg::chan(m1.channels()), arg::chan(m2.channels()), arg::out(y0.view()),
             arg::out(y1.view()), arg::out(y2.view()));
  });
}

/// For comparison: the same results in three passes.
void mix_apart(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq x(time, width, 1), last(1, width, 2), m0(1, width, 3), m1(1, width, 4), m2(1, width, 5), y0(time, width, 6),
      y1(time, width, 7), y2(time, width, 8);
  bench::measure(state, passes(4, time, width, 12, threads), [&] {
    const auto mix = [&](OwnedSeq& m, OwnedSeq& y) {
      cpu.rows(rwkv::Mix<rwkv::MixCurrent>{}, arg::in(x.view()), arg::prev(x.view(), last.view().flat()),
               arg::chan(m.channels()), arg::out(y.view()));
    };
    mix(m0, y0);
    mix(m1, y1);
    mix(m2, y2);
  });
}

void gate(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq r(time, width, 1), x(time, width, 2), y(time, width, 3);
  bench::measure(state, passes(3, time, width, 20, threads),
                 [&] { cpu.rows(rwkv::SigmoidGate{}, arg::in(r.view()), arg::in(x.view()), arg::out(y.view())); });
}

/// A program with its hand-written adjoint hidden.
template <class P>
struct WithoutAdjoint {
  P program{};
  template <class R, class... Rest>
  RWKV_HD void map(R first, Rest&... rest) const {
    program.map(first, rest...);
  }
};

/// Measures call(scratch), with scratch sized by a dry pass.
template <class Call>
void measure_with_scratch(benchmark::State& state, const bench::Work& work, Cpu& cpu, const Call& call) {
  const auto scratch = rwkv::scratch_for(cpu, call);
  bench::measure(state, work, [&] { call(scratch.arena()); });
}

void layer_norm_back(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq x(time, width, 1), dy(time, width, 2), dx(time, width, 3), scale(1, width, 4), dscale(1, width, 5),
      dshift(1, width, 6);
  measure_with_scratch(state, passes(3, time, width, 20, threads), cpu, [&](rwkv::Arena ws) {
    rwkv::layer_norm_back(cpu, ws, x.view(), scale.vector(), 1e-5, dy.view(), arg::out(dx.view()), dscale.vector(),
                          dshift.vector());
  });
}

template <class Program>
void mix_back(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq x(time, width, 1), last(1, width, 2), m0(1, width, 3), m1(1, width, 4), m2(1, width, 5), d0(time, width, 6),
      d1(time, width, 7), d2(time, width, 8), dx(time, width, 9), dlast(1, width, 10), dfirst(1, width, 11),
      dm0(1, width, 12), dm1(1, width, 13), dm2(1, width, 14);
  measure_with_scratch(state, passes(5, time, width, 18, threads), cpu, [&](rwkv::Arena ws) {
    rwkv::rows_back(cpu, ws, Program{}, arg::in(x.view()), arg::prev(x.view(), last.view().flat()),
                    arg::chan(m0.channels()), arg::chan(m1.channels()), arg::chan(m2.channels()), arg::cot(d0.view()),
                    arg::cot(d1.view()), arg::cot(d2.view()), arg::out(dx.view()),
                    arg::back(dx.view(), dlast.view().flat(), dfirst.view().flat()), arg::sum(dm0.vector()),
                    arg::sum(dm1.vector()), arg::sum(dm2.vector()));
  });
}

template <class Program>
void gate_back(benchmark::State& state, Index time, Index width, int threads) {
  Cpu cpu(threads);
  OwnedSeq r(time, width, 1), x(time, width, 2), dy(time, width, 3), dr(time, width, 4), dx(time, width, 5);
  measure_with_scratch(state, passes(5, time, width, 24, threads), cpu, [&](rwkv::Arena ws) {
    rwkv::rows_back(cpu, ws, Program{}, arg::in(r.view()), arg::in(x.view()), arg::cot(dy.view()), arg::out(dr.view()),
                    arg::out(dx.view()));
  });
}

template <class W>
void embedding(benchmark::State& state, Index time, Index width) {
  constexpr Index vocab = 50277;
  Cpu cpu(1);
  const auto table = bench::uniform<W>(vocab * width, -1, 1, 1);
  OwnedSeq y(time, width, 2);
  std::vector<rwkv::Token> tokens(static_cast<std::size_t>(time));
  std::uint64_t block = 0;
  const double row = static_cast<double>(width) * (sizeof(W) + sizeof(float));
  bench::measure(state,
                 {.bytes = row * static_cast<double>(time),
                  .tokens = static_cast<double>(time),
                  .working_set = static_cast<double>(vocab * width) * sizeof(W)},
                 [&] {
                   const rwkv::Philox random{.key = 3};
                   for (auto& token : tokens) token = static_cast<rwkv::Token>(random.block(block++).words[0] % vocab);
                   cpu.gather_rows(rwkv::matrix(table.data(), vocab, width), tokens, y.view().flat());
                 });
}

const bool registered = [] {
  for (const Index width : {768, 2048}) {
    for (const Index time : {1, 64, 512, 4096}) {
      for (const int threads : {1, 2}) {
        const std::string suffix = rwkv::join("/", width, "/T", time, "/", threads, "threads");
        bench::add("layer_norm" + suffix, [=](auto& state) { layer_norm(state, time, width, threads); });
        bench::add("mix3_one_pass" + suffix, [=](auto& state) { mix_together(state, time, width, threads); });
        bench::add("mix3_three_passes" + suffix, [=](auto& state) { mix_apart(state, time, width, threads); });
        bench::add("sigmoid_gate" + suffix, [=](auto& state) { gate(state, time, width, threads); });
        if (time == 1) continue;
        bench::add("layer_norm_back" + suffix, [=](auto& state) { layer_norm_back(state, time, width, threads); });
        bench::add("mix3_back" + suffix, [=](auto& state) { mix_back<Mix>(state, time, width, threads); });
        bench::add("mix3_back_derived" + suffix,
                   [=](auto& state) { mix_back<WithoutAdjoint<Mix>>(state, time, width, threads); });
        bench::add("sigmoid_gate_back" + suffix,
                   [=](auto& state) { gate_back<rwkv::SigmoidGate>(state, time, width, threads); });
        bench::add("sigmoid_gate_back_derived" + suffix,
                   [=](auto& state) { gate_back<WithoutAdjoint<rwkv::SigmoidGate>>(state, time, width, threads); });
      }
    }
    for (const Index time : {1, 512}) {
      bench::add(rwkv::join("embedding/", width, "/T", time, "/fp32"),
                 [=](auto& state) { embedding<float>(state, time, width); });
      bench::add(rwkv::join("embedding/", width, "/T", time, "/bf16"),
                 [=](auto& state) { embedding<rwkv::bf16>(state, time, width); });
    }
  }
  return true;
}();

}  // namespace
