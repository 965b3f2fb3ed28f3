#pragma once
/// Bounds-checked reading of little-endian structures, and the treatment of names that come from files.
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A name as it may stand in an error: in quotes, with every byte that could steer a terminal shown as \xNN, and cut
/// after 100 bytes, because the name may be hostile.
std::string in_quotes(std::string_view name);

/// What is wrong with a name that is_clean_name refuses.
inline constexpr std::string_view not_clean =
    " is empty, longer than 1024 bytes or not UTF-8 without control characters";

/// True for names that are safe to keep and to print.
bool is_clean_name(std::string_view name);

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// The bytes [begin, begin + size). Throws an Error of the joined parts unless they lie inside `bytes`.
template <class... Parts>
std::span<const std::byte> slice(std::span<const std::byte> bytes, Checked begin, Checked size, const Parts&... parts) {
  expects((begin + size).at_most(bytes.size()), parts...);
  return bytes.subspan(begin.to<std::size_t>(parts...), size.to<std::size_t>(parts...));
}

/// Reads one structure from front to back; running past its end is an Error that starts with `where`.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(Checked size) {
    const auto taken = slice(bytes_, position_, size, where_, " is cut short at its byte ", position_);
    position_ += taken.size();
    return taken;
  }
  std::string_view text(Checked size) { return as_text(take(size)); }

  /// The next little-endian number.
  template <std::unsigned_integral T>
  T number() {
    T value = 0;
    unsigned shift = 0;
    for (const std::byte b : take(sizeof(T))) {
      value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(b) << shift));
      shift += 8;
    }
    return value;
  }
  std::uint8_t u8() { return number<std::uint8_t>(); }
  std::uint16_t u16() { return number<std::uint16_t>(); }
  std::uint32_t u32() { return number<std::uint32_t>(); }
  std::uint64_t u64() { return number<std::uint64_t>(); }

 private:
  std::span<const std::byte> bytes_;
  std::string_view where_;
  std::size_t position_ = 0;
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/byte_reader.ipp"
#endif
