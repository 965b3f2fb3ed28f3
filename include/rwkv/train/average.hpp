#pragma once
/// An exponential moving average of the trained parameters.
#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// average = decay average + (1 - decay) p. A row program.
struct Averaged {
  double decay;  ///< kept of the average at each step
  template <class R>
  RWKV_HD void map(R p, R before, R& after) const {
    after = R(decay) * before + R(1 - decay) * p;
  }
};

/// Swaps two arrays. A row program.
struct Exchanged {
  template <class R>
  RWKV_HD void map(R a, R b, R& a_after, R& b_after) const {
    a_after = b;
    b_after = a;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
