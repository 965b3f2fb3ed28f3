#pragma once
/// What a model is composed of, in words that a file can hold.
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "rwkv/block/version.hpp"
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/fwd.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A part of one's own is called by its `static constexpr std::string_view name`. One without is told by what it computes
/// from a few numbers, which is the same by every compiler, where names of types are not.
template <class P>
concept Named = requires {
  std::string_view(P::name);
};

/// A short word for numbers: a hash of five decimals of each, since compilers round the last digits in their own ways.
class NumbersWord {
 public:
  void add(One<double> number) {
    const double decimals = number.v * 1e5;
    if (decimals > -1e15 && decimals < 1e15) text_ += join(std::llround(decimals), " ");
    else text_ += is_nan(number.v) ? "nan " : number.v > 0 ? "large " : "small ";
  }
  std::string word() const {
    char digits[16];
    return {digits, std::to_chars(digits, digits + sizeof digits, stream_of(text_) >> 32, 16).ptr};
  }

 private:
  std::string text_;
};

/// Numbers of many digits, so that what is computed from them, such as a product of three, is not half way between two
/// roundings, where the last digit decides.
inline One<double> number_of_trial(Index nth) {
  constexpr std::array numbers = {-1.4731872093561247, 0.6937641852907315,  -0.3948510627319458, 1.2583917406285193,
                                  0.2716059384172063,  -0.8362910475286194, 0.9418357260914728,  -1.1174926350817436,
                                  0.5329170486239157,  -0.1648203975160382, 1.0760592841637259,  -0.7215048369271842,
                                  0.3174629105836291};
  return One<double>(numbers[static_cast<std::size_t>(nth) % numbers.size()]);
}

/// The vectors of a head in a trial.
struct TrialHead {
  One<double> operator()(int vector, Index n) const { return number_of_trial(2 * vector + n); }
};

template <class C>
std::string word_of_cell() {
  using R = One<double>;
  constexpr int inputs = static_cast<int>(input_count<C>);
  NumbersWord numbers;
  const auto run = [&](auto&& step) {
    for (int token = 0; token < 4; ++token) {
      R x[inputs];
      for (int i = 0; i < inputs; ++i) x[i] = number_of_trial(token * inputs + i);
      numbers.add(step(static_cast<const R(&)[inputs]>(x)));
    }
  };
  if constexpr (RowCell<C>) {
    R state[2] = {R(0), R(0)};
    run([&](const R(&x)[inputs]) { return C::step(LaneState<R>{state, 2}, x, TrialHead{}); });
  } else {
    R state[C::state_size];
    C::init(state);
    run([&](const R(&x)[inputs]) { return C::step(state, x); });
  }
  return numbers.word();
}

/// What a policy of a version is called.
template <class P>
std::string word_of() {
  using R = One<double>;
  NumbersWord numbers;
  [[maybe_unused]] const auto each = [&](auto&& f) {
    for (int nth = 0; nth < 4; ++nth) {
      numbers.add(f(number_of_trial(nth), number_of_trial(nth + 4), number_of_trial(nth + 8)));
    }
  };
  if constexpr (Named<P>) {
    return std::string(P::name);
  } else if constexpr (requires { P::inputs.size(); }) {
    return word_of_cell<P>();
  } else if constexpr (requires(R x) { P::mix(x, x, x); }) {
    each([](R x, R before, R m) { return P::mix(x, before, m); });
    return numbers.word();
  } else if constexpr (requires(const P& p, R x) { R(p(x)); }) {
    each([](R x, R, R) { return R(P{}(x)); });
    return numbers.word();
  } else if constexpr (requires(const P& p, R x) { p.map(x, x); }) {
    each([](R x, R, R) {
      R y(0);
      P{}.map(x, y);
      return y;
    });
    return numbers.word();
  } else if constexpr (requires(const P& p, R x) { p.map(x, x, x); }) {
    each([](R x, R z, R) {
      R y(0);
      P{}.map(x, z, y);
      return y;
    });
    return numbers.word();
  } else {
    return "of its own";
  }
}

