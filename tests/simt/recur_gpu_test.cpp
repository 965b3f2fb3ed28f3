/// Oracle: the Reference backend in double on the same numbers. The kernels are those that nvcc compiles for the GPU,
/// run on the emulator; the CUDA suite runs the same cases on a device.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "../cuda/order.hpp"
#include "../gates.hpp"
#include "../numbers.hpp"
#include "rwkv/backend/cuda/recur/recur.cuh"
#include "rwkv/backend/cuda/recur/recur_back.cuh"
#include "rwkv/backend/reference.hpp"
#include "rwkv/cell/wkv4.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/core/random.hpp"

using namespace rwkv;

namespace {

using ChannelCell = WKV4;
using Numbers = std::vector<double>;

/// Uniform in [low, high), rounded to U.
template <class U>
Numbers random(Index size, std::uint64_t stream, double low, double high) {
  const Philox generator{.key = 7, .stream = stream};
  Numbers numbers(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double x = low + (high - low) * generator.block(i).uniform_double(0);
    numbers[i] = widen<double>(narrow<U>(static_cast<accumulator_t<U>>(x)));
  }
  return numbers;
}

CudaStream& stream() {
  static CudaStream& only = *new CudaStream(0);
  return only;
}

/// Memory of the host, where the reference computes in double.
class Host {
 public:
  template <class>
  using element = double;
  template <class>
  double* put(const Numbers& numbers) {
    return pieces_.emplace_back(std::make_unique<Numbers>(numbers))->data();
  }
  Numbers get(const double* at, Index count) const { return Numbers(at, at + count); }

 private:
  std::vector<std::unique_ptr<Numbers>> pieces_;
};

/// Memory of the device.
class Device {
 public:
  template <class U>
  using element = U;

  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    for (void* piece : pieces_) static_cast<void>(cudaFree(piece));
  }

  std::byte* bytes(Index count, int value) {
    void* piece = nullptr;
    RWKV_CUDA_TRY(cudaMalloc(&piece, static_cast<std::size_t>(count) + 64));
    RWKV_CUDA_TRY(cudaMemsetAsync(piece, value, static_cast<std::size_t>(count) + 64, stream().handle()));
    stream().sync();
    pieces_.push_back(piece);
    return static_cast<std::byte*>(piece);
  }
  template <class U>
  U* put(const Numbers& numbers) {
    std::vector<U> narrowed(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) narrowed[i] = narrow<U>(static_cast<accumulator_t<U>>(numbers[i]));
    return copy(narrowed);
  }
  template <class I>
  I* copy(const std::vector<I>& numbers) {
    const auto size = numbers.size() * sizeof(I);
    auto* piece = reinterpret_cast<I*>(bytes(static_cast<Index>(size), 0xff));
    RWKV_CUDA_TRY(cudaMemcpy(piece, numbers.data(), size, cudaMemcpyHostToDevice));
    RWKV_CUDA_TRY(cudaDeviceSynchronize());  // the stream waits for no copy
    return piece;
  }
  template <class U>
  Numbers get(const U* at, Index count) const {
    std::vector<U> copied(static_cast<std::size_t>(count));
    RWKV_CUDA_TRY(cudaMemcpy(copied.data(), at, copied.size() * sizeof(U), cudaMemcpyDeviceToHost));
    RWKV_CUDA_TRY(cudaDeviceSynchronize());
    Numbers numbers(copied.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = widen<double>(copied[i]);
    return numbers;
  }

 private:
  std::vector<void*> pieces_;
};

/// A recurrence over time and the cotangents of its outputs. Numbers are rounded to U; state and parameters are not.
struct Problem {
  Index batch, time, width, states;
  Numbers state;                ///< [batch, states * width]
  std::vector<Numbers> inputs;  ///< per channel or [batch, time, width]
  Numbers dy, dlast;
  Index head = 1;

