#include "../instances.hpp"

RWKV_TEST_RECOMPUTING(, rwkv::V6, float, rwkv::Cuda)
