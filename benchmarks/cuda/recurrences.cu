/// WKV4 by every schedule, forward and backward; the row cells token by token and in chunks; steps of many sequences; a
/// user's cell.
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/backend/transition.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv5.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/op/initial_state.hpp"
#include "suite.cuh"

namespace bench {

/// A user's cell: h = sigmoid(gate) h + value.
struct Leaky {
  static constexpr auto inputs = rwkv::Inputs{"gate", "value"};
  static constexpr int state_size = 1;

  template <class R>
  struct Stretch {
    R keep, add;
  };
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[2]) {
    enter(h, lift(x));
    return h[0];
  }
  template <class R>
  RWKV_HD static Stretch<R> lift(const R (&x)[2]) {
    return {sigmoid(x[0]), x[1]};
  }
  template <class R>
  RWKV_HD static Stretch<R> compose(const Stretch<R>& earlier, const Stretch<R>& later) {
    return {earlier.keep * later.keep, later.keep * earlier.add + later.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Stretch<R>& stretch) {
    h[0] = stretch.keep * h[0] + stretch.add;
  }
};

namespace {

using rwkv::Extent;
using rwkv::Mat;
using rwkv::Seq;
namespace arg = rwkv::arg;

struct Shape {
  Index batch, time, width;

  Index count() const { return batch * time * width; }
  std::string name() const { return by(batch, time, width); }
  template <class T>
  Seq<T> of(T* data) const {
    return {data, batch, time, width};
  }
};
constexpr Shape training{8, 1024, 768}, prompt{1, 16384, 4096};

double bytes_of(const Shape& shape, double arrays, std::size_t size) {
  return arrays * static_cast<double>(shape.count()) * static_cast<double>(size);
}

/// One head that holds all channels.
constexpr Extent<3> length{};

/// Per-channel parameters, and a state for every set.
struct Recurrence4 {
  Numbers<float> w, u, states;
  Index batch, width;

  Recurrence4(Cuda& be, const Shape& shape, Index sets)
      : w(be, shape.width, -3, -0.01f, 1), u(be, shape.width, -1, 1, 2),
        states(be, shape.batch * 3 * shape.width, -1, 1, 3, sets), batch(shape.batch), width(shape.width) {
    for (Index set = 0; set < sets; ++set) rwkv::reset_state<rwkv::WKV4>(be, state(set));
  }
  Mat<float> state(Index set) const { return rwkv::matrix(states.data(set), batch, 3 * width); }
};

template <class T, class Schedule>
void forward(Suite& suite, const Shape& shape, const char* schedule, double goal, double state_bytes = 0) {
  const Case what{std::string("wkv4, ") + schedule,
                  shape.name(),
                  number_name<T>(),
                  {.read = bytes_of(shape, 2, sizeof(T)) + state_bytes,
                   .written = bytes_of(shape, 1, sizeof(T)) + state_bytes,
                   .flops = 34 * bytes_of(shape, 1, 1)},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written), count = shape.count();
    const Recurrence4 shared(be, shape, sets);
    const Numbers<T> k(be, count, -2, 2, 4, sets), v(be, count, -1, 1, 5, sets), y(be, count, -1, 1, 6, sets);
    const auto call = [&](rwkv::Arena ws, Index set) {
      be.recur(ws, Schedule{}, rwkv::WKV4{}, length, shared.state(set), arg::chan(shared.w.channels()),
               arg::chan(shared.u.channels()), arg::in(shape.of(k.data(set))), arg::in(shape.of(v.data(set))),
               arg::out(shape.of(y.data(set))));
    };
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), set); });
  });
}

template <class T, class Schedule>
void backward(Suite& suite, const Shape& shape, const char* schedule, double goal) {
  const Case what{std::string("wkv4 back, ") + schedule,
                  shape.name(),
                  number_name<T>(),
                  {.read = bytes_of(shape, 3, sizeof(T)),
                   .written = bytes_of(shape, 2, sizeof(T)),
                   .flops = 80 * bytes_of(shape, 1, 1)},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written), count = shape.count();
    const Recurrence4 first(be, shape, 1), after(be, shape, 1), before(be, shape, 1);
    const Numbers<float> dw(be, shape.width, -1, 1, 7), du(be, shape.width, -1, 1, 8);
    const Numbers<T> k(be, count, -2, 2, 4, sets), v(be, count, -1, 1, 5, sets), dy(be, count, -1, 1, 6, sets),
        dk(be, count, -1, 1, 9, sets), dv(be, count, -1, 1, 10, sets);
    be.fill(after.state(0), 0.0f);
    const auto call = [&](rwkv::Arena ws, Index set) {
      be.recur_back(ws, Schedule{}, rwkv::WKV4{}, length, Mat<const float>(first.state(0)),
                    Mat<const float>(after.state(0)), before.state(0), arg::chan(first.w.channels()),
                    arg::chan(first.u.channels()), arg::in(shape.of(k.data(set))), arg::in(shape.of(v.data(set))),
                    arg::cot(shape.of(dy.data(set))), arg::sum(dw.vector()), arg::sum(du.vector()),
                    arg::out(shape.of(dk.data(set))), arg::out(shape.of(dv.data(set))));
    };
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), set); });
  });
}

