#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V5, float, rwkv::Cuda)
