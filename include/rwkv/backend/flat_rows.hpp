#pragma once
/// A row program over many contiguous arrays at a time, such as an optimiser's update of every parameter.
#include <cstddef>
#include <span>
#include <utility>

#include "rwkv/backend/rows.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A row program without stages over arrays of [rows, width] numbers: all its inputs, then all its outputs. An output
/// may be an input.
template <class P, class T, std::size_t Inputs, std::size_t Outputs>
struct FlatRows {
  P program;            ///< a row program without stages
  Index rows, width;    ///< of every operand
  const T* in[Inputs];  ///< inputs, contiguous
  T* out[Outputs];      ///< outputs, contiguous

  /// Numbers of an operand.
  Index size() const { return rows * width; }
};

namespace detail {
template <class B, class P, class T, std::size_t Inputs, std::size_t Outputs, std::size_t... In, std::size_t... Out>
void run_flat_rows(B& be, const FlatRows<P, T, Inputs, Outputs>& task, std::index_sequence<In...>,
                   std::index_sequence<Out...>) {
  be.rows(task.program, arg::in(Seq<const T>{task.in[In], 1, task.rows, task.width})...,
          arg::out(Seq<T>{task.out[Out], 1, task.rows, task.width})...);
}
}  // namespace detail

/// Runs every task. No task may read the outputs of another. A backend on which small operations are expensive may fuse
/// them in a verb `rows_each(tasks)`.
template <class B, class P, class T, std::size_t Inputs, std::size_t Outputs>
void rows_each(B& be, std::span<const FlatRows<P, T, Inputs, Outputs>> tasks) {
  if constexpr (requires { be.rows_each(tasks); }) {
    be.rows_each(tasks);
  } else {
    for (const auto& task : tasks) {
      detail::run_flat_rows(be, task, std::make_index_sequence<Inputs>(), std::make_index_sequence<Outputs>());
    }
  }
}

}  // namespace RWKV_ABI
}  // namespace rwkv