  Index tokens() const { return batch * time * width; }
};

struct Forward {
  Numbers y, state;
  bool operator==(const Forward&) const = default;
};
struct Backward {
  Numbers dfirst;
  std::vector<Numbers> dinputs;
  bool operator==(const Backward&) const = default;
};

/// Calls run(state, operands...) with operands in a memory.
template <class Cell, class U, class Memory, class Run>
Forward forward(const Problem& p, Run run) {
  using E = typename Memory::template element<U>;
  using T = typename Memory::template element<accumulator_t<U>>;
  Memory memory;
  const auto seq = [&](E* data) { return Seq<E>{data, p.batch, p.time, p.width}; };
  const auto in = [&](std::size_t i) { return arg::in(seq(memory.template put<U>(p.inputs[i]))); };
  const auto chan = [&](std::size_t i) {
    return arg::chan(Vec<T>{memory.template put<accumulator_t<U>>(p.inputs[i]), p.width});
  };
  T* state = memory.template put<accumulator_t<U>>(p.state);
  E* y = memory.template put<U>(Numbers(static_cast<std::size_t>(p.tokens()), NAN));
  const auto states = matrix(state, p.batch, p.states * p.width);
  const auto out = arg::out(seq(y));
  if constexpr (std::is_same_v<Cell, ChannelCell>) {
    run(memory, states, chan(0), chan(1), in(2), in(3), out);
  } else if constexpr (std::is_same_v<Cell, WKV7>) {
    run(memory, states, in(0), arg::shared(in(1)), arg::shared(in(2)), arg::shared(in(3)), arg::shared(in(4)),
        arg::shared(in(5)), out);
  } else {
    run(memory, states, in(0), in(1), out);
  }
  return {memory.get(y, p.tokens()), memory.get(state, std::ssize(p.state))};
}

/// Calls run(first, dlast, dfirst, operands...); sums begin at 1.
template <class Cell, class U, class Memory, class Run>
Backward backward(const Problem& p, Run run) {
  using E = typename Memory::template element<U>;
  using A = accumulator_t<U>;
  using T = typename Memory::template element<A>;
  Memory memory;
  const auto seq = [&](E* data) { return Seq<E>{data, p.batch, p.time, p.width}; };
  const auto states = [&](T* data) { return matrix(data, p.batch, p.states * p.width); };
  const auto in = [&](std::size_t i) { return arg::in(seq(memory.template put<U>(p.inputs[i]))); };
  const auto chan = [&](std::size_t i) { return arg::chan(Vec<T>{memory.template put<A>(p.inputs[i]), p.width}); };
  const auto poison = [](Index count) { return Numbers(static_cast<std::size_t>(count), NAN); };
  const Mat<const T> first = states(memory.template put<A>(p.state)), dlast = states(memory.template put<A>(p.dlast));
  T* dfirst = memory.template put<A>(poison(std::ssize(p.state)));
  const auto cot = arg::cot(seq(memory.template put<U>(p.dy)));
  E* da = memory.template put<U>(poison(p.tokens()));
  E* db = memory.template put<U>(poison(p.tokens()));
  const Numbers ones(static_cast<std::size_t>(p.width), 1.0);
  T* dw = memory.template put<A>(ones);
  T* du = memory.template put<A>(ones);
  const auto sum = [&](T* data) { return arg::sum(Vec<T>{data, p.width}); };
  Backward result;
  if constexpr (std::is_same_v<Cell, ChannelCell>) {
    run(memory, first, dlast, states(dfirst), chan(0), chan(1), in(2), in(3), cot, sum(dw), sum(du), arg::out(seq(da)),
        arg::out(seq(db)));
    result.dinputs = {memory.get(dw, p.width), memory.get(du, p.width)};
  } else {
    run(memory, first, dlast, states(dfirst), in(0), in(1), cot, arg::out(seq(da)), arg::out(seq(db)));
  }
  result.dinputs.push_back(memory.get(da, p.tokens()));
  result.dinputs.push_back(memory.get(db, p.tokens()));
  result.dfirst = memory.get(dfirst, std::ssize(p.state));
  return result;
}

/// Calls verb(dry, scratch) with as much scratch as it says it needs, full of NaNs.
template <class Verb>
void with_scratch(Device& memory, Verb verb) {
  Index bytes = 0;
  verb(true, Arena(bytes));
  verb(false, Arena(memory.bytes(bytes, 0xff), bytes));
  stream().sync();
}

template <class Cell, class U>
Forward forward_wanted(const Problem& p) {
  return forward<Cell, U, Host>(p, [&](Host&, auto state, const auto&... ops) {
    Index unused = 0;
    Reference().recur(Arena(unused), Sequential{}, Cell{}, Extent<>{p.head}, state, ops...);
  });
}
template <class Cell, class U, class Schedule>
Forward forward_got(const Problem& p, Schedule schedule) {
  return forward<Cell, U, Device>(p, [&](Device& memory, auto state, const auto&... ops) {
    with_scratch(memory, [&](bool dry, Arena scratch) {
      gpu::recur(stream(), dry, scratch, schedule, Cell{}, Extent<>{p.head}, state, ops...);
    });
  });
}
template <class Cell, class U>
Backward backward_wanted(const Problem& p) {
  return backward<Cell, U, Host>(p, [&](Host&, auto first, auto dlast, auto dfirst, const auto&... ops) {
    std::vector<std::byte> block(static_cast<std::size_t>((p.time + 8) * p.states) * 8 + 128);
    auto* aligned = block.data() + (64 - reinterpret_cast<std::uintptr_t>(block.data()) % 64) % 64;
    Reference().recur_back(Arena(aligned, std::ssize(block) - 64), Sequential{}, Cell{}, Extent<>{1}, first, dlast,
                           dfirst, ops...);
  });
}
template <class Cell, class U, class Schedule>
Backward backward_got(const Problem& p, Schedule schedule) {
  return backward<Cell, U, Device>(p, [&](Device& memory, auto first, auto dlast, auto dfirst, const auto&... ops) {
    with_scratch(memory, [&](bool dry, Arena scratch) {
      gpu::recur_back(stream(), dry, scratch, schedule, Cell{}, Extent<>{1}, first, dlast, dfirst, ops...);
    });
  });
}

/// The error of arithmetic in the accumulator of U, and the error of an output stored as U.
template <class U>
constexpr double limit = std::is_same_v<U, double> ? 1e-12 : 1e-5;
template <class U>
constexpr double stored_limit = limit<U> + (std::is_same_v<U, bf16>  ? 0x1p-8
                                            : std::is_same_v<U, f16> ? 0x1p-11
                                                                     : 0);

/// `loss` times as much where the exponents are large.
template <class U>
void check_forward(const Forward& got, const Forward& want, double loss = 1) {
  CHECK(golden::relative_error(got.y, want.y) < loss * stored_limit<U>);
  CHECK(golden::relative_error(got.state, want.state) < loss * limit<U>);
}
template <class U>
void check_backward(const Backward& got, const Backward& want, double loss = 1) {
  CHECK(golden::relative_error(got.dfirst, want.dfirst) < 3 * loss * limit<U>);
  REQUIRE(got.dinputs.size() == want.dinputs.size());
  const std::size_t sums = got.dinputs.size() - 2;
  for (std::size_t i = 0; i < got.dinputs.size(); ++i) {
    CAPTURE(i);
    if (i < sums) {
      double size = 1;
      for (const double x : want.dinputs[i]) size = std::max(size, std::abs(x));
      CHECK(golden::max_error(got.dinputs[i], want.dinputs[i]) < 3 * loss * limit<U> * size);
    } else {
      CHECK(golden::relative_error(got.dinputs[i], want.dinputs[i]) < 2 * loss * stored_limit<U>);
    }
  }
}

/// Every schedule, in a random order of threads and blocks, forward and back.
template <class Cell, class U>
void check(const Problem& p, double loss = 1) {
  CAPTURE(p.batch);
  CAPTURE(p.time);
  CAPTURE(p.width);
  const Forward want = forward_wanted<Cell, U>(p);
  const Backward back = backward_wanted<Cell, U>(p);
  const auto check_schedule = [&](auto schedule) {
    check_forward<U>(forward_got<Cell, U>(p, schedule), want, loss);
    check_backward<U>(backward_got<Cell, U>(p, schedule), back, loss);
  };
  check_schedule(Sequential{});
  if constexpr (Scannable<Cell>) check_schedule(Scan{1});
  else check_schedule(Auto{});
}

/// In the middle of a text: keys up to key_size, decays from weak to strong.
template <class U>
Problem wkv4(Index batch, Index time, Index width, double key_size = 3, double weakest = -0.01, double strongest = -3) {
  using A = accumulator_t<U>;
  const Index tokens = batch * time * width;
  Problem p{batch, time, width, 3, random<A>(batch * 3 * width, 1, 0.5, 2), {}, {}, {}};
  p.inputs = {random<A>(width, 2, strongest, weakest), random<A>(width, 3, -1, 1),
              random<U>(tokens, 4, -key_size, key_size), random<U>(tokens, 5, -1, 1)};
  p.dy = random<U>(tokens, 6, -1, 1);
  p.dlast = random<A>(batch * 3 * width, 7, -1, 1);
  return p;
}

template <class U>
Problem gate(Index batch, Index time, Index width) {
  const Index tokens = batch * time * width;
  return {batch,
          time,
          width,
          1,
          random<accumulator_t<U>>(batch * width, 1, -1, 1),
          {random<U>(tokens, 2, -4, 4), random<U>(tokens, 3, -1, 1)},
          random<U>(tokens, 4, -1, 1),
          random<accumulator_t<U>>(batch * width, 5, -1, 1)};
}

/// Decay as in trained models, and the rank-one part of a unit vector, which keeps the state bounded.
template <class U>
Problem wkv7(Index batch, Index time, Index heads, Index head) {
  const Index width = heads * head, tokens = batch * time * width;
  Problem p{batch, time, width, head, random<accumulator_t<U>>(batch * width * head, 1, -1, 1), {}, {}, {}, head};
  p.inputs = {random<U>(tokens, 2, -1, 1), random<U>(tokens, 3, -1, 1), random<U>(tokens, 4, 0.55, 0.999),
              random<U>(tokens, 5, -1, 1), random<U>(tokens, 6, -1, 1), random<U>(tokens, 7, 0, 1)};
  for (Index begin = 0; begin < tokens; begin += head) {
    double norm = 0;
    const auto at = [&](std::size_t input, Index n) -> double& {
      return p.inputs[input][static_cast<std::size_t>(begin + n)];
    };
    const auto round = [](double x) { return widen<double>(narrow<U>(static_cast<accumulator_t<U>>(x))); };
    for (Index n = 0; n < head; ++n) norm += at(4, n) * at(4, n);
    for (Index n = 0; n < head; ++n) {
      const double unit = at(4, n) / std::sqrt(norm);
      at(5, n) = round(unit * at(5, n));
      at(4, n) = round(-unit);
    }
  }
  return p;
}

/// Restores the emulator's order of blocks.
struct Shuffled {
  explicit Shuffled(std::uint64_t seed) {
    simt::seed = seed;
    simt::shuffle_blocks = true;
  }
  ~Shuffled() { simt::shuffle_blocks = false; }
};

}  // namespace

