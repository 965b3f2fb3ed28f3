#pragma once
/// Recurrent state.
#include "rwkv/cell/concept.hpp"
#include "rwkv/core/view.hpp"

namespace rwkv::inline RWKV_ABI {

/// Sets the state of a channel cell to what it is before the first token.
/// Shapes    state: [batch, state_size * width], component-major
template <class Cell, class B, class T>
void reset_state(B& backend, Mat<T> state) {
  One<T> initial[Cell::state_size];
  Cell::init(initial);
  const Index width = state.cols / Cell::state_size;
  for (Index n = 0; n < Cell::state_size; ++n) {
    backend.fill(Mat<T>{state.data + n * width, state.rows, width, state.stride}, initial[n].v);
  }
}

}  // namespace rwkv::inline RWKV_ABI
