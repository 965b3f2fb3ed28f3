#pragma once
/// Version tags: policies that list the parts in which RWKV versions differ. Derive from a tag to make a variant.
#include "rwkv/backend/recur.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/mix.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// RWKV-4 (Peng et al., "RWKV: Reinventing RNNs for the Transformer Era").
struct V4 {
  using Mix = MixCurrent;          ///< how a token mixes with the previous token
  using Decay = NegativeExp;       ///< from the stored time_decay to the log decay of the recurrence
  using Cell = WKV4;               ///< the recurrence
  using Gate = SigmoidGate;        ///< receptance gate of both mixes
  using Activation = SquaredRelu;  ///< between the two products of the channel mix
  using Schedule = Auto;           ///< how the recurrence runs over time
};

}  // namespace RWKV_ABI
}  // namespace rwkv
