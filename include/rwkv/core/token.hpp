#pragma once
/// The type of a token id.
#include <cstdint>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A row of the embedding.
using Token = std::int32_t;

}  // namespace RWKV_ABI
}  // namespace rwkv
