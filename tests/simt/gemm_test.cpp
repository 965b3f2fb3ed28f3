/// Oracle: double loops over what is stored. The kernels are those that nvcc compiles for the GPU, run on the emulator;
/// the CUDA suite runs the same cases on a device.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "../cuda/order.hpp"
#include "../numbers.hpp"
#include "rwkv/backend/cuda/product/gemm.cuh"
#include "rwkv/core/random.hpp"
#include "rwkv/op/activation.hpp"

using namespace rwkv;

namespace {

/// The layout of a matrix: no row, or every row, begins at a multiple of 16 bytes. Rows have a margin.
enum class Layout { aligned, odd };

/// A matrix in device memory. The memory around it is NaN, and is checked to stay unchanged.
template <class T>
class Matrix {
 public:
  Matrix(Index rows, Index cols, Layout layout)
      : rows_(rows), cols_(cols), stride_(layout == Layout::aligned ? (cols + 7) / 8 * 8 + 8 : cols + 3),
        first_(layout == Layout::aligned ? 0 : 1), host_(static_cast<std::size_t>(first_ + rows * stride_ + 1)) {
    std::memset(static_cast<void*>(host_.data()), 0xff, bytes());
    REQUIRE(cudaMalloc(&device_, bytes()) == cudaSuccess);
    send();
  }
  /// Random numbers in [-1, 1).
  Matrix(Index rows, Index cols, Layout layout, std::uint64_t seed) : Matrix(rows, cols, layout) {
    const Philox generator{.key = seed};
    std::uint64_t i = 0;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c) set(r, c, 2 * generator.block(i++).uniform_double(0) - 1);
    }
    send();
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  ~Matrix() { cudaFree(device_); }

  Mat<T> mat() { return {device_ + first_, rows_, cols_, stride_}; }
  double operator()(Index r, Index c) const { return widen<double>(host_[index(r, c)]); }
  void set(Index r, Index c, double value) { host_[index(r, c)] = narrow<T>(value); }
  void send() { copy(device_, host_.data(), cudaMemcpyHostToDevice); }

  /// The matrix as it is on the device, row by row.
  std::vector<double> receive() {
    const std::vector<T> before = host_;
    copy(host_.data(), device_, cudaMemcpyDeviceToHost);
    std::vector<double> numbers;
    std::vector<bool> inside(host_.size());
    for (Index r = 0; r < rows_; ++r) {
      for (Index c = 0; c < cols_; ++c) {
        numbers.push_back((*this)(r, c));
        inside[index(r, c)] = true;
      }
    }
    for (std::size_t i = 0; i < host_.size(); ++i) {
      if (!inside[i]) REQUIRE(std::memcmp(&host_[i], &before[i], sizeof(T)) == 0);
    }
    return numbers;
  }

 private:
  std::size_t index(Index r, Index c) const { return static_cast<std::size_t>(first_ + r * stride_ + c); }
  std::size_t bytes() const { return host_.size() * sizeof(T); }
  /// Copies and the streams of the tests do not wait for each other, so this waits for both.
  void copy(T* to, const T* from, cudaMemcpyKind kind) const {
    REQUIRE(cudaMemcpy(to, from, bytes(), kind) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }

  Index rows_, cols_, stride_, first_;
  std::vector<T> host_;
  T* device_ = nullptr;
};

/// The largest error of a kernel, relative to the largest number of the output.
template <class T, class W>
double tolerance() {
  if (std::is_same_v<T, bf16>) return 0x1p-8;
  if (std::is_same_v<T, f16>) return 0x1p-11;
  if (std::is_same_v<T, double>) return 1e-13;
  return std::is_same_v<W, float> ? 1e-5 : 2e-5;
}

enum class Form { linear, plain, transposed };

/// A product with its matrices and the right answer. `linear`: y = epilogue(x w^T); else y (+)= x w or x^T w.
template <class T, class W, class Epilogue = Identity>
class Problem {
 public:
  Problem(Form form, Index rows, Index cols, Index depth, Layout layout, bool added = false)
      : form_(form), added_(added), y_(rows, cols, layout, 3),
        x_(form == Form::transposed ? depth : rows, form == Form::transposed ? rows : depth, layout, 1),
        w_(form == Form::linear ? cols : depth, form == Form::linear ? depth : cols, layout, 2) {
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c) {
        double sum = added ? y_(r, c) : 0;
        for (Index k = 0; k < depth; ++k) {
          sum += (form == Form::transposed ? x_(k, r) : x_(r, k)) * (form == Form::linear ? w_(c, k) : w_(k, c));
        }
        want_.push_back(form == Form::linear ? Epilogue()(One<double>(sum)).v : sum);
        if (!added) y_.set(r, c, std::nan(""));
      }
    }
    y_.send();
  }

  Product<T, W, Epilogue> linear() { return mul(y_.mat(), x_.mat(), transposed(w_.mat()), Epilogue()); }
  PlainProduct<T, W> plain() { return {y_.mat(), x_.mat(), w_.mat(), form_ == Form::transposed, added_}; }
  template <class F>
  void with(F multiply) {
    if (form_ == Form::linear) multiply(linear());
    else if constexpr (std::is_same_v<Epilogue, Identity>) multiply(plain());
  }

  /// Checks the answer of the device and returns it.
  std::vector<double> check() {
    const auto got = y_.receive();
    REQUIRE(golden::relative_error(got, want_) <= tolerance<T, W>());
    return got;
  }

 private:
  Form form_;
  bool added_;
  Matrix<T> y_, x_;
  Matrix<W> w_;
  std::vector<double> want_;
};

