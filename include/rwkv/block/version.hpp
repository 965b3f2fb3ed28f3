#pragma once
/// Version tags: lists of the parts in which RWKV versions differ. Derive from a tag to make a variant.
#include <array>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "rwkv/backend/recur.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv5.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/op/mix.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A tensor of a layer, such as "att.r_k", with at least `rank` dimensions.
struct LayerTensor {
  std::string_view name;  ///< of the tensor, behind the prefix of the layer
  std::size_t rank = 0;   ///< axes that it has
};

/// The order of the recurrence's state in the official programs.
enum class OfficialState { components, key_value, value_key };

/// How official checkpoints and programs tell a version.
struct OfficialVersion {
  std::string_view name;                           ///< such as "RWKV-7"
  std::array<LayerTensor, 3> marks;                ///< what its checkpoints hold; "" for none
  std::string_view heads;                          ///< the tensor of shape [heads, head size] or [heads]; "" for none
  OfficialState state = OfficialState::key_value;  ///< how official states lay a head out
};

/// The channel mix with a receptance gate, of RWKV-4 to 6, the one without, of RWKV-7, and that with DeepEmbed, of RWKV-7a.
struct GatedChannelMix {};
struct PlainChannelMix {};
struct DeepEmbedChannelMix {};

namespace detail {
/// Hidden units of RWKV-5.1 to 6, where nothing else is said: 3.5 times the width, in whole 32s.
constexpr Index ffn_of_gated(Index width) { return width < 10 ? 32 : 7 * width / 64 * 32; }
}  // namespace detail

/// RWKV-4 (Peng et al., "RWKV: Reinventing RNNs for the Transformer Era").
struct V4 {
  static constexpr OfficialVersion official{"RWKV-4", {{{"att.time_decay"}}}, "", OfficialState::components};
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
  static constexpr OfficialVersion official{
      "RWKV-5.2", {{{"att.time_decay", 2}, {"att.ln_x.weight"}, {"att.gate.weight"}}}, "att.time_decay"};
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
  static constexpr OfficialVersion official{
      "RWKV-5.1", {{{"att.time_decay"}, {"att.ln_x.weight"}, {"att.gate.weight"}}}, "att.time_decay"};
  /// A decay for each head, not each channel.
  static constexpr bool per_head = true;
  using Bonus = Copy;  ///< from the stored bonus to that of the recurrence
  static constexpr const char* bonus_name = "time_faaaa";
};

/// RWKV-5.0: RWKV-5.1 without the gate of the time mix, with the logarithm of the bonus stored.
struct V5_0 : V5_1 {
  static constexpr OfficialVersion official{"RWKV-5.0", {{{"att.time_decay"}, {"att.ln_x.weight"}}}, "att.time_decay"};
  using Bonus = Exp;
  using OutputGate = NoGate;
  static constexpr const char* bonus_name = "time_first";
  static constexpr Index ffn(Index width) { return 4 * width; }
};

/// RWKV-6, "Finch" (Peng et al., as above).
struct V6 {
  static constexpr OfficialVersion official{"RWKV-6", {{{"att.time_maa_x"}}}, "att.time_faaaa"};
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
  static constexpr OfficialVersion official{"RWKV-7", {{{"att.r_k"}}}, "att.r_k", OfficialState::value_key};
  using Mix = MixPrevious;
  using Cell = WKV7;
  using Channel = PlainChannelMix;
  using Activation = SquaredRelu;
  using Schedule = Auto;
};

/// RWKV-7a: RWKV-7 with DeepEmbed, a matrix for every token, in the channel mix.
struct V7a : V7 {
  static constexpr OfficialVersion official{
      "RWKV-7a", {{{"att.r_k"}, {"ffn.s_emb.weight"}}}, "att.r_k", OfficialState::value_key};
  using Channel = DeepEmbedChannelMix;
};

/// The versions. A checkpoint is of the first whose marks it has.
using Versions = std::tuple<V7a, V7, V6, V5, V5_1, V5_0, V4>;

namespace detail {
template <class... V>
constexpr auto official_versions(std::tuple<V...>) {
  return std::array{&V::official...};
}

template <class F, class V, class... Others>
auto with_version(std::string_view name, F&& f, std::tuple<V, Others...>) {
  if constexpr (sizeof...(Others) > 0) {
    if (name != V::official.name) return with_version(name, std::forward<F>(f), std::tuple<Others...>());
  }
  expects(name == V::official.name, "rwkv: there is no version '", name, "'");
  return f(V());
}
}  // namespace detail

/// What tells the versions, in the order of Versions.
inline constexpr std::array official_versions = detail::official_versions(Versions());

/// Calls f(V()) with the tag V of the version that is called `name`, and returns what it returns.
/// Errors    no such version
template <class F>
auto with_version(std::string_view name, F&& f) {
  return detail::with_version(name, std::forward<F>(f), Versions());
}

/// The official version with the recurrence of V: V itself, or the one that it is a variant of; null if it has another.
template <class V>
constexpr const OfficialVersion* official_version() {
  if constexpr (requires { V::official; }) {
    const auto has_cell = []<class O>(O) {
      return O::official.name == V::official.name && std::is_same_v<typename O::Cell, typename V::Cell>;
    };
    const bool same = std::apply([&](auto... version) { return (has_cell(version) || ...); }, Versions());
    return same ? &V::official : nullptr;
  } else {
    return nullptr;
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
