#pragma once
/// Blocks with the parameters, the state and the inputs of a golden file.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <string>
#include <utility>
#include <vector>

#include "../golden.hpp"
#include "../versions.hpp"
#include "harness.hpp"

namespace official {

using namespace rwkv;
using config::Standalone;

/// The sizes of the block K in a file, of every axis that its table names.
template <class K>
ModelSizes sizes_of(const golden::File& file) {
  const Index width = file["in.x"].size(2);
  ModelSizes sizes{.width = width};
  if (file.has("in.state.wkv")) sizes.head_size = file["in.state.wkv"].size(3);
  K block(sizes, 0);
  K::visit(block, "param.", [&](const TensorSpec& spec, auto&) {
    if (file.has(spec.name)) set_sizes(sizes, spec, file[spec.name].shape);
  });
  return sizes;
}

/// The numbers of a parameter in the order of memory.
inline std::vector<double> parameter_of(const golden::File& file, const TensorSpec& spec) {
  const std::string name = "param." + spec.name;
  if (spec.unused_at_first && !file.has(name)) {
    return std::vector<double>(static_cast<std::size_t>(spec.shape.count()));
  }
  const auto tensor = file[name];
  if (!spec.transposed) return tensor.values;
  return golden::transposed(tensor.values, tensor.shape[tensor.shape.size() - 2], tensor.shape.back());
}

/// A block with the parameters and the initial state of a file, and what earlier layers hand on.
template <class K>
Standalone<K> block_of(const golden::File& file, typename K::backend be, const typename Standalone<K>::Values& state) {
  Standalone<K> block(
      sizes_of<K>(file), file["in.x"].size(0), std::move(be),
      [&](const TensorSpec& spec) { return parameter_of(file, spec); }, state);
  if (file.has("in.v_first")) block.first_value(file["in.v_first"].values, true);
  if (file.has("cot.v_first")) block.first_value_cotangent(file["cot.v_first"].values);
  return block;
}

/// Compares the gradients of all parameters with those of a file.
template <class T, class K>
void check_gradients(const Standalone<K>& block, const golden::File& file, double limit) {
  for (const auto& gradient : block.gradients()) {
    const TensorSpec& spec = gradient.first;
    const auto& numbers = gradient.second;
    CAPTURE(spec.name);
    if (spec.unused_at_first && !file.has("grad.param." + spec.name)) continue;
    CHECK(golden::error_ratio<T>(config::as_in_files(spec, numbers), file["grad.param." + spec.name]) < limit);
  }
}

}  // namespace official
