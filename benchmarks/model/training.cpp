/// A training step of RWKV-4 and 7 in float: the gradient alone, and the whole step with clipping and AdamW; each with the
/// policies Keep and Recompute.
#include "../report.hpp"
#include "training_work.hpp"

namespace {

using bench::Index;
using bench::TrainingShape;
using rwkv::Cpu;

/// Like bench::measure, but with the FMA peak measured around every step: on a shared host the clock may change during
/// a step this long.
template <class Body>
void measure_steps(benchmark::State& state, const bench::Work& work, const Body& body) {
  body();  // warms up
  std::vector<double> peaks{bench::detail::fma_rate(work.threads)};
  double seconds = 0;
  for (auto _ : state) {
    const auto start = bench::Clock::now();
    body();
    const double step = bench::seconds_since(start);
    state.SetIterationTime(step);
    seconds += step;
    peaks.push_back(bench::detail::fma_rate(work.threads));
  }
  bench::report(state, seconds, work, bench::median(peaks));
}

/// The bytes of a step. Forward and backward pass read every weight; the backward pass reads and writes its gradient;
/// clipping reads the gradient; AdamW reads weight, gradient and moments and writes weight and moments.
template <class Net>
bench::Work work_of(const Net& net, const TrainingShape& shape, int threads, bool update) {
  const double weights = static_cast<double>(net.parameter_count()) * sizeof(float);
  return {.bytes = weights * (update ? 4 + 8 : 4),
          .flops = bench::training_flops(net, shape),
          .tokens = shape.tokens(),
          .working_set = weights * (update ? 4 : 2),
          .threads = threads};
}

template <class V, class P>
void gradient(benchmark::State& state, const TrainingShape& shape, int threads) {
  auto net = bench::training_model<V>(shape, Cpu(threads));
  rwkv::Gradient<decltype(net), P> gradient(net, {.batch = shape.batch, .length = shape.length});
  const rwkv::Batch batch = bench::training_batch(shape);
  measure_steps(state, work_of(net, shape, threads, false),
                [&] { benchmark::DoNotOptimize(gradient.add(batch.tokens, batch.targets)); });
}

template <class V, class P>
void step(benchmark::State& state, const TrainingShape& shape, int threads) {
  auto net = bench::training_model<V>(shape, Cpu(threads));
  rwkv::Trainer<decltype(net), P> trainer(net, bench::training_options(shape));
  const rwkv::Batch batch = bench::training_batch(shape);
  measure_steps(state, work_of(net, shape, threads, true), [&] { benchmark::DoNotOptimize(trainer.step(batch)); });
}

/// Registers a benchmark that reports its own time per step.
template <class Run>
void add(const std::string& name, Run run) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(run))->UseManualTime();
}

template <class V, class P>
void add_policy(const char* version, const TrainingShape& shape, const char* policy) {
  for (const int threads : {1, 2}) {
    const std::string name = rwkv::join("/", version, shape.name, "/", policy, "/", threads, "threads");
    add("gradient" + name, [=](auto& state) { gradient<V, P>(state, shape, threads); });
    add("step" + name, [=](auto& state) { step<V, P>(state, shape, threads); });
  }
}

const bool registered = [] {
  for (const TrainingShape& shape : bench::training_shapes) {
    add_policy<rwkv::V4, rwkv::Keep>("", shape, "keep");
    add_policy<rwkv::V4, rwkv::Recompute>("", shape, "recompute");
  }
  add_policy<rwkv::V7, rwkv::Keep>("7-", bench::training_shapes[0], "keep");
  return true;
}();

}  // namespace
