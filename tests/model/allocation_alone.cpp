/// `step` allocates nothing; allocation_versions_alone.cpp has the other versions and number types.
#include "allocation.hpp"

using namespace rwkv;

TEST_CASE("the count sees an allocation") {
  const long before = allocations;
  std::vector<int> numbers(100);
  CHECK(allocations > before);
}

TEST_CASE("Eigen's guard sees an allocation") {
  Eigen::internal::set_is_malloc_allowed(false);
  CHECK_THROWS_AS(Eigen::MatrixXf(10, 10), std::logic_error);
  Eigen::internal::set_is_malloc_allowed(true);
}

TEST_CASE("a step allocates nothing") { check_steps<config::AnyVersion, float>(); }

TEST_CASE("a product of many rows allocates nothing") {
  constexpr Index rows = 200, inputs = 70, outputs = 50;
  const std::vector<float> x(rows * inputs, 0.1f), w(outputs * inputs, 0.3f);
  std::vector<float> y(rows * outputs);
  Cpu be(2);
  const long before = allocations;
  be.gemm(mul(matrix(y.data(), rows, outputs), matrix(x.data(), rows, inputs),
              transposed(matrix(w.data(), outputs, inputs))));
  CHECK(allocations == before);
}
