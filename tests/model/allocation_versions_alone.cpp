/// `step` allocates nothing, in any version and number type.
#include "allocation.hpp"

TEST_CASE_TEMPLATE("a step of a later version allocates nothing", V, rwkv::V5, rwkv::V6, rwkv::V7, rwkv::V7a) {
  check_steps<V, float>();
}

TEST_CASE_TEMPLATE("a step in double or 16 bits allocates nothing", S, double, rwkv::bf16, rwkv::f16) {
  check_steps<config::AnyVersion, S>();
}
