#pragma once
/// What a training pass keeps between its way forwards and its way back.
#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Every layer keeps all that it computes: the most memory, the least work.
struct Keep {};
/// A layer keeps its input alone and computes the rest again on the way back: one more forward pass, and the same
/// gradients to the last bit.
struct Recompute {};

}  // namespace RWKV_ABI
}  // namespace rwkv
