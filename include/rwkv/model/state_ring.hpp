#pragma once
/// Going back: the last states of a context, kept where the backend has them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rwkv/backend/memory.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/model/context.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Keeps the states of all sequences of a context, to go back by up to `most` pushes, exactly: where `push` follows
/// every step, by up to so many tokens.
///
///     StateRing ring(context, 4);             // keeps the present states
///     context.step(token); ring.push();       // after each step
///     ring.back(2);                           // as if the last two steps had not been
///
/// The context must be neither moved nor assigned, and outlive the ring. When a sequence is added or removed, what was kept is
/// lost, and the next push begins anew.
/// Cost    memory for `most` + 1 states of the whole context, sequences to come included, allocated once; a push and a
///         back are one copy of such a state each, in the backend's own queue, and allocate nothing
template <class M>
class StateRing {
 public:
  /// Errors: `most` is not between 1 and 2^20
  StateRing(Context<M>& context, Index most) : context_(&context), slots_(checked(most) + 1) {
    memory_ = Memory<typename M::backend>(context.backend_, slots_ * context.state_.bytes());
    positions_.resize(static_cast<std::size_t>(slots_) * context.positions_.size());
    push();
  }

  /// How many pushes `back` can go back.
  Index kept() const { return changed() ? 0 : count_ - 1; }

  /// Keeps the present states, in the place of the oldest when the ring is full.
  /// Errors: another context was assigned to the ring's
  void push() {
    expects(slots_ * context_->state_.bytes() == memory_.bytes() &&
                slots_ * std::ssize(context_->positions_) == std::ssize(positions_),
            "rwkv: the context of the ring was moved, or replaced by another");
    if (changed()) count_ = 0;
    sequences_ = context_->sequences_.number();
    newest_ = (newest_ + 1) % slots_;
    count_ = std::min(count_ + 1, slots_);
    context_->backend_.copy(Mat<const compute>(context_->state_.numbers()), slot());
    std::copy(context_->positions_.begin(), context_->positions_.end(), positions());
  }

  /// Sets every sequence to the state and position it had `pushes` pushes before the latest one, which is then the
  /// latest; back(0) undoes what ran since the latest.
  /// Errors: more than `kept`, or a negative number; a sequence was added or removed since the latest push. Nothing
  /// changes then.
  void back(Index pushes) {
    expects(!changed(),
            "rwkv: the ring has no states of these sequences: one was added or removed since the last push");
    expects(pushes >= 0 && pushes <= kept(), "rwkv: the ring can go back by 0 to ", kept(), " pushes, not by ", pushes);
    newest_ = (newest_ + slots_ - pushes) % slots_;
    count_ -= pushes;
    context_->backend_.copy(Mat<const compute>(slot()), context_->state_.numbers());
    std::copy_n(positions(), context_->positions_.size(), context_->positions_.begin());
    context_->has_logits_ = false;
  }

 private:
  using compute = typename M::compute;

  static Index checked(Index most) {
    constexpr Index limit = Index{1} << 20;
    expects(most >= 1 && most <= limit, "rwkv: a ring of states goes back by 1 to ", limit, " pushes, not by ", most);
    return most;
  }
  bool changed() const { return sequences_ != context_->sequences_.number(); }

  /// The latest states, and their positions.
  Mat<compute> slot() const {
    const Mat<compute> numbers = context_->state_.numbers();
    return matrix(reinterpret_cast<compute*>(memory_.data()) + newest_ * numbers.cols, 1, Index(numbers.cols));
  }
  auto positions() { return positions_.begin() + newest_ * std::ssize(context_->positions_); }

  Context<M>* context_;
  Index slots_, newest_ = 0, count_ = 0;
  std::uint64_t sequences_ = 0;  // the stamp of the context's sequences at the latest push
  Memory<typename M::backend> memory_;
  std::vector<Index> positions_;  // [slots, capacity]
};

}  // namespace RWKV_ABI
}  // namespace rwkv
