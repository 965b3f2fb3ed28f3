#include "../instances.hpp"

RWKV_TEST_RECOMPUTING(, rwkv::V4, float, rwkv::Cuda)
RWKV_TEST_RECOMPUTING(, rwkv::V5, float, rwkv::Cuda)
