#pragma once
/// What a training pass keeps between its forward and its backward pass.
#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Every layer keeps its intermediate results: the most memory, the least work.
struct Keep {};
/// Every layer keeps only its input and recomputes the rest in the backward pass (gradient checkpointing): one more
/// forward pass, and the same gradients to the last bit.
struct Recompute {};

}  // namespace RWKV_ABI
}  // namespace rwkv
