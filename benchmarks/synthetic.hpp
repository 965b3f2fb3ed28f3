#pragma once
/// Random data that keeps every intermediate value in an ordinary range.
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "rwkv/blocks.hpp"
#include "rwkv/check/live_weights.hpp"

namespace bench {

using rwkv::Index;

/// Fills `to` with numbers uniform in [low, high), a function of the seed and the index only.
template <class T>
void fill_uniform(T* to, Index count, float low, float high, std::uint64_t seed) {
  const Index blocks = (count + 3) / 4;
  const rwkv::Philox random{.key = seed};
  const auto part = [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      const auto block = random.block(static_cast<std::uint64_t>(n));
      const int used = static_cast<int>(std::min<Index>(4, count - 4 * n));
      for (int i = 0; i < used; ++i) to[4 * n + i] = rwkv::narrow<T>(low + (high - low) * block.uniform_float(i));
    }
  };
  if (count < 1'000'000) return part(0, blocks);
  std::jthread other([&] { part(0, blocks / 2); });
  part(blocks / 2, blocks);
}

/// A block of uniform numbers in [low, high).
template <class T>
std::vector<T> uniform(Index count, float low, float high, std::uint64_t seed) {
  std::vector<T> numbers(static_cast<std::size_t>(count));
  fill_uniform(numbers.data(), count, low, high, seed);
  return numbers;
}

/// Gives every parameter live values: activations stay near one in size through any number of layers; decays and mixes
/// are in the range of trained models.
struct FillParameters {
  std::uint64_t seed = 1;

  template <class View>
  void operator()(const rwkv::TensorSpec& spec, View& view) {
    const auto [least, most] = rwkv::live_range(spec);
    fill_uniform(view.data, spec.shape.count(), static_cast<float>(least), static_cast<float>(most), ++seed);
  }
};

/// A block that owns its parameters and state, bound as in a model.
template <class K>
class OwnedBlock {
 public:
  using T = typename K::compute;
  using Storage = typename K::storage;

  K block;
  typename K::State state{};

  OwnedBlock(typename K::backend& be, const rwkv::ModelSizes& sizes, Index batch = 1) : block(sizes, 0) {
    FillParameters fill;
    K::visit(block, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      parameters_.emplace_back(static_cast<std::size_t>(spec.shape.count()));
      rwkv::bind(view, parameters_.back().data(), spec.shape);
      fill(spec, view);
      bytes_ += spec.shape.count() * Index{sizeof(Storage)};
    });
    block.visit_state(state, "", [&](const std::string&, Index numbers, rwkv::Mat<T>& view) {
      states_.emplace_back(static_cast<std::size_t>(batch * numbers));
      view = rwkv::matrix(states_.back().data(), batch, numbers);
    });
    block.reset(be, state);
  }

  /// Bytes of all parameters.
  Index bytes() const { return bytes_; }

 private:
  Index bytes_ = 0;
  std::vector<std::vector<Storage>> parameters_;
  std::vector<std::vector<T>> states_;
};

}  // namespace bench
