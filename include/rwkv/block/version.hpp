#pragma once
/// Version tags: lists of the parts in which RWKV versions differ. Derive from a tag to make a variant.
#include "rwkv/backend/recur.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv5.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/mix.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The channel mix with a receptance gate, of RWKV-4 to 6, and the one without, of RWKV-7.
struct GatedChannelMix {};
struct PlainChannelMix {};

namespace detail {
/// Hidden units of RWKV-5.1 to 6, where nothing else is said: 3.5 times the width, in whole 32s.
constexpr Index ffn_of_gated(Index width) { return width < 10 ? 32 : 7 * width / 64 * 32; }
}  // namespace detail

/// RWKV-4 (Peng et al., "RWKV: Reinventing RNNs for the Transformer Era").
struct V4 {
  using Mix = MixCurrent;           ///< how a token mixes with the previous token
  using Decay = NegativeExp;        ///< from the stored time_decay to the log decay of the recurrence
  using Cell = WKV4;                ///< the recurrence
  using Gate = SigmoidGate;         ///< receptance gate of both mixes
  using Channel = GatedChannelMix;  ///< the kind of channel mix
  using Activation = SquaredRelu;   ///< between the two products of the channel mix
  using Schedule = Auto;            ///< how the recurrence runs over time
};

/// No gate.
struct NoGate {};

/// RWKV-5.2, "Eagle" (Peng et al., "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence").
struct V5 {
  static constexpr bool per_head = false;  ///< whether a head has one decay and one bonus, or every channel its own
  using Mix = MixCurrent;
  using Decay = ExpNegativeExp;  ///< from the stored time_decay to the decay of the recurrence
  using Cell = WKV5;
  using OutputGate = SiluGate;  ///< of the time mix, behind the norm of the heads
  using Gate = SigmoidGate;     ///< receptance gate of the channel mix
  using Channel = GatedChannelMix;
  using Activation = SquaredRelu;
  using Schedule = Auto;
  static constexpr Index ffn(Index width) { return detail::ffn_of_gated(width); }
};

/// RWKV-5.1: a decay and a bonus for each head.
struct V5_1 : V5 {
  static constexpr bool per_head = true;
  using Bonus = Copy;  ///< from the stored bonus to that of the recurrence
  static constexpr const char* bonus_name = "time_faaaa";
};

/// RWKV-5.0: RWKV-5.1 without the gate of the time mix, with the logarithm of the bonus stored.
struct V5_0 : V5_1 {
  using Bonus = Exp;
  using OutputGate = NoGate;
  static constexpr const char* bonus_name = "time_first";
  static constexpr Index ffn(Index width) { return 4 * width; }
};

/// RWKV-6, "Finch" (Peng et al., as above).
struct V6 {
  using Mix = MixPrevious;
  using Decay = ExpNegativeExp;  ///< from the stored time_decay and what the token adds to it
  using Cell = WKV5;
  using OutputGate = SiluGate;
  using Gate = SigmoidGate;
  using Channel = GatedChannelMix;
  using Activation = SquaredRelu;
  using Schedule = Auto;
  static constexpr Index ffn(Index width) { return detail::ffn_of_gated(width); }
};

/// RWKV-7, "Goose" (Peng et al., "RWKV-7 Goose with Expressive Dynamic State Evolution").
struct V7 {
  using Mix = MixPrevious;
  using Cell = WKV7;
  using Channel = PlainChannelMix;
  using Activation = SquaredRelu;
  using Schedule = Auto;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