template <class T>
void wkv4(Suite& suite, const Shape& shape, double forward_goal, double backward_goal) {
  forward<T, rwkv::Auto>(suite, shape, "Auto", forward_goal);
  forward<T, rwkv::Scan>(suite, shape, "Scan", 0);
  forward<T, rwkv::Sequential>(suite, shape, "Sequential", 0);
  backward<T, rwkv::Auto>(suite, shape, "Auto", backward_goal);
  backward<T, rwkv::Scan>(suite, shape, "Scan", 0);
  backward<T, rwkv::Sequential>(suite, shape, "Sequential", 0);
}

/// Operations for a number of the state, token after token: multiplications and additions.
template <class Cell>
constexpr double row_flops = rwkv::detail::is_rank_one<Cell> ? 10 : 6;
template <class Cell>
constexpr double row_flops_back = rwkv::detail::is_rank_one<Cell> ? 32 : 14;

/// The value and the shared vectors of a row cell with heads of 64. WKV5 has a decay for each token, as in RWKV-6.
template <class Cell, class T>
struct RowInputs {
  static constexpr Index head = 64, count = 1 + std::ssize(Cell::shared);
  Shape shape;
  std::vector<Numbers<T>> inputs;

  RowInputs(Cuda& be, const Shape& of, Index sets) : shape(of) {
    for (Index i = 0; i < count; ++i) {
      const auto name = i == 0 ? std::string_view("value") : Cell::shared[static_cast<std::size_t>(i - 1)];
      const float high = name == "decay"                           ? 0.99f
                         : name == "value" || name == "receptance" ? 1.0f
                         : name == "key"                           ? 0.2f
                                                                   : 0.1f;
      inputs.emplace_back(be, shape.count(), name == "decay" ? 0.55f : -high, high, static_cast<std::uint64_t>(i + 2),
                          sets);
    }
  }
  /// Calls f(value, shared vectors...).
  template <class F>
  void with_operands(Index set, const F& f) const {
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
      const auto in = [&](std::size_t i) { return arg::in(shape.of(inputs[i].data(set))); };
      f(in(0), arg::shared(in(Nth + 1))...);
    }
    (std::make_index_sequence<Cell::shared.size()>());
  }
};

/// The state is read and written.
template <class Cell, class T, class Schedule = rwkv::Sequential>
void heads(Suite& suite, const Shape& shape, const char* name, double goal) {
  using Inputs = RowInputs<Cell, T>;
  constexpr Index head = Inputs::head;
  const Index states = shape.batch * shape.width * head;
  const double state_bytes = static_cast<double>(states) * sizeof(float);
  const Case what{name,
                  shape.name(),
                  number_name<T>(),
                  {.read = bytes_of(shape, Inputs::count, sizeof(T)) + state_bytes,
                   .written = bytes_of(shape, 1, sizeof(T)) + state_bytes,
                   .flops = row_flops<Cell> * head * bytes_of(shape, 1, 1)},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Numbers<float> state(be, states, -1, 1, 1, sets);
    const Inputs inputs(be, shape, sets);
    const Numbers<T> y(be, shape.count(), -1, 1, 8, sets);
    suite.measure(what, sets, [&](Index set) {
      inputs.with_operands(set, [&](const auto&... in) {
        be.recur(rwkv::Arena(nullptr, 0), Schedule{}, Cell{}, Extent<head>{},
                 rwkv::matrix(state.data(set), shape.batch, shape.width * head), in...,
                 arg::out(shape.of(y.data(set))));
      });
    });
  });
}

