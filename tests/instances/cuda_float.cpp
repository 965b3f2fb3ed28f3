#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V4, float, rwkv::Cuda)
