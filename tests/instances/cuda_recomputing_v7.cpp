#include "../instances.hpp"

RWKV_TEST_RECOMPUTING(, rwkv::V7, float, rwkv::Cuda)