TEST_CASE("simt: WKV4 forward and back, in every shape") {
  std::uint64_t seed = 0;
  for (const Index time : {1, 2, 3, 63, 64, 65, 130, 257}) {
    for (const Index width : {1, 3, 32, 33, 65, 130}) {
      const Shuffled order(++seed);
      check<ChannelCell, float>(wkv4<float>(1 + (time + width) % 3, time, width));
    }
  }
}

TEST_CASE_TEMPLATE("simt: WKV4 forward and back, in every number", U, double, bf16, f16) {
  for (const std::uint64_t seed : {1u, 2u}) {
    const Shuffled order(seed);
    for (const Index width : {3, 66}) {
      for (const Index time : {2, 65, 257}) check<ChannelCell, U>(wkv4<U>(2, time, width));
    }
  }
}

TEST_CASE("simt: WKV4 with large keys and with decays from weak to strong") {
  // An exponent of 60 and more has an error of 4e-6 in a float, after each token anew.
  for (const double key_size : {10.0, 60.0}) {
    check<ChannelCell, float>(wkv4<float>(1, 257, 34, key_size, -1e-4, -1e-3), 10);
    check<ChannelCell, float>(wkv4<float>(1, 257, 34, key_size, -1, -40), 10);
    check<ChannelCell, double>(wkv4<double>(1, 257, 34, key_size, -1e-4, -40), 10);
  }
}