/// The backward pass, from the states in front and their cotangents behind.
template <class Cell, class T, class Schedule>
void heads_back(Suite& suite, const Shape& shape, const char* name, double goal) {
  using Inputs = RowInputs<Cell, T>;
  constexpr Index head = Inputs::head;
  const Index states = shape.batch * shape.width * head;
  const double state_bytes = static_cast<double>(states) * sizeof(float);
  const Case what{name,
                  shape.name(),
                  number_name<T>(),
                  {.read = bytes_of(shape, Inputs::count + 1, sizeof(T)) + 2 * state_bytes,
                   .written = bytes_of(shape, Inputs::count, sizeof(T)) + state_bytes,
                   .flops = row_flops_back<Cell> * head * bytes_of(shape, 1, 1)},
                  goal};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written);
    const Numbers<float> first(be, states, -1, 1, 1), last(be, states, -1, 1, 9), to_first(be, states, -1, 1, 10);
    const Inputs inputs(be, shape, sets), gradients(be, shape, sets);
    const Numbers<T> dy(be, shape.count(), -1, 1, 8, sets);
    const auto state = [&](const Numbers<float>& numbers) {
      return rwkv::matrix(numbers.data(), shape.batch, shape.width * head);
    };
    const auto call = [&](rwkv::Arena ws, Index set) {
      inputs.with_operands(set, [&](const auto&... in) {
        [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
          be.recur_back(ws, Schedule{}, Cell{}, Extent<head>{}, Mat<const float>(state(first)),
                        Mat<const float>(state(last)), state(to_first), in..., arg::cot(shape.of(dy.data(set))),
                        arg::out(shape.of(gradients.inputs[Nth].data(set)))...);
        }
        (std::make_index_sequence<1 + Cell::shared.size()>());
      });
    };
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), set); });
  });
}

/// Token after token and in chunks, forwards and back.
template <class T>
void row_cells(Suite& suite, const Shape& shape) {
  using rwkv::Chunked, rwkv::Sequential, rwkv::WKV5, rwkv::WKV7;
  heads<WKV5, T>(suite, shape, "wkv6", 0);
  heads<WKV5, T, Chunked>(suite, shape, "wkv6, Chunked", 2);
  heads<WKV7, T>(suite, shape, "wkv7", 4.6);
  heads<WKV7, T, Chunked>(suite, shape, "wkv7, Chunked", 2);
  heads_back<WKV5, T, Sequential>(suite, shape, "wkv6 back", 0);
  heads_back<WKV5, T, Chunked>(suite, shape, "wkv6 back, Chunked", 2.5);
  heads_back<WKV7, T, Sequential>(suite, shape, "wkv7 back", 0);
  heads_back<WKV7, T, Chunked>(suite, shape, "wkv7 back, Chunked", 2.5);
}

template <class Schedule>
void own_cell(Suite& suite, const Shape& shape, const char* schedule) {
  const Case what{
      std::string("own cell, ") + schedule,
      shape.name(),
      "fp32",
      {.read = bytes_of(shape, 2, 4), .written = bytes_of(shape, 1, 4), .flops = 14 * bytes_of(shape, 1, 1)}};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Index sets = suite.sets(what.work.read + what.work.written), count = shape.count();
    const Numbers<float> gate(be, count, -1, 3, 1, sets), value(be, count, -1, 1, 2, sets),
        y(be, count, -1, 1, 3, sets), state(be, shape.batch * shape.width, -1, 1, 4);
    const auto call = [&](rwkv::Arena ws, Index set) {
      be.recur(ws, Schedule{}, Leaky{}, Extent<1>{}, rwkv::matrix(state.data(), shape.batch, shape.width),
               arg::in(shape.of(gate.data(set))), arg::in(shape.of(value.data(set))), arg::out(shape.of(y.data(set))));
    };
    const auto scratch = scratch_for(be, [&](rwkv::Arena ws) { call(ws, 0); });
    suite.measure(what, sets, [&](Index set) { call(scratch.arena(), set); });
  });
}

}  // namespace

void add_recurrences(Suite& suite) {
  suite.section("Recurrences");
  wkv4<rwkv::bf16>(suite, training, 2.0, 2.2);
  wkv4<float>(suite, training, 2.0, 2.2);
  if (!suite.quick()) {
    wkv4<rwkv::bf16>(suite, prompt, 1.4, 1.55);
    wkv4<float>(suite, prompt, 1.4, 1.55);
  }
  row_cells<rwkv::bf16>(suite, suite.quick() ? training : Shape{8, 4096, 4096});
  // One token of many sequences. The state of WKV4, three numbers for a channel, is a twentieth of WKV7's: so little is
  // bound by its launch at 64 sequences, and there is no goal.
  for (const Index batch : {64, 960}) {
    const Shape step{batch, 1, 4096};
    forward<float, rwkv::Auto>(suite, step, "step", 0, bytes_of(step, 3, sizeof(float)));
    heads<rwkv::WKV7, float>(suite, step, "wkv7, step", share(0.85));
  }
  own_cell<rwkv::Scan>(suite, training, "Scan");
  own_cell<rwkv::Sequential>(suite, training, "Sequential");
}

}  // namespace bench
