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

TEST_CASE("a product that gets no memory for its copies has the same bits") {
  constexpr Index rows = 60, inputs = 70, outputs = 50;
  const std::vector<float> x(rows * inputs, 0.1f), w(outputs * inputs, 0.3f);
  const auto product = [&](std::size_t limit) {
    std::vector<float> y(rows * outputs);
    Cpu be(2);
    most_bytes = limit;
    const long before = allocations;
    be.gemm(mul(matrix(y.data(), rows, outputs), matrix(x.data(), rows, inputs),
                transposed(matrix(w.data(), outputs, inputs))));
    most_bytes = std::numeric_limits<std::size_t>::max();
    CHECK(allocations > before);
    return y;
  };
  CHECK(product(1000) == product(1'000'000));
}