TEST_CASE("simt: Auto runs short and long texts") {
  check_forward<float>(forward_got<ChannelCell, float>(wkv4<float>(2, 30, 33), Auto{}),
                       forward_wanted<ChannelCell, float>(wkv4<float>(2, 30, 33)));
  const Problem p = wkv4<float>(1, 8200, 2);
  check_forward<float>(forward_got<ChannelCell, float>(p, Auto{}), forward_wanted<ChannelCell, float>(p), 3);
  check_backward<float>(backward_got<ChannelCell, float>(p, Auto{}), backward_wanted<ChannelCell, float>(p), 3);
}

TEST_CASE("simt: from an empty state with no cotangent behind, the gradients of the keys cancel") {
  Problem p = wkv4<float>(1, 300, 33);
  for (std::size_t c = 0; c < 33; ++c) {
    p.state[c] = p.state[33 + c] = p.dlast[c] = p.dlast[33 + c] = 0;
    p.state[66 + c] = -1e38;
  }
  const auto check_sums = [&](auto schedule) {
    const Backward back = backward_got<ChannelCell, float>(p, schedule);
    const Numbers& dk = back.dinputs[2];
    for (std::size_t c = 0; c < 33; ++c) {
      double sum = 0, size = 0;
      for (std::size_t i = c; i < dk.size(); i += 33) {
        sum += dk[i];
        size += std::abs(dk[i]);
      }
      CHECK(std::abs(sum) < 1e-5 * size);
    }
  };
  check_sums(Sequential{});
  check_sums(Scan{64});
}

