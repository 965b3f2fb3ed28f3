#pragma once
/// Token shift: the mix of each token with the one before.
#include <concepts>
#include <cstddef>

#include "rwkv/backend/operand.hpp"
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// RWKV-4 and 5: y = x m + p (1 - m); m weighs the current token. A rule may have hand-written derivatives; otherwise
/// they come from dual numbers.
struct MixCurrent {
  /// The mixed token, of a token x and the one before it, p.
  template <class R>
  RWKV_HD static R mix(R x, R p, R m) {
    return x * m + p * (R(1) - m);
  }
  template <class R>
  RWKV_HD static R by_x(R m) {
    return m;
  }
  template <class R>
  RWKV_HD static R by_p(R m) {
    return R(1) - m;
  }
  template <class R>
  RWKV_HD static R by_m(R x, R p) {
    return x - p;
  }
};

/// RWKV-6 and 7: y = x + (p - x) m; m weighs the previous token.
struct MixPrevious {
  /// The mixed token, of a token x and the one before it, p.
  template <class R>
  RWKV_HD static R mix(R x, R p, R m) {
    return x + (p - x) * m;
  }
  template <class R>
  RWKV_HD static R by_x(R m) {
    return R(1) - m;
  }
  template <class R>
  RWKV_HD static R by_p(R m) {
    return m;
  }
  template <class R>
  RWKV_HD static R by_m(R x, R p) {
    return p - x;
  }
};

/// Whether a rule weighs the previous token: then official tensors are called time_maa_ and start as 1 - mix.
template <class Rule>
inline constexpr bool weighs_previous = std::derived_from<Rule, MixPrevious>;

/// The row program for several mixes of one x and the previous token p in one pass. Operands: x, p, the mixes, the
/// outputs.
template <class Rule>
struct Mix {
  template <class R, std::same_as<R>... Rest>
  RWKV_HD void map(R x, R p, Rest&... mixes_then_outputs) const {
    constexpr int count = sizeof...(Rest) / 2;
    R* const each[] = {&mixes_then_outputs...};
    RWKV_UNROLL for (int i = 0; i < count; ++i) * each[count + i] = Rule::mix(x, p, *each[i]);
  }

  /// Hand-written: dual numbers would carry one direction per operand, and most of the derivatives are zero.
  template <class R, std::size_t Inputs, std::size_t Outputs>
  requires requires(R m) { Rule::by_x(m); }
  RWKV_HD void map_back(const R (&x)[Inputs], const R (&dy)[Outputs], R (&dx)[Inputs]) const {
    dx[0] = R(0);
    dx[1] = R(0);
    RWKV_UNROLL for (std::size_t i = 0; i < Outputs; ++i) {
      dx[0] += dy[i] * Rule::by_x(x[2 + i]);
      dx[1] += dy[i] * Rule::by_p(x[2 + i]);
      dx[2 + i] = dy[i] * Rule::by_m(x[0], x[1]);
    }
  }
};

/// The same for mixes of which all but the first `Plain` have a part that depends on the token (RWKV-6), mix_j + data_j.
/// Operands: x, p, the mixes, the parts, the outputs.
template <class Rule, int Plain = 0>
struct DataMix {
  template <class R, std::same_as<R>... Rest>
  RWKV_HD void map(R x, R p, Rest&... mixes_data_outputs) const {
    constexpr int count = (sizeof...(Rest) + Plain) / 3, outputs = 2 * count - Plain;
    R* const each[] = {&mixes_data_outputs...};
    RWKV_UNROLL for (int i = 0; i < count; ++i) {
      const R m = i < Plain ? *each[i] : *each[i] + *each[count + i - Plain];
      *each[outputs + i] = Rule::mix(x, p, m);
    }
  }

  /// Hand-written, as that of Mix.
  template <class R, std::size_t Inputs, std::size_t Outputs>
  requires requires(R m) { Rule::by_x(m); }
  RWKV_HD void map_back(const R (&x)[Inputs], const R (&dy)[Outputs], R (&dx)[Inputs]) const {
    constexpr std::size_t plain = Plain;
    dx[0] = R(0);
    dx[1] = R(0);
    RWKV_UNROLL for (std::size_t i = 0; i < Outputs; ++i) {
      const std::size_t data = 2 + Outputs + i - plain;
      const R m = i < plain ? x[2 + i] : x[2 + i] + x[data];
      const R dm = dy[i] * Rule::by_m(x[0], x[1]);
      dx[0] += dy[i] * Rule::by_x(m);
      dx[1] += dy[i] * Rule::by_p(m);
      dx[2 + i] = dm;
      if (i >= plain) dx[data] = dm;
    }
  }
};

/// The cotangents of the mixes themselves at every token, dm_j = dy_j dmix/dm. Operands: x, p, the dy, the dm.
template <class Rule>
struct MixCotangents {
  template <class R, std::same_as<R>... Rest>
  RWKV_HD void map(R x, R p, Rest&... dy_then_dm) const {
    constexpr int count = sizeof...(Rest) / 2;
    R* const each[] = {&dy_then_dm...};
    RWKV_UNROLL for (int i = 0; i < count; ++i) * each[count + i] = *each[i] * Rule::by_m(x, p);
  }
};

/// Stores the last token of x in the state: it is the previous token of the first token to come.
/// Shapes    x: [batch, time, width], time >= 1   state: [batch, width]
/// Aliasing  state must not overlap x
template <class B, class T, Index W, class U>
void remember_last(B& backend, Seq<T, W> x, Mat<U> state) {
  backend.copy(x.at(x.time - 1), state);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