template <class T, class W, class Epilogue = Identity>
std::vector<double> check(Form form, Index rows, Index cols, Index depth, Layout layout, bool added = false) {
  CAPTURE(static_cast<int>(form));
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(depth);
  CAPTURE(static_cast<int>(layout));
  CAPTURE(added);
  Problem<T, W, Epilogue> problem(form, rows, cols, depth, layout, added);
  const CudaStream stream(0);
  problem.with([&](const auto& product) { gpu::gemm(stream, product); });
  stream.sync();
  return problem.check();
}

/// The product through large tiles, which outputs of these sizes do not take otherwise.
template <class T, class W>
void check_large(Form form, Index rows, Index cols, Index depth, Layout layout, bool added = false) {
  CAPTURE(static_cast<int>(form));
  Problem<T, W> problem(form, rows, cols, depth, layout, added);
  const CudaStream stream(0);
  const auto launch = [&](const auto& x, const auto& w, const auto& y) {
    using X = std::remove_cvref_t<decltype(x)>;
    using M = std::remove_cvref_t<decltype(w)>;
    using Y = std::remove_cvref_t<decltype(y)>;
    if constexpr (gpu::on_tensor_cores<T, W>) gpu::launch_tiles(stream, gpu::MmaProduct<true, X, M, Y>{x, w, y});
    else gpu::launch_tiles(stream, gpu::FmaProduct<true, X, M, Y>{x, w, y});
  };
  if (form == Form::linear) {
    const auto p = problem.linear();
    launch(gpu::Factor<T, gpu::Along::depth>(p.x), gpu::Factor<W, gpu::Along::depth>(p.w),
           gpu::Output(p.y, false, p.epilogue));
  } else {
    const auto p = problem.plain();
    const gpu::Factor<W, gpu::Along::outer> w(p.w);
    const gpu::Output y(p.y, added, Identity());
    if (form == Form::transposed) launch(gpu::Factor<T, gpu::Along::outer>(p.x), w, y);
    else launch(gpu::Factor<T, gpu::Along::depth>(p.x), w, y);
  }
  stream.sync();
  problem.check();
}

template <class T_, class W_>
struct Types {
  using T = T_;
  using W = W_;
};
#define ALL_TYPES                                                                                 \
  Types<float, float>, Types<float, bf16>, Types<float, f16>, Types<bf16, bf16>, Types<f16, f16>, \
      Types<double, double>, Types<bf16, f16>, Types<f16, float>, Types<double, bf16>

constexpr Layout layouts[] = {Layout::aligned, Layout::odd};

}  // namespace

