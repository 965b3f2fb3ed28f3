#pragma once
#include "rwkv/block/concept.hpp"
#include "rwkv/block/version.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
/// The sizes with the hidden units of the version, unless they or the static sizes D say otherwise.
template <class V, class D>
constexpr ModelSizes with_ffn(ModelSizes sizes) {
  if constexpr (requires { V::ffn(sizes.width); }) {
    if (sizes.ffn == 0 && D::static_ffn == dyn) sizes.ffn = V::ffn(sizes.width);
  }
  return sizes;
}
}  // namespace detail

/// The channel mix (feed-forward) of RWKV version V with scalar S on backend B; sizes D, dynamic by default.
/// Specialised for the kinds that versions name as `Channel`; see channel_mix_gated.hpp, channel_mix_plain.hpp and
/// channel_mix_deep_embed.hpp.
template <class V, class S, class B, class D>
class ChannelMix : public detail::BlockOfNoVersion<S, B, D> {
  static_assert(sizeof(V) == 0,
                "rwkv: there is no ChannelMix for this version; pass a version tag such as rwkv::V4 or a "
                "type derived from one");

 public:
  using detail::BlockOfNoVersion<S, B, D>::BlockOfNoVersion;
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#include "rwkv/block/channel_mix_deep_embed.hpp"
#include "rwkv/block/channel_mix_gated.hpp"
#include "rwkv/block/channel_mix_plain.hpp"
