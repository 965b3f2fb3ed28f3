#pragma once
/// A checksum.
#include <cstddef>
#include <cstdint>
#include <span>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The CRC-32 of zip files (reflected polynomial 0xedb88320).
std::uint32_t crc32(std::span<const std::byte> bytes);

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/crc32.ipp"
#endif
