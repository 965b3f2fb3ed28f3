#pragma once
/// The models of the training benchmarks, and the cost of a step.
#include <algorithm>
#include <cstddef>
#include <vector>

#include "../synthetic.hpp"
#include "rwkv/train/trainer.hpp"

namespace bench {

struct TrainingShape {
  const char* name;
  rwkv::ModelSizes sizes;
  Index batch, length;

  double tokens() const { return static_cast<double>(batch * length); }
};
inline constexpr TrainingShape training_shapes[] = {
    {"L6-D512-T256-B4-V6064", {.vocab = 6064, .width = 512, .depth = 6}, 4, 256},
    {"L4-D160-T256-B16-V256", {.vocab = 256, .width = 160, .depth = 4}, 16, 256},
};

/// A model with live weights.
template <class V, class Backend>
auto training_model(const TrainingShape& shape, const Backend& be) {
  rwkv::LanguageModel<V, float, Backend> net(shape.sizes, be);
  FillParameters fill;
  for (auto& parameter : net.parameters()) fill(parameter, parameter);
  return net;
}

/// A batch that continues from the state of the previous batch, as most batches do.
inline rwkv::Batch training_batch(const TrainingShape& shape) {
  const auto token = [&](Index i) { return static_cast<rwkv::Token>(i * i * 7919 % shape.sizes.vocab); };
  rwkv::Batch batch;
  batch.shape = {shape.batch, shape.length};
  batch.fresh = false;
  for (Index i = 0; i < shape.batch * shape.length; ++i) {
    batch.tokens.push_back(token(i));
    batch.targets.push_back(token(i + 1));
  }
  return batch;
}

inline rwkv::TrainerOptions training_options(const TrainingShape& shape) {
  rwkv::TrainerOptions options;
  options.shape = {shape.batch, shape.length};
  options.rate = {.peak = 1e-5, .decay = rwkv::LearningRate::constant};
  return options;
}

/// Operations of the matrix products of a step: one forward and two backward products for every matrix except the
/// embedding table. Recomputation does not count.
template <class Net>
double training_flops(const Net& net, const TrainingShape& shape) {
  double numbers = 0;
  for (const auto& parameter : net.parameters()) {
    const bool multiplied = parameter.role != rwkv::Role::embedding && parameter.role != rwkv::Role::vector;
    if (multiplied) numbers += static_cast<double>(parameter.shape.count());
  }
  return 6 * numbers * shape.tokens();
}

}  // namespace bench