TEST_CASE("simt: fragments hold every element of a matrix once") {
  std::set<std::pair<int, int>> a, b, d;
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < 8; ++e) {
      const auto at = detail::place_in_a(lane, e);
      CHECK((at.row >= 0 && at.row < 16 && at.col >= 0 && at.col < 16));
      a.emplace(at.row, at.col);
    }
    for (int e = 0; e < 4; ++e) {
      const auto in_b = detail::place_in_b(lane, e), in_d = detail::place_in_d(lane, e);
      CHECK((in_b.row >= 0 && in_b.row < 16 && in_b.col >= 0 && in_b.col < 8));
      CHECK((in_d.row >= 0 && in_d.row < 16 && in_d.col >= 0 && in_d.col < 8));
      b.emplace(in_b.row, in_b.col);
      d.emplace(in_d.row, in_d.col);
    }
  }
  CHECK(a.size() == 256);
  CHECK(b.size() == 128);
  CHECK(d.size() == 128);
}

namespace {

/// d [16, 8] += a [16, 16] b [16, 8], as one matrix instruction.
template <class T>
RWKV_KERNEL void multiply_once(const T* a, const T* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x);
  unsigned left[4] = {}, right[2] = {};
  float sums[4];
  for (int e = 0; e < 8; ++e) {
    const auto at = detail::place_in_a(lane, e);
    left[e / 2] |= unsigned{a[at.row * 16 + at.col].bits} << (e % 2 * 16);
  }
  for (int e = 0; e < 4; ++e) {
    const auto at = detail::place_in_b(lane, e), to = detail::place_in_d(lane, e);
    right[e / 2] |= unsigned{b[at.row * 8 + at.col].bits} << (e % 2 * 16);
    sums[e] = d[to.row * 8 + to.col];
  }
  detail::mma_m16n8k16_warp<T>(sums, left, right);
  for (int e = 0; e < 4; ++e) {
    const auto to = detail::place_in_d(lane, e);
    d[to.row * 8 + to.col] = sums[e];
  }
}

}  // namespace

TEST_CASE_TEMPLATE("simt: the matrix instruction multiplies", T, bf16, f16) {
  const Philox generator{.key = 5};
  std::vector<T> a(256), b(128);
  std::vector<float> d(128, 0.5f);
  std::vector<double> want(128, 0.5);
  for (std::size_t i = 0; i < 256; ++i) a[i] = T(static_cast<float>(generator.block(i).uniform_double(0)));
  for (std::size_t i = 0; i < 128; ++i) b[i] = T(static_cast<float>(generator.block(1000 + i).uniform_double(0)));
  for (std::size_t r = 0; r < 16; ++r) {
    for (std::size_t c = 0; c < 8; ++c) {
      for (std::size_t k = 0; k < 16; ++k)
        want[r * 8 + c] += widen<double>(a[r * 16 + k]) * widen<double>(b[k * 8 + c]);
    }
  }
  const CudaStream stream(0);
  stream.launch({.grid = {1}, .block = {32}}, multiply_once<T>, a.data(), b.data(), d.data());
  stream.sync();
  CHECK(golden::relative_error(d, want) < 0x1p-22);
}

TEST_CASE_TEMPLATE("simt: a linear layer of any number of rows", C, ALL_TYPES) {
  using T = typename C::T;
  using W = typename C::W;
  for (const Layout layout : layouts) {
    for (const Index rows : {0, 1, 2, 5, 7, 17, 33, 64, 129}) check<T, W>(Form::linear, rows, 33, 70, layout);
    for (const Index rows : {1, 4, 8, 32, 130}) {
      for (const Index cols : {0, 1, 65}) check<T, W>(Form::linear, rows, cols, 32, layout);
      for (const Index depth : {1, 7}) check<T, W>(Form::linear, rows, 17, depth, layout);
    }
    for (const Index rows : {2, 7, 20, 34}) check<T, W>(Form::linear, rows, 2, 1030, layout);
    check<T, W>(Form::linear, 65, 130, 64, layout);
    check<T, W>(Form::linear, 129, 65, 70, layout);
  }
}

TEST_CASE("simt: an epilogue is the last step of every kernel") {
  for (const Index rows : {1, 4, 7, 20, 40, 130}) {
    check<float, float, SquaredRelu>(Form::linear, rows, 17, 40, Layout::aligned);
    check<float, bf16, SquaredRelu>(Form::linear, rows, 17, 40, Layout::aligned);
  }
}