TEST_CASE_TEMPLATE("simt: cells of a user forward and back", Cell, config::LeakyGate, config::ScannedGate) {
  for (const Index time : {1, 65, 257}) {
    for (const Index width : {1, 33, 66}) {
      const Shuffled order(static_cast<std::uint64_t>(time));
      check<Cell, float>(gate<float>(2, time, width));
    }
    check<Cell, double>(gate<double>(2, time, 35));
    check<Cell, bf16>(gate<bf16>(2, time, 34));
  }
}

TEST_CASE_TEMPLATE("simt: WKV7 forward", U, float, double, bf16, f16) {
  std::uint64_t seed = 0;
  for (const Index head : {1, 4, 5, 64, 70}) {
    for (const Index time : {1, 2, 3, 9}) {
      const Shuffled order(++seed);
      const Problem p = wkv7<U>(2, time, 3, head);
      CAPTURE(head);
      CAPTURE(time);
      check_forward<U>(forward_got<WKV7, U>(p, Auto{}), forward_wanted<WKV7, U>(p));
    }
  }
}

TEST_CASE("simt: the same bits again, in any order of threads and blocks") {
  const Problem p = wkv4<bf16>(2, 300, 66);
  const auto check_bits = [&](auto schedule) {
    const Forward y = forward_got<ChannelCell, bf16>(p, schedule);
    const Backward back = backward_got<ChannelCell, bf16>(p, schedule);
    for (const std::uint64_t seed : {5u, 6u, 7u}) {
      const Shuffled order(seed);
      CHECK(forward_got<ChannelCell, bf16>(p, schedule) == y);
      CHECK(backward_got<ChannelCell, bf16>(p, schedule) == back);
    }
  };
  check_bits(Sequential{});
  check_bits(Scan{64});
}

