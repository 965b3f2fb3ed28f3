/// A step of training of the 169M shape: gradient, clipping and AdamW. The model computes in float, so its products are
/// sums of multiply-adds: the FMA peak is its ceiling, and the goal for a step, a share of the bf16 matrix peak, waits
/// for training that multiplies in bf16.
#include <chrono>

#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/model/model.hpp"
#include "rwkv/train/trainer.hpp"
#include "suite.cuh"

namespace bench {

namespace {

using Net = rwkv::LanguageModel<rwkv::V4, float, Cuda>;

/// A batch that goes on from the state of the one before, as most do.
rwkv::Batch random_batch(const rwkv::BatchShape& shape, Index vocab) {
  const rwkv::Philox random{.key = 5};
  const auto token = [&](Index i) {
    return static_cast<rwkv::Token>(random.block(static_cast<std::uint64_t>(i)).words[0] %
                                    static_cast<std::uint32_t>(vocab));
  };
  rwkv::Batch batch;
  batch.shape = shape;
  batch.fresh = false;
  for (Index i = 0; i < shape.batch * shape.length; ++i) {
    batch.tokens.push_back(token(i));
    batch.targets.push_back(token(i + 1));
  }
  return batch;
}

template <class P>
void step(Suite& suite, const char* policy, const rwkv::BatchShape& shape) {
  const rwkv::ModelSizes sizes{.vocab = 50277, .width = 768, .depth = 12};
  Case what{std::string("training step, ") + policy, "169M " + by(shape.batch, shape.length), "fp32"};
  what.work.unit = Work::fma;
  suite.run(what, [&] {
    Net net(sizes, suite.backend());
    fill_parameters(net);
    double matrices = 0, weights = 0;
    for (const auto& parameter : net.parameters()) {
      const double count = static_cast<double>(parameter.shape.count());
      if (parameter.role == rwkv::Role::matrix || parameter.role == rwkv::Role::head) matrices += count;
      weights += count * sizeof(float);
    }
    const double tokens = static_cast<double>(shape.batch * shape.length);
    // Weights both ways, their gradient, and what clipping and AdamW read and write.
    what.work.read = 8 * weights;
    what.work.written = 4 * weights;
    what.work.flops = 6 * matrices * tokens;
    rwkv::TrainerOptions options;
    options.shape = shape;
    options.rate = {.peak = 1e-5, .decay = rwkv::LearningRate::constant};
    options.head_chunk = 2048;
    rwkv::Trainer<Net, P> trainer(net, options);
    const rwkv::Batch batch = random_batch(shape, sizes.vocab);
    using Clock = std::chrono::steady_clock;
    std::vector<double> seconds;
    double all = 0;
    constexpr double most_seconds = 12;
    for (int r = -2; r < Suite::repeats && (r < 3 || all < most_seconds); ++r) {
      const auto begin = Clock::now();
      static_cast<void>(trainer.step(batch));
      const double once = std::chrono::duration<double>(Clock::now() - begin).count();
      all += once;
      if (r >= 0) seconds.push_back(once);
    }
    char remark[96];
    std::snprintf(remark, sizeof remark, "%.0f tokens/s; %.1f %% of the FMA peak", tokens / median(seconds),
                  what.work.flops / median(seconds) / suite.ceilings().fma * 100);
    suite.report(what, seconds, remark);
  });
}

}  // namespace

void add_training(Suite& suite) {
  suite.section("Training");
  const rwkv::BatchShape shape{.batch = suite.quick() ? 4 : 32, .length = 1024};
  step<rwkv::Keep>(suite, "keep", shape);
  if (!suite.quick()) step<rwkv::Recompute>(suite, "recompute", shape);
}

}  // namespace bench
