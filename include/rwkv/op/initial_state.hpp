#pragma once
/// The initial state of a recurrence, also as a trained parameter.
#include <concepts>
#include <utility>

#include "rwkv/backend/operand.hpp"
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {
/// Fills component n of a state [batch, state_size * width], component-major, with number n.
template <class B, class T, std::size_t Components>
void fill_components(B& backend, Mat<T> state, const One<T> (&numbers)[Components]) {
  const Index width = state.cols / static_cast<Index>(Components);
  for (std::size_t n = 0; n < Components; ++n) {
    backend.fill(Mat<T>{state.data + static_cast<Index>(n) * width, state.rows, width, state.stride}, numbers[n].v);
  }
}
}  // namespace detail

namespace detail {
template <class Cell, class T>
concept HasMakeValid = !RowCell<Cell> && requires(One<T>(&state)[Cell::state_size]) {
  Cell::make_valid(state);
};
}  // namespace detail

/// Sets the state of a cell to its value before the first token; that of a row cell is zero.
/// Shapes    state: [batch, state_size * width], component-major; of a row cell [batch, head * key * value]
template <class Cell, class B, class T>
void reset_state(B& backend, Mat<T> state) {
  if constexpr (RowCell<Cell>) {
    backend.fill(state, T(0));
  } else {
    One<T> initial[Cell::state_size];
    Cell::init(initial);
    detail::fill_components(backend, state, initial);
  }
}

/// Sets a state to an initial value that an optimiser can train. A cell whose initial state has gradient zero (WKV4:
/// its scale is zero) provides an equivalent one with gradients as init_tuned.
template <class Cell, class B, class T>
void begin_tuning(B& backend, Mat<T> state) {
  if constexpr (RowCell<Cell>) {
    reset_state<Cell>(backend, state);
  } else {
    One<T> initial[Cell::state_size];
    if constexpr (requires { Cell::init_tuned(initial); }) Cell::init_tuned(initial);
    else Cell::init(initial);
    detail::fill_components(backend, state, initial);
  }
}

/// The row program that applies a cell's make_valid to the components of a state: operands in, then out.
template <class Cell>
struct MakeValid {
  template <class R, std::same_as<R>... Rest>
  RWKV_HD void map(R& first, Rest&... rest) const {
    R* const each[] = {&first, &rest...};
    R state[Cell::state_size];
    RWKV_UNROLL for (int n = 0; n < Cell::state_size; ++n) state[n] = *each[n];
    Cell::make_valid(state);
    RWKV_UNROLL for (int n = 0; n < Cell::state_size; ++n) * each[Cell::state_size + n] = state[n];
  }
};

namespace detail {
template <class Cell, class B, class T, std::size_t... Nth>
void make_row_valid(B& backend, T* row, Index width, std::index_sequence<Nth...>) {
  const auto component = [&](std::size_t n) { return Seq<T>{row + static_cast<Index>(n) * width, 1, 1, width}; };
  backend.rows(MakeValid<Cell>{}, arg::in(component(Nth))..., arg::out(component(Nth))...);
}
}  // namespace detail

/// Projects a state back onto the valid states after an optimiser has changed it. No effect for cells without
/// make_valid: every state is valid for them.
template <class Cell, class B, class T>
void make_valid([[maybe_unused]] B& backend, [[maybe_unused]] Mat<T> state) {
  if constexpr (detail::HasMakeValid<Cell, T>) {
    constexpr auto components = std::make_index_sequence<static_cast<std::size_t>(Cell::state_size)>();
    for (Index b = 0; b < state.rows; ++b) {
      detail::make_row_valid<Cell>(backend, state.row(b), state.cols / Cell::state_size, components);
    }
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