namespace {

/// Sequences of these lengths, side by side in one row.
const std::vector<Index> lengths = {5, 0, 130, 1, 64, 257, 8, 0};

template <class I>
std::vector<I> starts_of(const std::vector<Index>& of) {
  std::vector<I> starts{0};
  for (const Index length : of) starts.push_back(static_cast<I>(starts.back() + static_cast<I>(length)));
  return starts;
}

/// The part of each tensor of a packed problem that belongs to sequence s.
Problem sequence_of(const Problem& p, Index s, Index begin, Index length) {
  const auto cut = [](const Numbers& numbers, Index from, Index count) {
    return Numbers(numbers.begin() + from, numbers.begin() + from + count);
  };
  const Index numbers = p.states * p.width;
  Problem one{1, length, p.width, p.states, cut(p.state, s * numbers, numbers), {}, {}, {}, p.head};
  for (const Numbers& input : p.inputs) {
    const bool each = std::ssize(input) != p.tokens();
    one.inputs.push_back(each ? input : cut(input, begin * p.width, length * p.width));
  }
  if (!p.dy.empty()) {
    one.dy = cut(p.dy, begin * p.width, length * p.width);
    one.dlast = cut(p.dlast, s * numbers, numbers);
  }
  return one;
}

void append(Numbers& to, const Numbers& more) { to.insert(to.end(), more.begin(), more.end()); }

template <class Cell, class U>
Forward packed_forward_wanted(const Problem& p) {
  Forward all;
  Index begin = 0;
  for (std::size_t s = 0; s < lengths.size(); begin += lengths[s++]) {
    const Forward one = forward_wanted<Cell, U>(sequence_of(p, static_cast<Index>(s), begin, lengths[s]));
    append(all.y, one.y);
    append(all.state, one.state);
  }
  return all;
}
template <class Cell, class U>
Backward packed_backward_wanted(const Problem& p) {
  Backward all;
  Index begin = 0;
  for (std::size_t s = 0; s < lengths.size(); begin += lengths[s++]) {
    const Backward one = backward_wanted<Cell, U>(sequence_of(p, static_cast<Index>(s), begin, lengths[s]));
    append(all.dfirst, one.dfirst);
    const std::size_t sums = one.dinputs.size() - 2;
    all.dinputs.resize(one.dinputs.size());
    for (std::size_t i = 0; i < one.dinputs.size(); ++i) {
      if (i >= sums || s == 0) {
        append(all.dinputs[i], one.dinputs[i]);
      } else {
        for (std::size_t c = 0; c < one.dinputs[i].size(); ++c) all.dinputs[i][c] += one.dinputs[i][c] - 1;
      }
    }
  }
  return all;
}

template <class Cell, class U, class I, class Schedule>
Forward packed_forward_got(const Problem& p, Schedule schedule) {
  return forward<Cell, U, Device>(p, [&](Device& memory, auto state, const auto&... ops) {
    const I* starts = memory.copy(starts_of<I>(lengths));
    const auto states = matrix(state.data, std::ssize(lengths), p.states * p.width);
    with_scratch(memory, [&](bool dry, Arena scratch) {
      gpu::recur_packed(stream(), dry, scratch, schedule, Cell{}, Extent<>{p.head}, states, starts, ops...);
    });
  });
}
template <class Cell, class U, class I, class Schedule>
Backward packed_backward_got(const Problem& p, Schedule schedule) {
  return backward<Cell, U, Device>(p, [&](Device& memory, auto first, auto dlast, auto dfirst, const auto&... ops) {
    const I* starts = memory.copy(starts_of<I>(lengths));
    const auto states = [&](auto one) {
      one.rows = std::ssize(lengths);
      return one;
    };
    with_scratch(memory, [&](bool dry, Arena scratch) {
      gpu::recur_back_packed(stream(), dry, scratch, schedule, Cell{}, Extent<>{1}, states(first), states(dlast),
                             states(dfirst), starts, ops...);
    });
  });
}

/// One row of tokens with a state for each sequence.
Problem packed(Problem p, const Numbers& state, const Numbers& dlast) {
  p.state = state;
  p.dlast = dlast;
  return p;
}

}  // namespace

TEST_CASE("simt: sequences of different lengths in one row, forward and back") {
  const Index sequences = std::ssize(lengths), tokens = starts_of<Index>(lengths).back();
  for (const Index width : {3, 66}) {
    const Problem many = wkv4<float>(sequences, 1, width);
    const Problem p = packed(wkv4<float>(1, tokens, width), many.state, many.dlast);
    const Forward want = packed_forward_wanted<ChannelCell, float>(p);
    const Backward back = packed_backward_wanted<ChannelCell, float>(p);
    const Shuffled order(static_cast<std::uint64_t>(width));
    check_forward<float>(packed_forward_got<ChannelCell, float, int>(p, Sequential{}), want);
    check_forward<float>(packed_forward_got<ChannelCell, float, int>(p, Scan{64}), want);
    check_backward<float>(packed_backward_got<ChannelCell, float, Index>(p, Sequential{}), back);
    check_backward<float>(packed_backward_got<ChannelCell, float, int>(p, Scan{64}), back);
  }
  const Problem p = packed(wkv7<float>(1, tokens, 2, 5), wkv7<float>(sequences, 1, 2, 5).state, {});
  check_forward<float>(packed_forward_got<WKV7, float, int>(p, Auto{}), packed_forward_wanted<WKV7, float>(p));
}
