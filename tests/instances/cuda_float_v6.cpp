#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V6, float, rwkv::Cuda)
