#include "../instances.hpp"

RWKV_TEST_RECOMPUTING(, rwkv::V4, float, rwkv::Cuda)
