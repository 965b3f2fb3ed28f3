#pragma once
/// The learning rate over a training run.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/finite.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The learning rate of every step: a linear warm-up, then a decay from `peak` to `final`.
///
///     rate(n) = peak (start + (1 - start) n / warmup)      n < warmup
///     rate(n) = the decay at p = (n + 1 - warmup) / (steps - warmup), at most 1, otherwise
///
///     constant      peak
///     linear        peak + (final - peak) p
///     cosine        final + (peak - final) (1 + cos(pi p)) / 2
///     exponential   peak (final / peak)^p
///
/// So the last of the `steps` steps has the rate `final`, unless it belongs to the warm-up, and so has every later step.
/// This is the schedule of BlinkDL/RWKV-LM (exponential; RWKV-4 warms up from start = 0.2, later versions from 0.01).
struct LearningRate {
  /// The curve from `peak` to `final`.
  enum class Decay : unsigned char { constant, linear, cosine, exponential };
  // Not `using enum`: g++ 12 fails when a template uses it.
  static constexpr Decay constant = Decay::constant;        ///< no decay
  static constexpr Decay linear = Decay::linear;            ///< a line
  static constexpr Decay cosine = Decay::cosine;            ///< half a period of a cosine
  static constexpr Decay exponential = Decay::exponential;  ///< a line on a logarithmic axis

  double peak = 6e-4;    ///< the highest rate
  double final = 1e-5;   ///< at most `peak`; above zero for an exponential decay; ignored by a constant rate
  Index steps = 0;       ///< length of the run, warm-up included; ignored by a constant rate
  Index warmup = 0;      ///< steps of the warm-up
  double start = 0.01;   ///< the warm-up starts at this fraction of the peak
  Decay decay = cosine;  ///< how it falls

  /// Errors    settings that make no schedule, see check(); a negative step
  double operator()(Index step) const {
    check();
    expects(step >= 0, "rwkv: learning rate: there is no step ", step);
    if (step < warmup) return peak * (start + (1 - start) * static_cast<double>(step) / static_cast<double>(warmup));
    if (decay == constant) return peak;
    if (step >= steps - 1) return final;
    const double p = static_cast<double>(step + 1 - warmup) / static_cast<double>(steps - warmup);
    switch (decay) {
      case linear: return peak + (final - peak) * p;
      case cosine: return final + (peak - final) * (1 + std::cos(std::numbers::pi * p)) / 2;
      case exponential: return peak * std::exp(std::log(final / peak) * p);
      case constant: break;
    }
    return peak;
  }

  /// Throws an Error that names the first setting that makes no sense.
  void check() const {
    constexpr std::string_view who = "rwkv: learning rate: ";
    expects(is_finite(peak) && peak > 0, who, "the peak must be above zero, not ", peak);
    expects(warmup >= 0, who, "the warm-up must not have ", warmup, " steps");
    expects(is_between(start, 0, 1), who, "the warm-up must start from a part of the peak between 0 and 1, not ",
            start);
    if (decay == constant) return;
    expects(steps > 0, who, "a decay needs a number of steps above zero, not ", steps);
    expects(warmup <= steps, who, "a warm-up of ", warmup, " steps does not fit into ", steps);
    expects(is_between(final, 0, peak), who, "the final rate must be between zero and the peak of ", peak, ", not ",
            final);
    expects(final > 0 || decay != exponential, who, "an exponential decay never reaches zero");
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
