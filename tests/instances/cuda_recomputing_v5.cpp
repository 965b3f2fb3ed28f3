#include "../instances.hpp"

RWKV_TEST_RECOMPUTING(, rwkv::V5, float, rwkv::Cuda)
