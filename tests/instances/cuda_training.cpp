#include "../instances.hpp"

RWKV_TEST_TRAINING(, rwkv::V4, float, rwkv::Cuda)
