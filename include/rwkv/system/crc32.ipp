#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "rwkv/core/progress.hpp"
#include "rwkv/system/crc32.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

using Crc32Tables = std::array<std::array<std::uint32_t, 256>, 8>;

consteval Crc32Tables make_crc32_tables() {
  Crc32Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
    tables[0][byte] = crc;
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    for (std::size_t i = 1; i < 8; ++i) {
      const std::uint32_t crc = tables[i - 1][byte];
      tables[i][byte] = (crc >> 8) ^ tables[0][crc & 0xffu];
    }
  }
  return tables;
}

inline constexpr Crc32Tables crc32_tables = make_crc32_tables();

/// Eight bytes at a time: table i holds the effect of a byte that is followed by i more ("slicing by 8", M. Kounavis and
/// F. Berry, 2005).
RWKV_BODY std::uint32_t crc32(std::span<const std::byte> bytes) {
  const Crc32Tables& t = crc32_tables;
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
  std::uint32_t crc = 0xffffffffu;
  constexpr std::size_t reported = std::size_t{1} << 20;
  for (std::size_t n = 8; bytes.size() >= 8; bytes = bytes.subspan(8), n += 8) {
    if (n % reported == 0) advance(Unit::bytes, Index{reported});
    crc ^= at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24;
    crc = t[7][crc & 0xffu] ^ t[6][crc >> 8 & 0xffu] ^ t[5][crc >> 16 & 0xffu] ^ t[4][crc >> 24] ^  //
          t[3][at(4)] ^ t[2][at(5)] ^ t[1][at(6)] ^ t[0][at(7)];
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) crc = (crc >> 8) ^ t[0][(crc ^ at(i)) & 0xffu];
  return ~crc;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
