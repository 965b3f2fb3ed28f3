/// The products of the CPU against those of the reference backend, at awkward sizes and on any number of threads.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <algorithm>
#include <limits>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;
using config::noise;

namespace {

/// Floats with all their digits: every product rounds, so that the order and the fusing of operations show in the bits.
std::vector<double> full_noise(Index count, std::uint64_t seed) {
  std::vector<double> x;
  for (Index i = 0; i < count; ++i) {
    x.push_back(static_cast<float>(Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0) - 0.5));
  }
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("products agree with the reference", W, float, bf16, f16) {
  const Index sizes[] = {1, 2, 3, 4, 5, 7, 17, 33, 130};
  Reference reference;
  for (const Index rows : sizes) {
    for (const Index outputs : sizes) {
      for (const Index inputs : {1, 15, 16, 17, 77, 128, 1025, 2100}) {  // a stretch of 3 KB is 768 floats
        const auto xs = noise(rows * inputs, 1), ws = noise(outputs * inputs, 2);
        Buffer<double> x(xs), w(ws), y(rows * outputs);
        reference.gemm(
            mul(y.mat(rows, outputs), x.mat(rows, inputs), transposed(w.mat(outputs, inputs)), SquaredRelu{}));
        Buffer<float> fx(xs), fy(rows * outputs), again(rows * outputs);
        Buffer<W> fw(ws);
        Cpu one(1), three(3);
        one.gemm(mul(fy.mat(rows, outputs), fx.mat(rows, inputs), transposed(fw.mat(outputs, inputs)), SquaredRelu{}));
        three.gemm(
            mul(again.mat(rows, outputs), fx.mat(rows, inputs), transposed(fw.mat(outputs, inputs)), SquaredRelu{}));
        CAPTURE(rows);
        CAPTURE(outputs);
        CAPTURE(inputs);
        REQUIRE(golden::relative_error(fy.numbers, y.numbers) < 1e-5);
        REQUIRE(again.numbers == fy.numbers);
      }
    }
  }
}

namespace {

/// y = x w^T with T as the computing type; the rows of x at once, then `rows` calls of one row each, and with widened w.
template <class T, class W>
void check_rows_alone(Index rows, Index outputs, Index inputs) {
  const auto xs = full_noise(rows * inputs, 3), ws = full_noise(outputs * inputs, 4);
  Buffer<T> x(xs), y(rows * outputs), again(rows * outputs), alone(rows * outputs), wide(outputs * inputs);
  Buffer<W> w(ws);
  for (Index i = 0; i < outputs * inputs; ++i) wide[i] = widen<T>(w[i]);
  const auto weights = transposed(w.mat(outputs, inputs));
  const auto widened = transposed(wide.mat(outputs, inputs));
  Cpu one(1), three(3);
  one.gemm(mul(y.mat(rows, outputs), x.mat(rows, inputs), weights, SquaredRelu{}));
  for (Index r = 0; r < rows; ++r) {
    one.gemm(mul(rows_of(alone.mat(rows, outputs), r, 1), rows_of(x.mat(rows, inputs), r, 1), weights, SquaredRelu{}));
  }
  CAPTURE(rows);
  CAPTURE(outputs);
  CAPTURE(inputs);
  REQUIRE(y.numbers == alone.numbers);
  three.gemm(mul(again.mat(rows, outputs), x.mat(rows, inputs), weights, SquaredRelu{}));
  REQUIRE(again.numbers == alone.numbers);
  std::ranges::fill(again.numbers, std::numeric_limits<typename decltype(again.numbers)::value_type>::quiet_NaN());
  three.gemm(mul(again.mat(rows, outputs), x.mat(rows, inputs), widened, SquaredRelu{}));
  REQUIRE(again.numbers == alone.numbers);
}

}  // namespace

TEST_CASE_TEMPLATE("a product of several rows has the bits of its rows alone", W, float, bf16, f16, double) {
  using T = std::conditional_t<std::is_same_v<W, double>, double, float>;
  for (const Index rows : {1, 2, 3, 17, 64, 100}) {
    for (const Index outputs : {1, 3, 8, 17, 70}) {
      for (const Index inputs : {0, 1, 3, 16, 17, 64, 77, 128}) check_rows_alone<T, W>(rows, outputs, inputs);
    }
  }
  check_rows_alone<T, W>(200, 19, 2100);  // several tiles of rows, of more than one stretch
  check_rows_alone<T, W>(7, 70, 8192);
}

TEST_CASE("products of several sizes, and adjoints, in one call") {
  const Index inputs = 37, outputs = 50;
  const auto run = [&](Cpu be, bool together) {
    Buffer<float> w(full_noise(outputs * inputs, 5)), x(full_noise(300 * inputs, 6)), dy(full_noise(60 * outputs, 7));
    Buffer<float> y(300 * outputs), few(5 * outputs), more(60 * outputs), dx(60 * inputs);
    const auto weights = w.mat(outputs, inputs);
    const auto all = mul(y.mat(300, outputs), x.mat(300, inputs), transposed(weights));
    const auto small = mul(few.mat(5, outputs), rows_of(x.mat(300, inputs), 9, 5), transposed(weights), SquaredRelu{});
    const auto other =
        mul(more.mat(60, outputs), rows_of(x.mat(300, inputs), 2, 60), transposed(weights), SquaredRelu{});
    const auto back = mul(dx.mat(60, inputs), dy.mat(60, outputs), weights);
    if (together) {
      be.gemm(small, all, back, other);
    } else {
      be.gemm(all), be.gemm(small), be.gemm(other), be.gemm(back);
    }
    auto numbers = y.numbers;
    for (const auto* more_numbers : {&few.numbers, &more.numbers, &dx.numbers}) {
      numbers.insert(numbers.end(), more_numbers->begin(), more_numbers->end());
    }
    return numbers;
  };
  const auto expected = run(Cpu(1), false);
  CHECK(run(Cpu(1), true) == expected);
  CHECK(run(Cpu(3), true) == expected);
}

namespace {

/// Both adjoints of y = x w^T, each once as it is and once added to what is there, on views wider than they are.
template <class T, class W>
struct LinearAdjoint {
  Index rows, outputs, inputs;
  static constexpr Index margin = 3;
  Buffer<T> dy{noise(rows * (outputs + margin), 11)}, x{noise(rows * (inputs + margin), 12)};
  Buffer<W> w{noise(outputs * (inputs + margin), 13)};
  Buffer<T> dx{noise(rows * (inputs + margin), 14)}, more_dx = dx;
  Buffer<T> dw{noise(outputs * (inputs + margin), 15)}, more_dw = dw;

