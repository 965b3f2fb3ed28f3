#pragma once
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/memory.hpp"
#include "rwkv/block/concept.hpp"
#include "rwkv/block/version.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One tensor of the state of a sequence.
struct StateTensor {
  std::string name;   ///< that of visit_state, such as blocks.0.att.wkv
  Index numbers = 0;  ///< of one sequence
};

/// What the numbers of a sequence's state are.
struct StateLayout {
  const OfficialVersion* version = nullptr;  ///< of the model; null where its type does not tell
  ModelSizes sizes;                          ///< of the model, as it was made
  DType type = DType::f32;                   ///< that the model computes in
  std::vector<StateTensor> tensors;          ///< one after the other
};

namespace detail {
/// The official version of a model's body; null where its type does not tell.
template <class Body>
inline constexpr const OfficialVersion* version_of = nullptr;
template <class V, class S, class B, class D>
inline constexpr const OfficialVersion* version_of<TimeMix<V, S, B, D>> = official_version<V>();
template <class TimeMixing, class ChannelMixing>
inline constexpr const OfficialVersion* version_of<Layer<TimeMixing, ChannelMixing>> = version_of<TimeMixing>;
template <class L, Index N>
inline constexpr const OfficialVersion* version_of<Stack<L, N>> = version_of<L>;
}  // namespace detail

/// The state of `batch` sequences in the body of a model. It owns its memory: one block without gaps, so that the state
/// is copied, kept and restored as plain numbers.
template <class Body>
class BodyState {
 public:
  using backend = typename Body::backend;
  using compute = typename Body::compute;

  /// States of `batch` sequences, before the first token. Errors: out of memory.
  BodyState(const backend& be, const Body& body, Index batch) : views(make_state(body)) {
    memory_ = Memory<backend>(be, bind(body, batch, nullptr));
    bind(body, batch, memory_.data());
  }

  typename Body::State views;         ///< of the states of all blocks
  std::vector<Mat<compute>> tensors;  ///< the same views, one after the other, [batch, numbers per sequence]

  /// Of all states.
  Index bytes() const { return memory_.bytes(); }

  /// Views of the first `sequences` of the batch, for exchange().
  typename Body::State first(const Body& body, Index sequences) const {
    typename Body::State all = views;
    body.visit_state(all, std::string(), [&](const std::string&, Index, Mat<compute>& view) { view.rows = sequences; });
    return all;
  }
  /// Swaps the views with others of `sequences` sequences. Allocates nothing, so that it can be undone.
  void exchange(typename Body::State& others, Index sequences) {
    std::swap(views, others);
    for (Mat<compute>& tensor : tensors) tensor.rows = sequences;
  }
  /// The state of one sequence.
  typename Body::State sequence(const Body& body, Index nth) const { return state_of(body, views, nth); }

  /// All numbers as one row.
  Mat<compute> numbers() const {
    return matrix(reinterpret_cast<compute*>(memory_.data()), 1, bytes() / Index{sizeof(compute)});
  }

 private:
  /// Points the views into `block`, one after the other, and returns the bytes they take.
  Index bind(const Body& body, Index batch, std::byte* block) {
    Index bytes = 0;
    tensors.clear();
    body.visit_state(views, std::string(), [&](const std::string&, Index numbers, Mat<compute>& view) {
      view = matrix(block == nullptr ? nullptr : reinterpret_cast<compute*>(block + bytes), batch, numbers);
      bytes += batch * numbers * Index{sizeof(compute)};
      tensors.push_back(view);
    });
    return bytes;
  }

  Memory<backend> memory_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
