/// `step` allocates nothing, in any version; allocation_alone.cpp has the numbers.
#include "allocation.hpp"

TEST_CASE_TEMPLATE("a step of a later version allocates nothing", V, rwkv::V5, rwkv::V6, rwkv::V7) {
  check_steps<V, float>();
}
