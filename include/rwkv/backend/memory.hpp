#pragma once
/// Memory of a backend with an owner.
#include <cstddef>
#include <optional>
#include <utility>

#include "rwkv/core/arena.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One block of a backend's memory, freed with its owner.
template <class B>
class Memory {
 public:
  Memory() = default;
  /// Allocates `bytes` bytes. Errors: out of memory.
  Memory(const B& backend, Index bytes) : backend_(backend), bytes_(bytes) {
    if (bytes > 0) block_ = backend_->template allocate<std::byte>(bytes);
  }
  /// Takes the block over; the other is empty then.
  Memory(Memory&& other) noexcept
      : backend_(other.backend_), block_(std::exchange(other.block_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {
  }
  /// Exchanges the two.
  Memory& operator=(Memory&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(block_, other.block_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Memory() {
    if (block_ != nullptr) backend_->free(block_);
  }

  /// An arena over the whole block.
  Arena arena() const { return Arena(block_, bytes_); }
  /// The block; null if it is empty.
  std::byte* data() const { return block_; }
  /// Its size.
  Index bytes() const { return bytes_; }

 private:
  std::optional<B> backend_;  // empty without memory, because a default backend may open a device
  std::byte* block_ = nullptr;
  Index bytes_ = 0;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