  template <class U>
  static Mat<U> view(Buffer<U>& numbers, Index rows, Index cols) {
    return {numbers.numbers.data(), rows, cols, cols + margin};
  }
  template <class B>
  LinearAdjoint& run(B be) {
    const auto dys = view(dy, rows, outputs), xs = view(x, rows, inputs);
    const auto ws = view(w, outputs, inputs);
    be.gemm(mul(view(dx, rows, inputs), dys, ws), mul(plus(view(more_dx, rows, inputs)), dys, ws),
            mul(view(dw, outputs, inputs), transposed(dys), xs),
            mul(plus(view(more_dw, outputs, inputs)), transposed(dys), xs));
    return *this;
  }
};

template <class T, class W>
void check_adjoint(Index rows, Index outputs, Index inputs, double tolerance) {
  CAPTURE(rows);
  CAPTURE(outputs);
  CAPTURE(inputs);
  const auto want = LinearAdjoint<double, double>{rows, outputs, inputs}.run(Reference());
  const auto got = LinearAdjoint<T, W>{rows, outputs, inputs}.run(Cpu(1));
  REQUIRE(golden::relative_error(got.dx.numbers, want.dx.numbers) < tolerance);
  REQUIRE(golden::relative_error(got.more_dx.numbers, want.more_dx.numbers) < tolerance);
  REQUIRE(golden::relative_error(got.dw.numbers, want.dw.numbers) < tolerance);
  REQUIRE(golden::relative_error(got.more_dw.numbers, want.more_dw.numbers) < tolerance);
  for (const int threads : {2, 3, 5}) {
    const auto again = LinearAdjoint<T, W>{rows, outputs, inputs}.run(Cpu(threads));
    REQUIRE(again.dx.numbers == got.dx.numbers);
    REQUIRE(again.more_dx.numbers == got.more_dx.numbers);
    REQUIRE(again.dw.numbers == got.dw.numbers);
    REQUIRE(again.more_dw.numbers == got.more_dw.numbers);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the adjoints of products agree with the reference", W, float, bf16, f16) {
  const Index sizes[] = {0, 1, 5, 7, 17, 33, 130};
  for (const Index rows : sizes) {
    for (const Index outputs : sizes) {
      for (const Index inputs : sizes) check_adjoint<float, W>(rows, outputs, inputs, 1e-5);
    }
  }
  check_adjoint<float, W>(1030, 70, 45, 1e-5);  // several stretches of the axis that dw sums over
  check_adjoint<float, W>(70, 1030, 45, 1e-5);  // and that dx sums over
  check_adjoint<float, W>(300, 45, 1030, 1e-5);
}

TEST_CASE("the adjoints of products in double") {
  const Index sizes[] = {0, 1, 7, 33, 300};
  for (const Index rows : sizes) {
    for (const Index outputs : sizes) {
      for (const Index inputs : sizes) check_adjoint<double, double>(rows, outputs, inputs, 1e-13);
    }
  }
}

TEST_CASE("the adjoints of products of dual numbers differentiate") {
  const Index rows = 9, outputs = 5, inputs = 11;
  using D = Dual<double>;
  const auto value = [](const Buffer<D>& duals) {
    std::vector<double> values;
    for (const D& d : duals.numbers) values.push_back(d.value);
    return values;
  };
  const auto slope = [](const Buffer<D>& duals) {
    std::vector<double> slopes;
    for (const D& d : duals.numbers) slopes.push_back(d.direction[0]);
    return slopes;
  };
  const auto lift = [](LinearAdjoint<D, D> product) {
    for (Index i = 0; i < std::ssize(product.dy.numbers); ++i) product.dy[i].direction[0] = 0.5;
    for (Index i = 0; i < std::ssize(product.w.numbers); ++i) product.w[i].direction[0] = -0.25;
    return product;
  };
  const auto want = lift({rows, outputs, inputs}).run(Reference());
  const auto got = lift({rows, outputs, inputs}).run(Cpu(2));
  for (const auto part : {&LinearAdjoint<D, D>::dx, &LinearAdjoint<D, D>::more_dx, &LinearAdjoint<D, D>::dw,
                          &LinearAdjoint<D, D>::more_dw}) {
    CHECK(golden::relative_error(value(got.*part), value(want.*part)) < 1e-14);
    CHECK(golden::relative_error(slope(got.*part), slope(want.*part)) < 1e-14);
  }
}

TEST_CASE("an adjoint over an empty axis is zero, or adds nothing") {
  Buffer<float> dy(1), w(1), dx(12, 7.0f), dw(12, -0.0f);
  Cpu be(2);
  be.gemm(mul(dx.mat(3, 4), dy.mat(3, 0), w.mat(0, 4)), mul(plus(dw.mat(3, 4)), transposed(dy.mat(0, 3)), w.mat(0, 4)));
  CHECK(dx.numbers == std::vector<float>(12));
  CHECK(std::signbit(dw[0]));
}

TEST_CASE("a row that is passed back does not depend on how many rows there are") {
  const Index rows = 37, outputs = 700, inputs = 90;
  Buffer<float> dy(full_noise(rows * outputs, 3)), w(full_noise(outputs * inputs, 4));
  Buffer<float> all(rows * inputs), one(rows * inputs);
  Cpu be(2);
  be.gemm(mul(all.mat(rows, inputs), dy.mat(rows, outputs), w.mat(outputs, inputs)));
  for (Index r = 0; r < rows; ++r) {
    be.gemm(mul(matrix(&one[r * inputs], 1, inputs), matrix(&dy[r * outputs], 1, outputs), w.mat(outputs, inputs)));
  }
  CHECK(all.numbers == one.numbers);
}

TEST_CASE("a product over an empty axis is zero") {
  Buffer<float> x(1), w(1), y(12, 7.0f);
  Cpu(2).gemm(mul(y.mat(4, 3), x.mat(4, 0), transposed(w.mat(3, 0))));
  CHECK(y.numbers == std::vector<float>(12));
}

TEST_CASE("a product's result does not depend on how many rows it has") {
  const Index rows = 55, outputs = 90, inputs = 2100;
  Buffer<float> x(full_noise(rows * inputs, 3)), w(full_noise(outputs * inputs, 4));
  Buffer<float> all(rows * outputs), one(rows * outputs);
  Cpu be(2);
  be.gemm(mul(all.mat(rows, outputs), x.mat(rows, inputs), transposed(w.mat(outputs, inputs))));
  for (Index r = 0; r < rows; ++r) {
    be.gemm(mul(Mat<float>{&one[r * outputs], 1, outputs, outputs}, Mat<float>{&x[r * inputs], 1, inputs, inputs},
                transposed(w.mat(outputs, inputs))));
  }
  CHECK(all.numbers == one.numbers);
}

TEST_CASE("several products in one call are each of them") {
  Buffer<float> x(noise(3 * 20, 5)), z(noise(2 * 40, 6)), v(noise(50 * 20, 7)), w(noise(9 * 40, 8));
  Buffer<float> a(3 * 50), b(2 * 9), alone(3 * 50), apart(2 * 9);
  Cpu be(3);
  be.gemm(mul(a.mat(3, 50), x.mat(3, 20), transposed(v.mat(50, 20))),
          mul(b.mat(2, 9), z.mat(2, 40), transposed(w.mat(9, 40)), SquaredRelu{}));
  be.gemm(mul(alone.mat(3, 50), x.mat(3, 20), transposed(v.mat(50, 20))));
  be.gemm(mul(apart.mat(2, 9), z.mat(2, 40), transposed(w.mat(9, 40)), SquaredRelu{}));
  CHECK(a.numbers == alone.numbers);
  CHECK(b.numbers == apart.numbers);
}

TEST_CASE("a product and its adjoints in one call are each of them") {
  const Index rows = 50, outputs = 70, inputs = 40;
  Buffer<float> x(noise(rows * inputs, 5)), w(noise(outputs * inputs, 6)), dy(noise(rows * outputs, 7));
  Buffer<float> y(rows * outputs), dx(rows * inputs), dw(outputs * inputs, 1.0f);
  Buffer<float> alone_y = y, alone_dx = dx, alone_dw = dw;
  const auto xs = x.mat(rows, inputs), ws = w.mat(outputs, inputs), dys = dy.mat(rows, outputs);
  Cpu be(3);
  be.gemm(mul(dx.mat(rows, inputs), dys, ws), mul(y.mat(rows, outputs), xs, transposed(ws), SquaredRelu{}),
          mul(plus(dw.mat(outputs, inputs)), transposed(dys), xs));
  be.gemm(mul(alone_dx.mat(rows, inputs), dys, ws));
  be.gemm(mul(alone_y.mat(rows, outputs), xs, transposed(ws), SquaredRelu{}));
  be.gemm(mul(plus(alone_dw.mat(outputs, inputs)), transposed(dys), xs));
  CHECK(y.numbers == alone_y.numbers);
  CHECK(dx.numbers == alone_dx.numbers);
  CHECK(dw.numbers == alone_dw.numbers);
}
