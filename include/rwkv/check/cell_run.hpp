#pragma once
/// A bare recurrence with its inputs, states and output, to be checked or timed.
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/backend/concept.hpp"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/cell/concept.hpp"
#include "rwkv/check/limits.hpp"
#include "rwkv/core/checked.hpp"
#include "rwkv/core/random.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The sizes of a bare recurrence.
struct CellSizes {
  Index width = 0;       ///< channels
  Index time = 1;        ///< tokens of each sequence
  Index batch = 1;       ///< sequences side by side
  Index head_size = 64;  ///< channels of a head, of a row cell
};

/// Runs a cell on a backend, over sequences of its own: every input and shared vector is [batch, time, width]. Numbers start
/// uniform in [-0.1, 0.1), so that no state grows, states where the cell starts.
///
///     CellRun<WKV4, Cpu> run({.width = 768, .time = 512}, Cpu(2));
///     run.fill("decay", -3, -0.01);
///     const Timing timing = measure(run.work(34), [&] { run.forward(); });
template <class Cell, class B, class T = float, class Schedule = Auto>
class CellRun {
  static_assert(explain_recurrence<Cell>() && explain_backend<B>());

 public:
  /// Errors    sizes below 1, a width that is no whole number of heads, out of memory
  explicit CellRun(const CellSizes& sizes, B backend = {}) : sizes_(checked(sizes)), be_(std::move(backend)) {
    for (std::size_t i = 0; i <= operands; ++i) {
      sequences_.emplace_back(be_, sizes_.batch * sizes_.time * sizes_.width * Index{sizeof(T)});
    }
    for (std::size_t i = 0; i < operands; ++i) fill(i, -0.1, 0.1);
    state_ = Memory<B>(be_, sizes_.batch * state_numbers() * Index{sizeof(T)});
    reset();
    scratch_ = scratch_for(be_, [&](Arena ws) { run(ws); });
  }

  /// Sets an input or a shared vector to numbers uniform in [low, high); equal calls give equal numbers.
  /// Errors    the cell has no input of that name
  void fill(std::string_view input, double low, double high) {
    std::vector<std::string_view> names(Cell::inputs.begin(), Cell::inputs.end());
    if constexpr (RowCell<Cell>) names.insert(names.end(), Cell::shared.begin(), Cell::shared.end());
    const auto found = std::ranges::find(names, input);
    std::string all;
    for (const std::string_view name : names) all += join(" ", name);
    expects(found != names.end(), "rwkv: the cell has no input named ", input, "; it has", all);
    fill(static_cast<std::size_t>(found - names.begin()), low, high);
  }
  /// Sets all states to those before the first token.
  void reset() {
    const auto width = static_cast<std::size_t>(sizes_.width);
    One<T> first[states]{};
    if constexpr (!RowCell<Cell>) Cell::init(first);
    write_numbers(be_, numbers_of(state_), [&](std::size_t i) { return first[i / width % states].v; });
  }

  /// Advances the states by all tokens, from where they are, and returns when that is done. Allocates nothing.
  void forward() {
    run(scratch_.arena());
    be_.sync();
  }

  /// What a pass takes at least, with `flops` operations for each number of an input, on the threads of the backend.
  Work work(double flops) const {
    int threads = 1;
    if constexpr (requires { be_.threads(); }) threads = be_.threads();
    const auto numbers = static_cast<double>(sizes_.batch * sizes_.time * sizes_.width);
    const auto of_states = static_cast<double>(2 * sizes_.batch * state_numbers());  // read and written
    return {.bytes = (static_cast<double>(operands + 1) * numbers + of_states) * sizeof(T),
            .flops = flops * numbers,
            .tokens = static_cast<double>(sizes_.batch * sizes_.time),
            .threads = threads};
  }

  /// The output of the last pass: [batch, time, width].
  std::vector<T> output() { return read(sequences_.back()); }
  /// The states: [batch, numbers of a sequence].
  std::vector<T> state() { return read(state_); }

 private:
  static constexpr std::size_t operands = input_count<Cell> + detail::shared_count<Cell>;
  static constexpr std::size_t states = [] {
    if constexpr (RowCell<Cell>) return std::size_t{1};
    else return static_cast<std::size_t>(Cell::state_size);
  }();

  static const CellSizes& checked(const CellSizes& sizes) {
    expects(sizes.width > 0 && sizes.time > 0 && sizes.batch > 0,
            "rwkv: a recurrence needs a width, a time and a batch above "
            "zero, not ",
            sizes.width, ", ", sizes.time, " and ", sizes.batch);
    if (RowCell<Cell>) {
      expects(sizes.head_size > 0 && sizes.head_size <= max_head_size && sizes.width % sizes.head_size == 0,
              "rwkv: a width of ", sizes.width, " has no whole heads of ", sizes.head_size, " channels, of at most ",
              max_head_size);
    }
    const Checked numbers = Checked(sizes.width) * Checked(sizes.batch);
    const Checked of_state(RowCell<Cell> ? sizes.head_size : static_cast<Index>(states));
    for (const Checked& each : {Checked(sizes.time) * Checked(operands + 1), of_state}) {
      static_cast<void>((numbers * each * Checked(sizeof(T)))
                            .template to<Index>("rwkv: the memory of a recurrence of ", sizes.batch, " sequences, ",
                                                sizes.time, " tokens and ", sizes.width,
                                                " channels cannot be counted"));
    }
    return sizes;
  }

  Index state_numbers() const { return sizes_.width * (RowCell<Cell> ? sizes_.head_size : static_cast<Index>(states)); }
  static std::span<T> numbers_of(const Memory<B>& memory) {
    return {reinterpret_cast<T*>(memory.data()), static_cast<std::size_t>(memory.bytes()) / sizeof(T)};
  }
  std::vector<T> read(const Memory<B>& memory) {
    const OnHost<B, T> numbers(be_, std::span<const T>(numbers_of(memory)));
    return {numbers.begin(), numbers.end()};
  }
  void fill(std::size_t operand, double low, double high) {
    const Philox random{.key = 7, .stream = operand};
    write_numbers(be_, numbers_of(sequences_[operand]), [&](std::size_t i) {
      return static_cast<T>(low + (high - low) * random.block(i / 2).uniform_double(static_cast<int>(i % 2)));
    });
  }

  Seq<T> sequence(std::size_t operand) const {
    return {reinterpret_cast<T*>(sequences_[operand].data()), sizes_.batch, sizes_.time, sizes_.width};
  }
  void run(Arena ws) {
    run(ws, std::make_index_sequence<input_count<Cell>>(), std::make_index_sequence<detail::shared_count<Cell>>());
  }
  template <std::size_t... In, std::size_t... Shared>
  void run(Arena ws, std::index_sequence<In...>, std::index_sequence<Shared...>) {
    const Index length = RowCell<Cell> ? sizes_.head_size : static_cast<Index>(states);
    const Mat<T> state = matrix(reinterpret_cast<T*>(state_.data()), sizes_.batch, state_numbers());
    be_.recur(ws, Schedule{}, Cell{}, Extent<dyn>(length), state, arg::in(sequence(In))...,
              arg::shared(arg::in(sequence(input_count<Cell> + Shared)))..., arg::out(sequence(operands)));
  }

  CellSizes sizes_;
  B be_;
  std::vector<Memory<B>> sequences_;  // inputs, shared vectors, output
  Memory<B> state_, scratch_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
