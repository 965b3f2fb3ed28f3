#pragma once
/// Scratch memory without bookkeeping: a bump allocator over a caller's block.
#include <algorithm>
#include <cstddef>

#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Every piece starts on a cache line.
inline constexpr Index arena_alignment = 64;

/// Hands out pieces of one block. Passed *by value* down the call tree: when a callee returns, its copy vanishes and
/// its pieces are free again. An arena without a block only measures (the dry pass): it hands out null pointers and
/// records the peak, so the code that measures memory is the code that uses it.
class Arena {
 public:
  /// An arena that measures; `peak` receives the largest number of bytes in use at a time.
  explicit Arena(Index& peak) : peak_(&peak) {}
  /// Hands out pieces of `block`, `capacity` bytes aligned to arena_alignment.
  Arena(std::byte* block, Index capacity) : base_(block), capacity_(capacity) {}

  /// Bytes in use.
  Index used() const { return used_; }

  /// Whether it only measures: a dry pass.
  bool measuring() const { return peak_ != nullptr; }

  /// The next `count` numbers, aligned; null while it measures. Errors: more than is left.
  template <class T>
  T* take(Index count) {
    const Index bytes = (count * Index{sizeof(T)} + arena_alignment - 1) / arena_alignment * arena_alignment;
    const Index begin = used_;
    used_ += bytes;
    if (measuring()) {
      *peak_ = std::max(*peak_, used_);
      return nullptr;
    }
    expects(used_ <= capacity_, "rwkv: scratch of ", capacity_, " bytes is too small for ", used_,
            " bytes: the batch or the chunk is larger than the context was made for");
    return reinterpret_cast<T*>(base_ + begin);
  }

  /// A sequence with the batch and time of x.
  template <class T, class U, Index W, Index N>
  Seq<T, N> like(const Seq<U, W>& x, Extent<N> width) {
    T* const rows = take<T>((whole_rows_ > 0 ? whole_rows_ : x.batch * x.time) * Index(width));
    return {rows == nullptr ? nullptr : rows + first_row_ * Index(width), x.batch, x.time, width};
  }

  /// The same memory for a pass that runs in parts: of every sequence of `rows` rows (batch times time), `like` hands out
  /// the rows from `first` on. So if all parts take the same pieces as the whole, they fill its sequences.
  Arena part(Index rows, Index first) const {
    Arena one = *this;
    one.whole_rows_ = rows;
    one.first_row_ = first;
    return one;
  }

 private:
  std::byte* base_ = nullptr;
  Index used_ = 0;
  Index capacity_ = 0;
  Index* peak_ = nullptr;
  Index whole_rows_ = 0, first_row_ = 0;  // of `part`
};

}  // namespace RWKV_ABI
}  // namespace rwkv
