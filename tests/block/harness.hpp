#pragma once
/// A single block with its own memory, which is filled and read by tensor name, forwards and backwards.
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
  using State = typename K::State;
  using Values = std::function<std::vector<double>(const std::string& name)>;

  /// Parameters come from `parameter(name)`, states from `state(name)`; an empty result means the initial value.
  Standalone(const rwkv::ModelSizes& sizes, Index batch, typename K::backend be, const Values& parameter,
             const Values& initial_state)
      : block_(sizes, 0), grad_(sizes, 0), be_(std::move(be)), batch_(batch) {
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
    bind_state(state_, states_);
    block_.reset(be_, state_);
    fill(states_, initial_state);
  }

  std::vector<T> forward(const std::vector<T>& x, Index batch, Index time) {
    return run(
        x, time, [&](auto in, auto out) { block_.forward(be_, scratch_.arena(), in, state_, out); }, batch);
  }

  /// Runs forward, then backward from dy and from the cotangents `dlast(name)` of the last states; empty means zero.
  std::vector<T> forward_and_backward(const std::vector<T>& x, Index time, const std::vector<T>& dy,
                                      const Values& dlast) {
    State first, last, before;
    std::map<std::string, std::vector<T>> firsts, lasts;
    bind_state(first, firsts);
    bind_state(last, lasts);
    bind_state(before, state_gradients_);
    for (auto& [name, numbers] : firsts) numbers = states_.at(name);
    fill(lasts, dlast);
    grad_of_parameters();

    typename K::Tape tape;
    rwkv::Arena ws = scratch_.arena();
    const Index width = block_.dims.width;
    std::vector<T> y(x.size(), T(-1)), dx(x.size(), T(-1));
    const rwkv::Seq<const T, K::Width> in{x.data(), batch_, time, width};
    block_.forward(be_, ws, in, state_, rwkv::Seq<T, K::Width>{y.data(), batch_, time, width}, tape);
    block_.backward(be_, ws, rwkv::Seq<const T, K::Width>{dy.data(), batch_, time, width}, tape, first, last,
                    rwkv::Seq<T, K::Width>{dx.data(), batch_, time, width}, grad_, before);
    return dx;
  }

  const std::vector<T>& state(const std::string& name) const { return states_.at(name); }
  const std::vector<T>& state_gradient(const std::string& name) const { return state_gradients_.at(name); }
  const std::map<std::string, std::vector<T>>& gradients() const { return gradients_; }

 private:
  template <class Forward>
  std::vector<T> run(const std::vector<T>& x, Index time, const Forward& forward, Index batch) {
    const Index width = block_.dims.width;
    std::vector<T> y(x.size(), T(-1));
    forward(rwkv::Seq<const T, K::Width>{x.data(), batch, time, width},
            rwkv::Seq<T, K::Width>{y.data(), batch, time, width});
    return y;
  }

  void bind_state(State& state, std::map<std::string, std::vector<T>>& memory) const {
    block_.visit_state(state, "", [&](const std::string& name, Index numbers, rwkv::Mat<T>& view) {
      auto& of_name = memory[name];
      of_name.assign(static_cast<std::size_t>(batch_ * numbers), T(0));
      view = rwkv::matrix(of_name.data(), batch_, numbers);
    });
  }

  static void fill(std::map<std::string, std::vector<T>>& states, const Values& values_of) {
    for (auto& [name, numbers] : states) {
      const std::vector<double> values = values_of(name);
      if (values.empty()) continue;
      rwkv::expects(values.size() == numbers.size(), name, " has the wrong size");
      std::transform(values.begin(), values.end(), numbers.begin(), [](double x) { return static_cast<T>(x); });
    }
  }

  void grad_of_parameters() {
    gradients_.clear();
    K::visit(grad_, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      auto& memory = gradients_[spec.name];
      memory.assign(static_cast<std::size_t>(spec.shape.count()), T(0));
      bind(view, memory.data(), spec.shape);
    });
  }

  K block_, grad_;
  typename K::backend be_;
  Index batch_;
  State state_;
  Scratch scratch_{1 << 24};
  std::map<std::string, std::vector<std::byte>> parameters_;
  std::map<std::string, std::vector<T>> states_, state_gradients_, gradients_;
};

}  // namespace config
