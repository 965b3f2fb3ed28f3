#pragma once
/// Tokens and their number.
#include <cstdint>

#include "rwkv/config.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A row of the embedding.
using Token = std::int32_t;

/// The largest position of a sequence, in tokens: far beyond any text, and so that counting on does not overflow.
inline constexpr Index most_tokens_seen = Index{1} << 60;

}  // namespace RWKV_ABI
}  // namespace rwkv
