#pragma once
/// What a recurrence is, and what the library derives from it.
///
/// A recurrence is written for one *lane* in a generic number R. In a channel cell (RWKV-4) a lane is a channel with a
/// few numbers of state. In a row cell (RWKV-5 to 7) a lane is one row of a head's matrix state: it has as many numbers
/// of state as the head has channels, and all lanes of the head share the vectors along the key axis.
#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "rwkv/cell/trial_number.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/math.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The names of a recurrence's inputs, in the order of its arguments.
template <std::size_t N>
struct Inputs : std::array<std::string_view, N> {};
/// As many names as are given.
template <class... Name>
Inputs(Name...) -> Inputs<sizeof...(Name)>;

/// The state of one lane of a row cell: as long as the head, whose size may be static.
template <class R, Index N = dyn>
struct LaneState {
  R* data;                               ///< the first number
  [[no_unique_address]] Extent<N> size;  ///< channels of a head
  /// Number n.
  RWKV_HD constexpr R& operator[](Index n) const { return data[n]; }
};

/// The longest head a row cell runs with when the head size is not static.
inline constexpr Index max_head_size = 256;

/// How many inputs a cell names.
template <class C>
inline constexpr std::size_t input_count = C::inputs.size();

/// A cell whose lanes share vectors along the head.
template <class C>
concept RowCell = requires {
  C::shared.size();
};

namespace detail {

/// The number of vectors that the lanes of a head share; none in a channel cell.
template <class C>
inline constexpr std::size_t shared_count = 0;
template <RowCell C>
inline constexpr std::size_t shared_count<C> = C::shared.size();

/// A stand-in for the shared vectors of a head in concept checks.
template <class R>
struct HeadArchetype {
  R operator()(int vector, Index n) const;
};

template <class C>
concept NamesInputs = requires {
  C::inputs.size();
};

template <class C>
concept SizesState = requires {
  static_cast<int>(C::state_size);
};

template <class C, class R>
concept Initialises = requires(R (&state)[C::state_size]) {
  C::init(state);
};

/// `C::step` takes so many numbers of state and so many inputs.
template <class C, class R, std::size_t States, std::size_t Inputs>
concept StepsWith = requires(R (&state)[States], const R (&x)[Inputs]) {
  { C::step(state, x) } -> std::same_as<R>;
};

template <class C, class R>
concept ChannelSteps = Initialises<C, R> && StepsWith<C, R, C::state_size, C::inputs.size()>;

template <class C, class R>
concept RowSteps = requires(LaneState<R> state, const R (&x)[C::inputs.size()], HeadArchetype<R> head) {
  { C::step(state, x, head) } -> std::same_as<R>;
};

template <class C, class R>
concept Composes = ChannelSteps<C, R> && requires(R (&state)[C::state_size], const R (&x)[C::inputs.size()]) {
  C::enter(state, C::compose(C::lift(x), C::lift(x)));
};

}  // namespace detail

/// When a token of a row cell reads the state: before its own update or after it.
enum class Reads { before_update, after_update };

/// In the place of a shared vector: there is none.
inline constexpr int no_vector = -1;

/// A row cell with one input, the value v, may declare its transition: which form it has, and which shared vector plays
/// which part in it. From the declaration alone, the schedule Chunked runs time in chunks, forwards and backwards. So it
/// must say all that `step` does, and name every shared vector once:
///
///     enum { receptance, decay, key };
///     static constexpr Diagonal transition{.read = receptance, .decay = decay, .write = key};
///
/// Here decays are diagonal (RWKV-5 and 6), with S of shape [value, key]:
///
///     S_t = S_{t-1} diag(decay_t) + v_t write_t^T
///     y_t = S_{t-1} read_t + (read_t . (bonus_t * write_t)) v_t    before the update; the bonus is optional
///     y_t = S_t read_t                                             after the update; without a bonus
///
/// Decays are in [0, 1]: larger ones may overflow.
struct Diagonal {
  int read, decay, write;              ///< shared vectors, by number
  int bonus = no_vector;               ///< the bonus, or no_vector
  Reads reads = Reads::before_update;  ///< when a token reads the state
};

/// As Diagonal, with a product of two vectors (RWKV-7):
///
///     S_t = S_{t-1} (diag(decay_t) + a_t b_t^T) + v_t write_t^T
///     y_t = S_{t-1} read_t or S_t read_t
struct DiagonalPlusRankOne {
  int read, decay, write, a, b;       ///< shared vectors, by number
  Reads reads = Reads::after_update;  ///< when a token reads the state
};

