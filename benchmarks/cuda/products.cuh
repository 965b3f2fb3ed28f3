#pragma once
/// The products that one kind of `gemm` is measured on.
#include "rwkv/op/linear.hpp"
#include "suite.cuh"

namespace bench {

using rwkv::matrix;
using rwkv::transposed;

/// x [rows, in], y [rows, out] and w [out, in]; gradients take dy and x to dw.
struct ProductShape {
  Index rows, out, in;

  std::string name() const { return by(rows, out, in); }
  double flops() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in); }
};

template <class X, class W>
std::string product_number() {
  if constexpr (sizeof(X) == sizeof(W)) return number_name<X>();
  else return std::string(number_name<X>()) + " x " + number_name<W>();
}

/// What one product moves and computes. In 16 bits matrix units multiply, in float the others.
template <class X, class W>
Work work_of(const ProductShape& shape) {
  const auto bytes = [](Index numbers, std::size_t size) {
    return static_cast<double>(numbers) * static_cast<double>(size);
  };
  return {.read = bytes(shape.rows * shape.in, sizeof(X)) + bytes(shape.out * shape.in, sizeof(W)),
          .written = bytes(shape.rows * shape.out, sizeof(X)),
          .flops = shape.flops(),
          .unit = sizeof(W) == 2 ? Work::mma : Work::fma};
}

enum class Direction { forward, input_gradient, weight_gradient };

/// Measures a product of the backend `be`, whose results have the type of x.
template <class X, class W, class Backend>
void product(Suite& suite, Backend& be, const std::string& kernel, const ProductShape& shape, double goal,
             Direction direction = Direction::forward) {
  Work work = work_of<X, W>(shape);
  const Case what{kernel, shape.name(), product_number<X, W>(), work, goal};
  suite.run(what, [&] {
    const Index sets = suite.sets(work.read + work.written);
    const float range = std::sqrt(3.0f / static_cast<float>(shape.in));
    const Numbers<X> x(suite.backend(), shape.rows * shape.in, -1, 1, 1, sets),
        y(suite.backend(), shape.rows * shape.out, -1, 1, 2, sets);
    const Numbers<W> w(suite.backend(), shape.out * shape.in, -range, range, 3, sets);
    const auto seconds = suite.seconds_of(sets, [&](Index set) {
      const auto inputs = matrix(x.data(set), shape.rows, shape.in);
      const auto outputs = matrix(y.data(set), shape.rows, shape.out);
      const auto weights = matrix(w.data(set), shape.out, shape.in);
      if (direction == Direction::forward) be.gemm(rwkv::mul(outputs, inputs, transposed(weights)));
      else if (direction == Direction::input_gradient) be.gemm(rwkv::mul(inputs, outputs, weights));
      else if constexpr (std::is_same_v<X, W>) be.gemm(rwkv::mul(weights, transposed(outputs), inputs));
    });
    suite.report(what, seconds);
  });
}

/// Square products. `goal(shape, number)` is what each may take.
template <class Backend, class Goal>
void square_products(Suite& suite, Backend& be, const std::string& kernel, const Goal& goal) {
  for (const Index size : {1024, 2048, 4096, 8192}) {
    if (suite.quick() && size != 4096) continue;
    const ProductShape shape{size, size, size};
    product<rwkv::bf16, rwkv::bf16>(suite, be, kernel, shape, goal(shape, "bf16"));
    product<float, rwkv::bf16>(suite, be, kernel, shape, goal(shape, "fp32 x bf16"));
    product<float, float>(suite, be, kernel, shape, goal(shape, "fp32"));
  }
}

}  // namespace bench
