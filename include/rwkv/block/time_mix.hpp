#pragma once
#include "rwkv/block/concept.hpp"
#include "rwkv/block/version.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The time mix (attention) of RWKV version V with scalar S on backend B; sizes D, dynamic by default. Specialised for
/// every version; see time_mix_v4.hpp to time_mix_v7.hpp.
template <class V, class S, class B, class D>
class TimeMix : public detail::BlockOfNoVersion<S, B, D> {
  static_assert(sizeof(V) == 0,
                "rwkv: there is no TimeMix for this version; pass a version tag such as rwkv::V4 or a type "
                "derived from one");

 public:
  using detail::BlockOfNoVersion<S, B, D>::BlockOfNoVersion;
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#include "rwkv/block/time_mix_v4.hpp"
#include "rwkv/block/time_mix_v5.hpp"
#include "rwkv/block/time_mix_v6.hpp"
#include "rwkv/block/time_mix_v7.hpp"
