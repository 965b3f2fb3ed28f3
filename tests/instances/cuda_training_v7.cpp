#include "../instances.hpp"

RWKV_TEST_TRAINING(, rwkv::V7, float, rwkv::Cuda)
