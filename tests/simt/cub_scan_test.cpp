/// Oracle: the cell token after token in double.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "../gates.hpp"
#include "../numbers.hpp"
#include "cub_scan_kernel.cuh"
#include "rwkv/cell/wkv4.hpp"

using namespace rwkv;

namespace {

/// Numbers of the device.
template <class T>
class Piece {
 public:
  explicit Piece(const std::vector<T>& numbers) : size_(numbers.size()) {
    RWKV_CUDA_TRY(cudaMalloc(reinterpret_cast<void**>(&data_), size_ * sizeof(T)));
    RWKV_CUDA_TRY(cudaMemcpy(data_, numbers.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;
  ~Piece() { static_cast<void>(cudaFree(data_)); }
  T* data() const { return data_; }
  std::vector<T> numbers() const {
    std::vector<T> out(size_);
    RWKV_CUDA_TRY(cudaMemcpy(out.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

/// Two inputs one after the other, [2, time].
template <class T>
std::vector<T> inputs(std::size_t time) {
  std::vector<T> x(2 * time);
  for (std::size_t t = 0; t < x.size(); ++t) x[t] = static_cast<T>(std::sin(static_cast<double>(7 * t + 1)));
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("simt: a block scans a user's cell by CUB", T, float, double) {
  const CudaStream stream(0);
  constexpr int threads = 37;
  for (const std::size_t time : {1u, 36u, 37u, 38u, 100u}) {
    CAPTURE(time);
    const auto x = inputs<T>(time);
    double h = 0.5;
    std::vector<double> want;
    for (std::size_t t = 0; t < time; ++t) {
      One<double> state[1] = {One<double>(h)};
      const One<double> token[2] = {One<double>(x[t]), One<double>(x[time + t])};
      want.push_back(config::ScannedGate::step(state, token).v);
      h = state[0].v;
    }
    const Piece<T> device_x(x), state({T(0.5)}), y(std::vector<T>(time, T(NAN)));
    stream.launch({.grid = {1}, .block = {threads}}, simt::block_scan_kernel<config::ScannedGate, T, threads>,
                  device_x.data(), static_cast<Index>(time), state.data(), y.data());
    stream.sync();
    const double limit = std::is_same_v<T, double> ? 1e-14 : 1e-6;
    CHECK(golden::relative_error(y.numbers(), want) < limit);
    CHECK(golden::relative_error(state.numbers(), std::vector{h}) < limit);
  }
}

TEST_CASE("simt: CUB scans the stretches of a channel of WKV4 on the device") {
  using Cell = WKV4;
  using Stretch = Cell::Stretch<One<double>>;
  const CudaStream stream(0);
  const std::size_t time = 300;
  const auto x = inputs<double>(time);
  std::vector<Stretch> stretches(time), want;
  for (std::size_t t = 0; t < time; ++t) {
    const One<double> token[4] = {One<double>(-0.1), One<double>(0), One<double>(20 * x[t]), One<double>(x[time + t])};
    stretches[t] = Cell::lift(token);
    want.push_back(t == 0 ? stretches[t] : Cell::compose(want.back(), stretches[t]));
  }
  const Piece<Stretch> in(stretches), out(stretches);
  Index bytes = 0;
  scan_stretches<Cell>(stream, true, Arena(bytes), in.data(), out.data(), static_cast<Index>(time));
  const Piece<std::byte> scratch(std::vector<std::byte>(static_cast<std::size_t>(bytes)));
  scan_stretches<Cell>(stream, false, Arena(scratch.data(), bytes), in.data(), out.data(), static_cast<Index>(time));
  stream.sync();
  const auto got = out.numbers();
  for (const auto part : {&Stretch::log_decay, &Stretch::p, &Stretch::a, &Stretch::b}) {
    std::vector<double> got_part, want_part;
    for (std::size_t t = 0; t < time; ++t) {
      got_part.push_back((got[t].*part).v);
      want_part.push_back((want[t].*part).v);
    }
    CHECK(golden::relative_error(got_part, want_part) < 1e-14);
  }
}