TEST_CASE_TEMPLATE("simt: the adjoints of a linear layer", C, ALL_TYPES) {
  using T = typename C::T;
  using W = typename C::W;
  for (const Layout layout : layouts) {
    for (const Form form : {Form::plain, Form::transposed}) {
      for (const bool added : {false, true}) {
        for (const Index size : {0, 1, 7}) check<T, W>(form, size, 33, 40, layout, added);
        for (const Index size : {0, 2, 5}) check<T, W>(form, 17, size, 33, layout, added);
        check<T, W>(form, 17, 64, 1, layout, added);
      }
      check<T, W>(form, 130, 65, 64, layout);
      check<T, W>(form, 33, 17, 1030, layout);
    }
  }
}

TEST_CASE_TEMPLATE("simt: large tiles", C, Types<float, float>, Types<float, bf16>, Types<float, f16>,
                   Types<bf16, bf16>, Types<f16, f16>, Types<bf16, f16>) {
  using T = typename C::T;
  using W = typename C::W;
  for (const Layout layout : layouts) {
    for (const Form form : {Form::linear, Form::plain, Form::transposed}) {
      check_large<T, W>(form, 130, 65, 40, layout);
      if (form != Form::linear) check_large<T, W>(form, 7, 130, 33, layout, true);
    }
  }
}

