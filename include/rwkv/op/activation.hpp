#pragma once
/// Pointwise functions between matrix products.
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// max(x, 0)^2, the activation of every channel mix. An epilogue of products. For training an epilogue has a `slope`:
/// its derivative as a function of its output, so that its input need not be kept.
struct SquaredRelu {
  template <class R>
  RWKV_HD R operator()(R x) const {
    const R positive = max(R(0), x);  // this order of arguments keeps a NaN
    return positive * positive;
  }
  template <class R>
  RWKV_HD R slope(R y) const {
    return R(2) * sqrt(y);
  }
};

/// tanh(x), inside the low-rank products of RWKV-6 and 7. An epilogue.
struct Tanh {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return tanh(x);
  }
  template <class R>
  RWKV_HD R slope(R y) const {
    return R(1) - y * y;
  }
};

/// The logistic function, inside the gate of RWKV-7. An epilogue.
struct Sigmoid {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return sigmoid(x);
  }
  template <class R>
  RWKV_HD R slope(R y) const {
    return y * (R(1) - y);
  }
};

/// dx = dy * slope(y), the adjoint of an epilogue. A row program; dx may be dy.
template <class Epilogue>
struct EpilogueBack {
  Epilogue epilogue{};  ///< whose adjoint this is

  template <class R>
  RWKV_HD void map(R y, R dy, R& dx) const {
    static_assert(
        requires { epilogue.slope(y); },
        "rwkv: to be trained an epilogue needs template <class R> R slope(R y) const, its derivative as a "
        "function of its value");
    dx = dy * epilogue.slope(y);
  }
};

/// y = sigmoid(r) * x, the receptance gate. A row program.
struct SigmoidGate {
  template <class R>
  RWKV_HD void map(R r, R x, R& y) const {
    y = sigmoid(r) * x;
  }

  /// Hand-written: one division, where dual numbers need one for every direction.
  template <class R>
  RWKV_HD void map_back(const R (&x)[2], const R (&dy)[1], R (&dx)[2]) const {
    const R gate = sigmoid(x[0]);
    dx[1] = dy[0] * gate;
    dx[0] = dx[1] * x[1] * (R(1) - gate);
  }
};

/// y = -exp(x): the effective log decay of RWKV-4 from the stored time_decay. A row program.
struct NegativeExp {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = -exp(x);
  }
};

/// y = exp(-exp(x)): the decay of RWKV-5 from the stored time_decay; of RWKV-6 from the sum of the stored part and that
/// of the token. A row program.
struct ExpNegativeExp {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = exp(-exp(x));
  }
  template <class R>
  RWKV_HD void map(R stored, R of_token, R& y) const {
    y = exp(-exp(stored + of_token));
  }
};

/// y = exp(x): the bonus of RWKV-5.0 from the stored time_first. A row program.
struct Exp {
  template <class R>
  RWKV_HD void map(R x, R& y) const {
    y = exp(x);
  }
};

/// y = x g sigmoid(g), the gate of RWKV-5 and 6. A row program.
struct SiluGate {
  template <class R>
  RWKV_HD void map(R g, R x, R& y) const {
    y = g * sigmoid(g) * x;
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

}  // namespace RWKV_ABI
}  // namespace rwkv
