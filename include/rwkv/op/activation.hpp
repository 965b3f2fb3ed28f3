#pragma once
/// Pointwise functions between matrix products.
#include "rwkv/core/math.hpp"

namespace rwkv::inline RWKV_ABI {

/// max(x, 0)^2, the activation of every channel mix. An epilogue of products.
struct SquaredRelu {
  template <class R>
  RWKV_HD R operator()(R x) const {
    const R positive = max(x, R(0));
    return positive * positive;
  }
};

/// y = sigmoid(r) * x, the receptance gate. A row program.
struct SigmoidGate {
  template <class R>
  RWKV_HD void map(R r, R x, R& y) const {
    y = sigmoid(r) * x;
  }
};

/// y = -exp(x): the effective log decay of RWKV-4 from the stored time_decay. A row program.
struct NegativeExp {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = -exp(x);
  }
};

/// y = a + b, the residual sum. A row program.
struct Sum {
  template <class R>
  RWKV_HD void map(R a, R b, R& y) const {
    y = a + b;
  }
};

/// y = x. A row program; with an added output it accumulates.
struct Copy {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = x;
  }
};

}  // namespace rwkv::inline RWKV_ABI