TEST_CASE("simt: x beyond what a block holds in shared memory") {
  check<float, float>(Form::linear, 1, 3, 20'000, Layout::aligned);
  check<float, bf16>(Form::linear, 3, 5, 9'001, Layout::aligned);
  check<float, float>(Form::linear, 7, 5, 4'500, Layout::aligned);
  check<double, bf16>(Form::linear, 12, 5, 2'500, Layout::odd);
}

TEST_CASE("simt: blocks of tiles in several bands") {
  check<float, float>(Form::linear, 700, 130, 3, Layout::aligned);
  check<float, bf16>(Form::linear, 600, 65, 5, Layout::aligned);
}

#if RWKV_SIMT
TEST_CASE("simt: a device without tensor cores for bf16") {
  simt::device.major = 7;
  for (const Index rows : {1, 4, 7, 32, 40}) {
    check<float, bf16>(Form::linear, rows, 33, 70, Layout::aligned);
    check<bf16, bf16>(Form::linear, rows, 33, 70, Layout::aligned);
  }
  check<float, f16>(Form::plain, 33, 20, 70, Layout::aligned);
  simt::device.major = 9;
}
#endif

TEST_CASE("simt: products do not depend on the order of threads and blocks") {
  std::vector<std::vector<double>> results;
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    simt::seed = seed;
    simt::shuffle_blocks = true;
    results.push_back({});
    for (const Index rows : {1, 3, 7, 20, 70, 130}) {
      for (const auto& got : {check<float, float>(Form::linear, rows, 40, 200, Layout::aligned),
                              check<float, bf16>(Form::linear, rows, 40, 200, Layout::aligned),
                              check<bf16, bf16>(Form::transposed, rows, 70, 100, Layout::aligned)}) {
        results.back().insert(results.back().end(), got.begin(), got.end());
      }
    }
    CHECK(results.back() == results.front());
  }
  simt::shuffle_blocks = false;
}

TEST_CASE("simt: several products of few rows share a launch") {
  for (const Index rows : {1, 4, 8, 20}) {
    CAPTURE(rows);
    Problem<float, bf16> a(Form::linear, rows, 50, 70, Layout::aligned), b(Form::linear, rows, 9, 1030, Layout::odd);
    Problem<float, bf16, SquaredRelu> c(Form::linear, rows, 33, 64, Layout::aligned);
    Problem<float, bf16> none(Form::linear, rows, 0, 64, Layout::aligned);
    const CudaStream stream(0);
    const long before = simt::counts.launches;
    gpu::gemm(stream, none.linear(), a.linear(), c.linear(), none.linear(), b.linear());
    stream.sync();
    if constexpr (simt::emulated) CHECK(simt::counts.launches - before == 1);
    a.check();
    b.check();
    c.check();
  }
}

TEST_CASE("simt: products of every kind in one call") {
  Problem<float, bf16> one(Form::linear, 1, 50, 70, Layout::aligned), many(Form::linear, 40, 9, 30, Layout::odd);
  Problem<float, float, SquaredRelu> few(Form::linear, 3, 33, 64, Layout::aligned);
  Problem<double, float> some(Form::linear, 9, 20, 40, Layout::odd);
  Problem<bf16, bf16> eight(Form::linear, 8, 20, 40, Layout::aligned);
  Problem<float, float> dw(Form::transposed, 12, 20, 40, Layout::aligned, true);
  Problem<float, bf16> dx(Form::plain, 12, 20, 40, Layout::aligned);
  const CudaStream stream(0);
  OwnGemm()(stream, one.linear(), dw.plain(), many.linear(), few.linear(), some.linear(), dx.plain(), eight.linear());
  stream.sync();
  one.check();
  many.check();
  few.check();
  some.check();
  eight.check();
  dw.check();
  dx.check();
}

namespace {

/// 2 x + 1, which is 1 for an empty sum.
struct Affine {
  template <class R>
  RWKV_HD R operator()(R x) const {
    return R(2) * x + R(1);
  }
};

}  // namespace

TEST_CASE("simt: products over an empty axis") {
  for (const Index rows : {1, 4, 8, 20, 40}) {
    CAPTURE(rows);
    Matrix<float> x(rows, 0, Layout::aligned), y(rows, 5, Layout::aligned), dw(rows, 5, Layout::aligned, 1);
    Matrix<bf16> w(5, 0, Layout::aligned), nothing(0, 5, Layout::aligned);
    Matrix<float> no_rows(0, rows, Layout::aligned);
    dw.set(0, 0, -0.0);
    dw.send();
    const CudaStream stream(0);
    gpu::gemm(stream, mul(y.mat(), x.mat(), transposed(w.mat()), Affine()));
    gpu::gemm(stream, mul(plus(dw.mat()), transposed(no_rows.mat()), nothing.mat()));
    stream.sync();
    CHECK(y.receive() == std::vector<double>(static_cast<std::size_t>(rows * 5), 1.0));
    CHECK(std::signbit(dw.receive()[0]));
    gpu::gemm(stream, mul(y.mat(), x.mat(), nothing.mat()));
    stream.sync();
    CHECK(y.receive() == std::vector<double>(static_cast<std::size_t>(rows * 5), 0.0));
  }
}

TEST_CASE_TEMPLATE("simt: numbers without end stay what they are on tensor cores", W, bf16, f16) {
  for (const Index rows : {8, 40}) {
    Matrix<float> x(rows, 40, Layout::aligned, 1), y(rows, 3, Layout::aligned);
    Matrix<W> w(3, 40, Layout::aligned, 2);
    x.set(0, 7, std::numeric_limits<double>::infinity());
    x.set(1, 8, std::nan(""));
    w.set(0, 7, 1);
    w.set(1, 7, -1);
    w.set(2, 7, 2);
    x.send();
    w.send();
    const CudaStream stream(0);
    gpu::gemm(stream, mul(y.mat(), x.mat(), transposed(w.mat())));
    stream.sync();
    const auto got = y.receive();
    // An f16 has a second term, which may be 0.
    for (const std::size_t i : {0u, 1u}) CHECK((std::is_same_v<W, bf16> ? std::isinf(got[i]) : !std::isfinite(got[i])));
    CHECK(std::isnan(got[3]));
    for (std::size_t i = 6; i < got.size(); ++i) CHECK(std::isfinite(got[i]));
  }
}

TEST_CASE_TEMPLATE("simt: many rows agree with one at a time over a long axis", W, float, bf16, f16) {
  const Index rows = 33, cols = 3, depth = 4000;
  Matrix<float> x(rows, depth, Layout::aligned, 1), all(rows, cols, Layout::aligned), one(rows, cols, Layout::aligned);
  Matrix<W> w(cols, depth, Layout::aligned, 2);
  const CudaStream stream(0);
  gpu::gemm(stream, mul(all.mat(), x.mat(), transposed(w.mat())));
  for (Index r = 0; r < rows; ++r) {
    gpu::gemm(stream, mul(Mat<float>{one.mat().row(r), 1, cols, cols}, Mat<float>{x.mat().row(r), 1, depth, depth},
                          transposed(w.mat())));
  }
  stream.sync();
  CHECK(golden::relative_error(all.receive(), one.receive()) < 1e-5);
}
