#pragma once
/// One block with memory of its own, filled and read by tensor name.
#include <rwkv/blocks.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../configs.hpp"

namespace config {

template <class K>
class Standalone {
 public:
  using T = typename K::compute;
  using Values = std::function<std::vector<double>(const std::string& name)>;

  /// Parameters from `parameter(name)`, states from `state(name)`, empty for their initial value.
  Standalone(const rwkv::ModelSizes& sizes, Index batch, typename K::backend be, const Values& parameter,
             const Values& initial_state)
      : block_(sizes, 0), be_(std::move(be)) {
    K::visit(block_, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      using storage = std::remove_cvref_t<decltype(*view.data)>;
      auto& memory = parameters_[spec.name];
      const std::vector<double> values = parameter(spec.name);
      rwkv::expects(std::ssize(values) == spec.shape.count(), spec.name, " has the wrong size");
      memory.resize(values.size() * sizeof(storage));
      auto* data = reinterpret_cast<storage*>(memory.data());
      for (std::size_t i = 0; i < values.size(); ++i) data[i] = rwkv::narrow<storage>(values[i]);
      bind(view, data, spec.shape);
    });
    block_.visit_state(state_, "", [&](const std::string& name, Index numbers, rwkv::Mat<T>& view) {
      auto& memory = states_[name];
      memory.resize(static_cast<std::size_t>(batch * numbers));
      view = rwkv::matrix(memory.data(), batch, numbers);
    });
    block_.reset(be_, state_);
    for (auto& [name, numbers] : states_) {
      const std::vector<double> values = initial_state(name);
      if (values.empty()) continue;
      rwkv::expects(values.size() == numbers.size(), name, " has the wrong size");
      std::transform(values.begin(), values.end(), numbers.begin(), [](double x) { return static_cast<T>(x); });
    }
  }

  std::vector<T> forward(const std::vector<T>& x, Index batch, Index time) {
    const Index width = block_.dims.width;
    std::vector<T> y(x.size(), T(-1));
    Scratch scratch(1 << 24);
    block_.forward(be_, scratch.arena(), rwkv::Seq<const T, K::Width>{x.data(), batch, time, width}, state_,
                   rwkv::Seq<T, K::Width>{y.data(), batch, time, width});
    return y;
  }

  const std::vector<T>& state(const std::string& name) const { return states_.at(name); }

 private:
  K block_;
  typename K::backend be_;
  typename K::State state_;
  std::map<std::string, std::vector<std::byte>> parameters_;
  std::map<std::string, std::vector<T>> states_;
};

}  // namespace config
