#pragma once
/// Names for the sequences of a context that stay when others are removed.
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Handles of the sequences of a Context or AnyContext. `remove` of a context gives the number of the removed sequence to
/// the last; a handle keeps its sequence and is never given again. The sequences that are there at first have the handles
/// 0, 1, and so on. Sequences are to be added and removed here only; the context must outlive the handles.
///
///     SequenceHandles players(context);
///     const Index guest = players.add();
///     context.prefill(players[guest], prompt);
///     players.remove(0);  // players[guest] is now another number
template <class C>
class SequenceHandles {
 public:
  /// Of the sequences of a context, which must outlive this.
  explicit SequenceHandles(C& context) : context_(&context) {
    for (Index number = 0; number < context.batch(); ++number) handles_.push_back(next_++);
  }

  /// Adds a sequence, in the state before its first token; returns its handle. Errors: the context is full
  Index add() {
    handles_.reserve(handles_.size() + 1);  // before anything changes
    context_->add();
    handles_.push_back(next_);
    return next_++;
  }
  /// Removes the sequence of a handle. Errors: there is none
  void remove(Index handle) {
    const Index number = (*this)[handle];
    context_->remove(number);
    handles_[static_cast<std::size_t>(number)] = handles_.back();
    handles_.pop_back();
  }

  /// The present number of a sequence. Errors: there is none of that handle
  Index operator[](Index handle) const {
    const auto found = std::find(handles_.begin(), handles_.end(), handle);
    expects(found != handles_.end(), "rwkv: there is no sequence with the handle ", handle);
    return found - handles_.begin();
  }
  /// The handles by number: that of sequence 0 first.
  const std::vector<Index>& by_number() const { return handles_; }

 private:
  C* context_;
  std::vector<Index> handles_;
  Index next_ = 0;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
