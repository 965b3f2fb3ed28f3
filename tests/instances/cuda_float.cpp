#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V4, float, rwkv::Cuda)
RWKV_TEST_MODEL(, rwkv::V5, float, rwkv::Cuda)
