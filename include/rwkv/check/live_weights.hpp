#pragma once
/// Random weights for tests and benchmarks, with which every part of a model influences its output. Many parameters of
/// a freshly initialised model are zero and would hide faults.
#include <cmath>

#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Where live numbers of a parameter lie: matrices have unit gain, vectors the range of their row.
struct LiveRange {
  double least, most;  ///< where the numbers lie
};
/// Where trained numbers of the parameter would lie.
inline LiveRange live_range(const TensorSpec& parameter) {
  if (parameter.role == Role::vector) return {parameter.least, parameter.most};
  if (parameter.role == Role::embedding) return {-1, 1};
  const double most = std::sqrt(3 / static_cast<double>(parameter.shape.sizes[parameter.shape.rank - 1]));
  return {-most, most};
}

/// Number i of a parameter, uniform over its range.
inline double live_value(const TensorSpec& parameter, const Philox& numbers, Index i) {
  const auto [least, most] = live_range(parameter);
  return least +
         (most - least) * numbers.block(static_cast<std::uint64_t>(i / 2)).uniform_double(static_cast<int>(i % 2));
}

/// Fills every parameter of a model with live values. A seed gives the same numbers for every scalar type.
template <class Net>
void live_weights(Net& net, std::uint64_t seed) {
  std::uint64_t stream = 0;
  auto backend = net.device();
  for (auto& parameter : net.parameters()) {
    const Philox numbers{.key = seed, .stream = stream++};
    write_numbers(backend, parameter.numbers(), [&](std::size_t i) {
      return narrow<typename Net::storage>(live_value(parameter, numbers, static_cast<Index>(i)));
    });
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
