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

TEST_CASE_TEMPLATE("a step allocates nothing", S, float, bf16) { check_steps<config::AnyVersion, S>(); }
