#pragma once
/// A single block with its own memory, which is filled and read by tensor name, forwards and backwards.
#include <rwkv/blocks.hpp>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../configs.hpp"

namespace config {

template <class K>
class Standalone {
 public:
  using T = typename K::compute;
  using State = typename K::State;
  using Values = std::function<std::vector<double>(const std::string& name)>;
  using Parameters = std::function<std::vector<double>(const rwkv::TensorSpec& spec)>;

  /// Parameters come from `parameter(spec)`, states from `state(name)`; an empty result means the initial value.
  Standalone(const rwkv::ModelSizes& sizes, Index batch, typename K::backend be, const Parameters& parameter,
             const Values& initial_state)
      : block_(sizes, 0), grad_(sizes, 0), be_(std::move(be)), batch_(batch) {
    K::visit(block_, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      using storage = std::remove_cvref_t<decltype(*view.data)>;
      auto& memory = parameters_[spec.name];
      const std::vector<double> values = parameter(spec);
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
        x, time,
        [&](auto in, auto out) {
          auto side = side_streams(in);
          rwkv::Arena ws = scratch_.arena();
          forward_beside(block_, be_, ws, side, in, state_, out);
        },
        batch);
  }

  /// The value of the first layer, see rwkv::SideStreams, and whether an earlier layer provides it; and its cotangent.
  void first_value(const std::vector<double>& numbers, bool provided) {
    first_value_.assign(numbers.begin(), numbers.end());
    provided_ = provided;
  }
  void first_value_cotangent(const std::vector<double>& numbers) {
    dfirst_value_.assign(numbers.begin(), numbers.end());
  }
  const std::vector<T>& first_value() const { return first_value_; }
  const std::vector<T>& first_value_cotangent() const { return dfirst_value_; }

  /// The tokens that the block reads, and their embedding; and its cotangent, as forward_and_backward leaves it.
  void embedding(const std::vector<rwkv::Token>& tokens, const std::vector<double>& numbers) {
    tokens_ = tokens;
    embedding_.assign(numbers.begin(), numbers.end());
  }
  const std::vector<T>& embedding_cotangent() const { return dembedding_; }

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
    auto side = side_streams(in);
    forward_beside(block_, be_, ws, side, in, state_, rwkv::Seq<T, K::Width>{y.data(), batch_, time, width}, tape);
    backward_beside(block_, be_, ws, side, rwkv::Seq<const T, K::Width>{dy.data(), batch_, time, width}, tape, first,
                    last, rwkv::Seq<T, K::Width>{dx.data(), batch_, time, width}, grad_, before);
    return dx;
  }

  const std::vector<T>& state(const std::string& name) const { return states_.at(name); }
  const std::vector<T>& state_gradient(const std::string& name) const { return state_gradients_.at(name); }
  /// The gradient of every parameter.
  const std::vector<std::pair<rwkv::TensorSpec, std::vector<T>>>& gradients() const { return gradients_; }

 private:
  template <class X>
  rwkv::SideStreams<T> side_streams(const X& x) {
    rwkv::SideStreams<T> side;
    const auto size = static_cast<std::size_t>(x.batch * x.time * x.width);
    first_value_.resize(size);
    dfirst_value_.resize(size);
    side.first_value = {first_value_.data(), x.batch, x.time, Index(x.width)};
    side.dfirst_value = {dfirst_value_.data(), x.batch, x.time, Index(x.width)};
    side.provided = provided_;
    embedding_.resize(size);
    dembedding_.assign(size, T(0));
    side.tokens = tokens_;
    side.embedding = {embedding_.data(), x.batch, x.time, Index(x.width)};
    side.dembedding = {dembedding_.data(), x.batch, x.time, Index(x.width)};
    return side;
  }

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
      gradients_.emplace_back(spec, std::vector<T>(static_cast<std::size_t>(spec.shape.count())));
      bind(view, gradients_.back().second.data(), spec.shape);
    });
  }

  K block_, grad_;
  typename K::backend be_;
  Index batch_;
  State state_;
  Scratch scratch_{1 << 24};
  std::map<std::string, std::vector<std::byte>> parameters_;
  std::map<std::string, std::vector<T>> states_, state_gradients_;
  std::vector<std::pair<rwkv::TensorSpec, std::vector<T>>> gradients_;
  std::vector<T> first_value_, dfirst_value_, embedding_, dembedding_;
  std::vector<rwkv::Token> tokens_;
  bool provided_ = false;
};

}  // namespace config
