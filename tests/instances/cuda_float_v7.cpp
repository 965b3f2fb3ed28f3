#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V7, float, rwkv::Cuda)
