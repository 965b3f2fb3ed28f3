#pragma once
#include <atomic>
#include <cstdint>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A number that nothing else in the process has or had. It changes when its owner is moved, is assigned to or renews
/// it, so it tells whether what was seen at an address is still there: addresses are used again.
class Stamp {
 public:
  Stamp() : number_(next()) {}
  /// A number of its own; the other gets another.
  Stamp(Stamp&& other) noexcept : Stamp() { other.renew(); }
  /// Both get another number.
  Stamp& operator=(Stamp&& other) noexcept {
    renew();
    other.renew();
    return *this;
  }

  /// No other stamp has it, or had it.
  std::uint64_t number() const { return number_; }
  /// Another number.
  void renew() { number_ = next(); }

 private:
  static std::uint64_t next() {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  std::uint64_t number_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