/// ", mix WORD" where a version has another mix than the official one.
template <class Mine, class Official>
std::string policy_apart(std::string_view policy) {
  if constexpr (std::is_same_v<Mine, Official>) return {};
  else return join(", ", policy, " ", word_of<Mine>());
}
template <class V, class O>
std::string policies_apart() {
  std::string text = policy_apart<typename V::Mix, typename O::Mix>("mix");
  text += policy_apart<typename V::Cell, typename O::Cell>("cell");
  text += policy_apart<typename V::Activation, typename O::Activation>("activation");
  if constexpr (requires { typename O::Decay; }) text += policy_apart<typename V::Decay, typename O::Decay>("decay");
  if constexpr (requires { typename O::Gate; }) text += policy_apart<typename V::Gate, typename O::Gate>("gate");
  if constexpr (requires { typename O::OutputGate; }) {
    text += policy_apart<typename V::OutputGate, typename O::OutputGate>("output gate");
  }
  if constexpr (requires { typename O::Bonus; }) text += policy_apart<typename V::Bonus, typename O::Bonus>("bonus");
  if constexpr (!std::is_same_v<typename V::Channel, typename O::Channel>) text += ", another channel mix";
  return text;
}

template <class V>
std::string composition_of_version() {
  if constexpr (Named<V>) {
    return std::string(V::name);
  } else if constexpr (requires { V::official; }) {
    std::string text(V::official.name);
    const auto compare = [&]<class O>(O) {
      if constexpr (O::official.name == V::official.name) text += policies_apart<V, O>();
    };
    std::apply([&](auto... version) { (compare(version), ...); }, Versions());
    return text;
  } else {
    return "a version of its own";
  }
}

/// What a block is called.
template <class K>
struct Composition {
  static std::string name() {
    if constexpr (Named<K>) return std::string(K::name);
    else return "a block of its own";
  }
};
template <class V, class S, class B, class D>
struct Composition<TimeMix<V, S, B, D>> {
  static std::string name() { return composition_of_version<V>(); }
};
template <class V, class S, class B, class D>
struct Composition<ChannelMix<V, S, B, D>> {
  static std::string name() { return composition_of_version<V>(); }
};
template <class Cell, class S, class B, class D>
struct Composition<CellMix<Cell, S, B, D>> {
  static std::string name() {
    if constexpr (Named<Cell>) return std::string(Cell::name);
    else return "cell " + word_of_cell<Cell>();
  }
};
template <class TimeMixing, class ChannelMixing>
struct Composition<Layer<TimeMixing, ChannelMixing>> {
  static std::string name() {
    const std::string first = Composition<TimeMixing>::name(), second = Composition<ChannelMixing>::name();
    return first == second ? first : join(first, " + ", second);
  }
};
template <class First, class... Rest>
struct Composition<Chain<First, Rest...>> {
  static std::string name() {
    std::string first = Composition<First>::name();
    if (((Composition<Rest>::name() == first) && ...)) return first;
    return (first + ... + ("; " + Composition<Rest>::name()));
  }
};
template <class L, Index N>
struct Composition<Stack<L, N>> {
  static std::string name() { return Composition<L>::name(); }
};

}  // namespace detail

/// What the layers of a model compute, in words: "RWKV-4" for an official one; "RWKV-4, activation 5d1e0c73" for a variant
/// with an activation of its own, which is told by what it computes from a few numbers, or by a member `name`; "RWKV-4;
/// cell gate" for a chain of a layer of RWKV-4 and one whose cell has the name "gate". A chain of equal layers is called as
/// one of them. Scalars, backends, sizes, schedules, embedding and head are left out. The same by every compiler.
///
/// The numbers lie between -1.5 and 1.3: functions that are equal there, such as ReLU and ReLU6, have one word unless they
/// have names.
template <class Net>
std::string composition() {
  return detail::Composition<decltype(Net::Parts::body)>::name();
}

namespace detail {
/// Whether a composition is that of an official version, whose tensors tell it.
inline bool is_official(std::string_view composition) {
  bool found = false;
  for (const OfficialVersion* version : rwkv::official_versions) found = found || version->name == composition;
  return found;
}
}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv
