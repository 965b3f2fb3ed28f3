#pragma once
/// What decides how a training run goes.
#include <map>
#include <string>
#include <string_view>

#include "rwkv/core/error.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/model/cascade.hpp"
#include "rwkv/system/glob.hpp"
#include "rwkv/train/adamw.hpp"
#include "rwkv/train/lora.hpp"
#include "rwkv/train/schedule.hpp"
#include "rwkv/train/token_data.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a model is trained. Clipping, the parameter groups and the L2 wrap are those of the official recipe.
struct TrainerOptions {
  BatchShape shape{};       ///< of every batch
  LearningRate rate{};      ///< by step
  AdamW optimizer{};        ///< its constants
  double clip = 1.0;        ///< the largest norm of the whole gradient; 0: no limit
  bool l2_wrap = true;      ///< see GradientOptions
  double average = 0;       ///< decay of an exponential moving average of the trained parameters; 0: no average
  std::string frozen{};     ///< pattern of parameters that stay as they are, such as {emb,head}.*
  Lora lora{};              ///< matrices trained through low-rank factors
  Miss miss{};              ///< matrices trained through MiSS
  bool tune_state = false;  ///< train the initial state and nothing else
  Seed seed{};              ///< of the initial low-rank factors
  Index head_chunk = 256;   ///< see GradientOptions
  LayerOrder order = LayerOrder::automatic;  ///< see GradientOptions; the bits are the same
};

namespace detail {

/// How matrices are trained through factors; by default none are.
struct Factoring {
  std::string_view matrices{};  // pattern
  Index rank = 0;
  double alpha = 0, scale = 0;
  bool is_miss = false;

  bool any() const { return !matrices.empty(); }
  std::string_view word() const { return is_miss ? "MiSS" : "low-rank factors"; }
};

inline Factoring factoring(const TrainerOptions& o) {
  if (!o.miss.matrices.empty()) return {o.miss.matrices, o.miss.rank, o.miss.alpha, o.miss.scale(), true};
  if (!o.lora.matrices.empty()) return {o.lora.matrices, o.lora.rank, o.lora.alpha, o.lora.scale(), false};
  return {};
}

/// Throws an Error where they make no sense, and returns them.
inline const TrainerOptions& checked(const TrainerOptions& options) {
  options.rate.check();
  options.optimizer.check();
  expects(!is_nan(options.clip) && options.clip >= 0,
          "rwkv: the limit of the gradient's norm must not be negative, as ", options.clip, " is");
  expects(is_between(options.average, 0, 1) && options.average < 1,
          "rwkv: the decay of the moving average must be in [0, 1), not ", options.average);
  const Factoring factors = factoring(options);
  expects(!factors.any() || (factors.rank > 0 && is_finite(factors.alpha) && factors.alpha > 0),
          "rwkv: ", factors.is_miss ? "MiSS needs" : "low-rank factors need", " a rank and an alpha above zero, not ",
          factors.rank, " and ", factors.alpha);
  const int ways =
      (options.tune_state ? 1 : 0) + (options.lora.matrices.empty() ? 0 : 1) + (options.miss.matrices.empty() ? 0 : 1);
  expects(ways <= 1, "rwkv: a run trains the initial state, low-rank factors or MiSS, not several of them");
  return options;
}

/// Whether a run without a tuned state trains a parameter, itself or through factors.
inline bool is_trained(const TrainerOptions& options, const TensorSpec& spec) {
  if (!options.frozen.empty() && glob_matches(options.frozen, spec.name)) return false;
  const Factoring factors = factoring(options);
  return !factors.any() || glob_matches(factors.matrices, spec.name);
}

inline std::string_view name_of(LearningRate::Decay decay) {
  switch (decay) {
    case LearningRate::constant: return "constant";
    case LearningRate::linear: return "linear";
    case LearningRate::cosine: return "cosine";
    case LearningRate::exponential: return "exponential";
  }
  return "of no kind";
}

/// Everything that decides what a step does. `sum` says how the gradients of sequences are added.
inline std::map<std::string, std::string> in_words(const TrainerOptions& o, const std::string& sum) {
  std::string trained = o.tune_state ? "the initial state" : "the parameters";
  if (const Factoring factors = factoring(o); factors.any()) {
    trained = join(factors.is_miss ? "MiSS" : "factors", " of rank ", factors.rank, " and alpha ", factors.alpha,
                   " of '", factors.matrices, "'");
  }
  if (!o.frozen.empty()) trained += join(", without '", o.frozen, "'");
  if (o.average > 0) trained += join(", average ", o.average);
  return {{"batch", join(o.shape.batch, " x ", o.shape.length)},
          {"rate", join(o.rate.peak, " to ", o.rate.final, " in ", o.rate.steps, " steps, warm-up ", o.rate.warmup,
                        " from ", o.rate.start, ", decay ", name_of(o.rate.decay))},
          {"optimizer", join("betas ", o.optimizer.beta1, " ", o.optimizer.beta2, ", epsilon ", o.optimizer.epsilon,
                             ", weight decay ", o.optimizer.weight_decay, o.optimizer.decay_vectors ? " of all" : "",
                             o.optimizer.table_rates ? ", rates of the tables" : "")},
          {"gradient", join("clip ", o.clip, o.l2_wrap ? ", l2 wrap" : "", ", head chunk ", o.head_chunk, sum)},
          {"trained", trained}};
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
