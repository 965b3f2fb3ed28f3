#pragma once
/// The state of a sequence in the order of the official programs, ChatRWKV and those of RWKV-LM.
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/model/state.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One entry of an official list of states: row-major numbers.
template <class T>
struct StateArray {
  std::string name;          ///< as official code calls it
  std::vector<Index> shape;  ///< of the array
  std::vector<T> numbers;    ///< the last axis contiguous
};

namespace detail {

/// The names and shapes of the official list of a model.
template <class T>
std::vector<StateArray<T>> official_arrays(const StateLayout& layout) {
  expects(layout.version != nullptr,
          "rwkv: the model is of no one version, so that there is no official list of its state");
  std::vector<StateArray<T>> arrays;
  const auto add = [&](std::string name, std::vector<Index> shape, Index numbers) {
    arrays.push_back({std::move(name), std::move(shape), std::vector<T>(static_cast<std::size_t>(numbers))});
  };
  const Index width = layout.sizes.width;
  for (const StateTensor& tensor : layout.tensors) {
    const std::string_view name = tensor.name;
    const std::string block(name.substr(0, name.rfind('.') + 1));
    if (name.ends_with(".shift")) {
      add(block + "x", {tensor.numbers}, tensor.numbers);
    } else if (!name.ends_with(".wkv")) {
      add(tensor.name, {tensor.numbers}, tensor.numbers);
    } else if (layout.version->state == OfficialState::components) {
      for (const char* component : {"aa", "bb", "pp"}) add(block + component, {width}, width);
    } else {
      const Index head_size = tensor.numbers / width;
      add(block + "wkv", {width / head_size, head_size, head_size}, tensor.numbers);
    }
  }
  return arrays;
}

/// Copies one entry: where `exchanged`, with the last two of its three axes exchanged, else as it is.
template <class T>
void copy_official(const std::vector<Index>& shape, bool exchanged, const T* from, T* to) {
  const Index heads = shape.size() == 3 ? shape[0] : 1, size = shape.back();
  const Index rows = shape.size() == 3 ? size : 1;
  for (Index h = 0; h < heads; ++h, from += rows * size, to += rows * size) {
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < size; ++c)
        to[r * size + c] = exchanged && rows > 1 ? from[c * size + r] : from[r * size + c];
    }
  }
}

/// Whether official matrices are [head, value, key], where ours are [head, key, value].
inline bool official_is_exchanged(const StateLayout& layout) {
  return layout.version->state == OfficialState::value_key;
}

}  // namespace detail

/// The state of a sequence of a Context or AnyContext as the official list, for each layer:
///   blocks.N.att.x [width], what the time mix saw last;
///   blocks.N.att.aa, .bb and .pp [width] in RWKV-4; later blocks.N.att.wkv [head, key, value], in RWKV-7 [head, value,
///   key];
///   blocks.N.ffn.x [width], what the channel mix saw last.
/// Errors: no such sequence; a model whose type does not tell its version
template <class C>
auto official_state(const C& context, Index sequence) {
  const StateLayout layout = context.state_layout();
  const auto state = context.state(sequence);
  auto arrays = detail::official_arrays<typename decltype(state)::value_type>(layout);
  const auto* next = state.data();
  for (auto& array : arrays) {
    detail::copy_official(array.shape, detail::official_is_exchanged(layout), next, array.numbers.data());
    next += array.numbers.size();
  }
  return arrays;
}

/// The other way round: sets the state of a sequence to an official list, of which `position` tokens have gone in.
/// Errors: those of official_state and restore; other arrays than official_state gives. The state is left as it was.
template <class C, class T>
void restore_official(C& context, Index sequence, std::span<const StateArray<T>> arrays, Index position = 0) {
  const StateLayout layout = context.state_layout();
  const auto expected = detail::official_arrays<T>(layout);
  expects(arrays.size() == expected.size(), "rwkv: the official state of this model has ", expected.size(),
          " arrays, not ", arrays.size());
  std::vector<T> state;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const StateArray<T>&given = arrays[i], &wanted = expected[i];
    expects(given.name == wanted.name, "rwkv: array ", i, " of the official state of this model is ", wanted.name,
            ", not ", given.name);
    expects(given.shape == wanted.shape && given.numbers.size() == wanted.numbers.size(), "rwkv: ", wanted.name,
            " has shape ", std::span(wanted.shape), ", not ", std::span(given.shape), " with ", given.numbers.size(),
            " numbers");
    const std::size_t done = state.size();
    state.resize(done + given.numbers.size());
    detail::copy_official(given.shape, detail::official_is_exchanged(layout), given.numbers.data(),
                          state.data() + done);
  }
  context.restore(sequence, std::span<const T>(state), position);
}
/// The same, from what official_state returns.
template <class C, class T>
void restore_official(C& context, Index sequence, const std::vector<StateArray<T>>& arrays, Index position = 0) {
  restore_official(context, sequence, std::span<const StateArray<T>>(arrays), position);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