namespace detail {

/// Whether the declared transition of C has the form T.
template <class C, class T>
inline constexpr bool declares = std::is_same_v<std::remove_cvref_t<decltype(C::transition)>, T>;

/// The transition names every shared vector of C once, and no other.
template <class C>
consteval bool names_each_vector() {
  int named[shared_count<C> + 1] = {};
  bool good = true;
  const auto name = [&](int vector) {
    good = good && vector >= 0 && vector < static_cast<int>(shared_count<C>);
    if (good) ++named[vector];
  };
  name(C::transition.read);
  name(C::transition.decay);
  name(C::transition.write);
  if constexpr (declares<C, DiagonalPlusRankOne>) {
    name(C::transition.a);
    name(C::transition.b);
  } else if (C::transition.bonus != no_vector) {
    name(C::transition.bonus);
    good = good && C::transition.reads == Reads::before_update;
  }
  for (std::size_t i = 0; i < shared_count<C>; ++i) good = good && named[i] == 1;
  return good;
}

}  // namespace detail

/// A row cell that declares its transition. Law: the declared form leaves the same state and output as `step`.
template <class C>
concept HasTransition = RowCell<C> && requires {
  C::transition;
} &&(detail::declares<C, Diagonal> || detail::declares<C, DiagonalPlusRankOne>);

/// Named inputs and a step. `init` and `state_size` belong to channel cells; the state of a row cell starts at zero.
template <class C>
concept Recurrence = detail::NamesInputs<C> &&
    (detail::RowSteps<C, One<double>> || detail::ChannelSteps<C, One<double>>);

/// A channel cell whose stretches of time compose, so that a scan can run time in parallel. `lift` makes the stretch of
/// one token, `compose(earlier, later)` joins two stretches, `enter` advances a state by one stretch. Law:
/// enter(s, lift(x)) leaves the same state as step(s, x).
template <class C>
concept Scannable = Recurrence<C> && !RowCell<C> && detail::Composes<C, One<double>>;

namespace detail {

/// Whether only the number of inputs that `C::step` takes is wrong, or that of the state.
template <class C, std::size_t... I>
consteval bool takes_other_inputs(std::index_sequence<I...>) {
  return (StepsWith<C, One<double>, C::state_size, I + 1> || ...);
}
template <class C, std::size_t... I>
consteval bool takes_other_state(std::index_sequence<I...>) {
  return (StepsWith<C, One<double>, I + 1, C::inputs.size()> || ...);
}

/// Has the bodies of C compiled with a trial number.
template <class C>
constexpr void try_out() {
  using R = TrialNumber<double>;
  if constexpr (RowCell<C>) {
    [[maybe_unused]] const auto step = [](LaneState<R> state, const R(&x)[C::inputs.size()], HeadArchetype<R> head) {
      C::step(state, x, head);
    };
  } else {
    [[maybe_unused]] const auto step = [](R(&state)[C::state_size], const R(&x)[C::inputs.size()]) {
      C::init(state);
      C::step(state, x);
    };
  }
}

}  // namespace detail

/// Fails to compile with a sentence that says why C is not a recurrence.
template <class C>
consteval bool explain_recurrence() {
  static_assert(detail::NamesInputs<C>,
                "rwkv: a recurrence must name its inputs: static constexpr auto inputs = Inputs{\"key\", \"value\"};");
  if constexpr (detail::NamesInputs<C>) {
    if constexpr (RowCell<C>) {
      static_assert(
          detail::RowSteps<C, One<double>>,
          "rwkv: a row cell must have template <class R, class State, class Head> static R step(State state, "
          "const R (&x)[inputs], const Head& head), in which head(vector, n) is component n of a shared vector");
    } else {
      static_assert(
          detail::SizesState<C>,
          "rwkv: a channel cell must say how many numbers of state a channel keeps: static constexpr int state_size = 1;");
      if constexpr (detail::SizesState<C>) {
        static_assert(detail::Initialises<C, One<double>>,
                      "rwkv: a channel cell must set its state before the first token: template <class R> static void "
                      "init(R (&state)[state_size])");
        if constexpr (!detail::StepsWith<C, One<double>, C::state_size, C::inputs.size()>) {
          constexpr std::make_index_sequence<16> lengths;
          static_assert(!detail::takes_other_inputs<C>(lengths),
                        "rwkv: the step of a channel cell must take as many inputs as it names, const R "
                        "(&x)[inputs.size()]");
          static_assert(!detail::takes_other_state<C>(lengths),
                        "rwkv: the step of a channel cell must take as many numbers of state as state_size says, R "
                        "(&state)[state_size]");
        }
        static_assert(detail::ChannelSteps<C, One<double>>,
                      "rwkv: a channel cell must have template <class R> static R step(R (&state)[state_size], const R "
                      "(&x)[inputs])");
      }
    }
  }
  if constexpr (Recurrence<C>) detail::try_out<C>();
  return Recurrence<C>;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
