#pragma once
/// Random weights under which every part of a model is alive: for tests and benchmarks, where a freshly initialised
/// model would hide faults behind its zeros.
#include <cmath>

#include "rwkv/core/fields.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"

namespace rwkv::inline RWKV_ABI {

/// Fills every parameter of a model according to its role: matrices uniform with unit gain, norms around one and zero,
/// mixes in [0, 1), decays and bonuses over their useful ranges. The same numbers for a seed whatever the scalar type.
template <class Net>
void live_weights(Net& net, std::uint64_t seed) {
  std::uint64_t stream = 0;
  for (auto& parameter : net.parameters()) {
    const Philox numbers{.key = seed, .stream = stream++};
    const Index count = parameter.shape.count();
    const double inputs = static_cast<double>(parameter.shape.sizes[parameter.shape.rank - 1]);
    for (Index i = 0; i < count; ++i) {
      const double u = numbers.block(static_cast<std::uint64_t>(i / 2)).uniform_double(static_cast<int>(i % 2));
      const double centred = 2 * u - 1;
      double value = 0;
      switch (parameter.role) {
        case Role::embedding: value = centred; break;
        case Role::head:
        case Role::matrix: value = centred * std::sqrt(3 / inputs); break;
        case Role::norm_scale: value = 1 + 0.3 * centred; break;
        case Role::norm_shift: value = 0.3 * centred; break;
        case Role::mix: value = u; break;
        case Role::decay: value = -5 + 6 * u; break;
        case Role::bonus: value = centred; break;
      }
      parameter.data[i] = narrow<typename Net::storage>(value);
    }
  }
}

}  // namespace rwkv::inline RWKV_ABI
