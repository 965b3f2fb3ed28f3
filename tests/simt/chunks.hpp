#pragma once
/// Row cells in chunks of time on the CUDA backend, beside the reference in double, token after token, on the same
/// numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "../cell/chunked_cells.hpp"
#include "../cuda/order.hpp"
#include "../numbers.hpp"
#include "rwkv/cell/wkv5.hpp"
#include "rwkv/cell/wkv7.hpp"
#include "rwkv/cuda.cuh"

namespace config {

using Numbers = std::vector<double>;

template <class U>
U narrowed(double number) {
  return rwkv::narrow<U>(static_cast<rwkv::accumulator_t<U>>(number));
}

/// Numbers in a backend's memory, between two pages of NaN where that is the emulator's.
template <class B, class U>
class Array {
 public:
  Array(B& be, const Numbers& from) : be_(be), count_(std::ssize(from)), data_(be.template allocate<U>(count_)) {
    std::vector<U> numbers;
    for (const double x : from) numbers.push_back(narrowed<U>(x));
    be_.copy(rwkv::Mat<const U>(rwkv::matrix(numbers.data(), 1, count_)), vec_as_row());
    be_.sync();
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { be_.free(data_); }

  Numbers get() {
    std::vector<U> numbers(static_cast<std::size_t>(count_));
    be_.copy(rwkv::Mat<const U>(vec_as_row()), rwkv::matrix(numbers.data(), 1, count_));
    be_.sync();
    Numbers wide;
    for (const U x : numbers) wide.push_back(rwkv::widen<double>(x));
    return wide;
  }
  rwkv::Vec<U> vec() const { return {data_, count_}; }
  rwkv::Mat<U> mat(Index rows) const { return rwkv::matrix(data_, rows, count_ / rows); }
  rwkv::Seq<U> seq(Index batch, Index time) const { return {data_, batch, time, count_ / (batch * time)}; }

 private:
  rwkv::Mat<U> vec_as_row() const { return rwkv::matrix(data_, 1, count_); }

  B& be_;
  Index count_;
  U* data_;
};

/// What a row cell and its adjoint give.
struct Given {
  Numbers y, last, dfirst;
  std::vector<Numbers> gradients;
  bool operator==(const Given&) const = default;
};

/// What they are given: numbers that are exact in U. Inputs: the value, then the shared vectors.
template <class Cell, class U>
struct Problem {
  Index batch, time, heads, size;
  std::vector<Numbers> inputs;
  Numbers first, dlast, dy;

  Problem(Index of_batch, Index of_time, Index of_heads, Index of_size, Decays decays)
      : batch(of_batch), time(of_time), heads(of_heads), size(of_size) {
    const Index width = heads * size;
    for (auto& input : random_inputs<Cell, double>(batch, time, width, size, decays)) {
      inputs.push_back(std::move(input.numbers));
      for (double& x : inputs.back()) x = rwkv::widen<double>(narrowed<U>(x));
    }
    first = noise(batch * width * size, 91);
    dlast = noise(batch * width * size, 92);
    dy = noise(batch * time * width, 90);
  }

  /// The tokens [begin, end) of a batch of one, between other states.
  Problem part(Index begin, Index end, const Numbers& before, const Numbers& behind) const {
    Problem some = *this;
    const auto cut = [&](Numbers& numbers) {
      const Index width = heads * size;
      numbers = Numbers(numbers.begin() + begin * width, numbers.begin() + end * width);
    };
    for (Numbers& input : some.inputs) cut(input);
    cut(some.dy);
    some.time = end - begin;
    some.first = before;
    some.dlast = behind;
    return some;
  }

  template <class B, class S, Index N, class Schedule>
  Given run(B be, S, Schedule schedule, rwkv::Extent<N> length) const {
    using T = rwkv::accumulator_t<S>;
    using In = Array<B, S>;
    std::vector<std::unique_ptr<In>> in, out;
    const Numbers nothing(dy.size(), std::numeric_limits<double>::quiet_NaN());
    for (const Numbers& input : inputs) {
      in.push_back(std::make_unique<In>(be, input));
      out.push_back(std::make_unique<In>(be, nothing));
    }
    In y(be, nothing), cot(be, dy);
    Array<B, T> start(be, first), last(be, first), behind(be, dlast), dfirst(be, first);
    const auto x = [&](std::size_t i) { return rwkv::arg::in(in[i]->seq(batch, time)); };
    const auto gradient = [&](std::size_t i) { return rwkv::arg::out(out[i]->seq(batch, time)); };
    [&]<std::size_t... Nth>(std::index_sequence<Nth...>) {
      const auto forwards = [&](rwkv::Arena scratch) {
        be.recur(scratch, schedule, Cell{}, length, last.mat(batch), x(0), rwkv::arg::shared(x(Nth + 1))...,
                 rwkv::arg::out(y.seq(batch, time)));
      };
      const auto back = [&](rwkv::Arena scratch) {
        be.recur_back(scratch, schedule, Cell{}, length, rwkv::Mat<const T>(start.mat(batch)),
                      rwkv::Mat<const T>(behind.mat(batch)), dfirst.mat(batch), x(0), rwkv::arg::shared(x(Nth + 1))...,
                      rwkv::arg::cot(cot.seq(batch, time)), gradient(0), gradient(Nth + 1)...);
      };
      const auto forwards_memory = scratch_for(be, forwards), back_memory = scratch_for(be, back);
      forwards(forwards_memory.arena());
      back(back_memory.arena());
      be.sync();
    }
    (std::make_index_sequence<Cell::shared.size()>());
    Given given{y.get(), last.get(), dfirst.get(), {}};
    for (const auto& of : out) given.gradients.push_back(of->get());
    return given;
  }
  Given wanted() const { return run(rwkv::Reference(), double{}, rwkv::Sequential{}, rwkv::Extent<>{size}); }
  template <Index N>
  Given got(rwkv::Extent<N> length, rwkv::Chunked schedule = {.chunk = 1}) const {
    return run(rwkv::Cuda(), U{}, schedule, length);
  }
};

template <class U>
void check_equal(const Given& got, const Given& want) {
  constexpr double limit = 64 * static_cast<double>(std::numeric_limits<rwkv::accumulator_t<U>>::epsilon());
  constexpr double stored = limit + (std::is_same_v<U, rwkv::bf16> ? 0x1p-8 : 0);
  CHECK(golden::relative_error(got.y, want.y) < stored);
  CHECK(golden::relative_error(got.last, want.last) < limit);
  CHECK(golden::relative_error(got.dfirst, want.dfirst) < limit);
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(golden::relative_error(got.gradients[i], want.gradients[i]) < stored);
  }
}

/// Forwards and back, in an order of threads and blocks of its own.
template <class Cell, class U, Index N>
void check_chunks(rwkv::Extent<N> length, std::initializer_list<Index> times, Index batch = 2, Index heads = 2) {
  for (const Index time : times) {
    for (const Decays decays : {Decays::usual, Decays::extreme}) {
      CAPTURE(Index(length));
      CAPTURE(time);
      CAPTURE(decays == Decays::extreme);
      simt::seed = static_cast<std::uint64_t>(time);
      simt::shuffle_blocks = true;
      const Problem<Cell, U> problem(batch, time, heads, length, decays);
      check_equal<U>(problem.got(length), problem.wanted());
      simt::shuffle_blocks = false;
    }
  }
}

}  // namespace config
