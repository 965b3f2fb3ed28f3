#pragma once
/// Scratch memory, as much as a piece of work asks for.
#include <utility>

#include "rwkv/backend/memory.hpp"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Makes a backend dry for as long as it lives.
template <class B>
class DryPass {
 public:
  explicit DryPass(B& be) : be_(be), before_(std::exchange(be.dry, true)) {}
  DryPass(const DryPass&) = delete;
  DryPass& operator=(const DryPass&) = delete;
  ~DryPass() { be_.dry = before_; }

 private:
  B& be_;
  bool before_;
};

}  // namespace detail

/// The memory that call(arena) takes as scratch, for any number of later calls of the same sizes. Runs the call once in
/// a dry pass: its arena hands out null pointers and only counts, and the verbs of `be` touch no memory. The call works
/// on `be` itself, not on a copy.
template <class B, class Call>
Memory<B> scratch_for(B& be, const Call& call) {
  Index peak = 0;
  {
    const detail::DryPass dry(be);
    call(Arena(peak));
  }
  return Memory<B>(be, peak);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
