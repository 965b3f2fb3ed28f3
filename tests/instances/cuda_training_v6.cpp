#include "../instances.hpp"

RWKV_TEST_TRAINING(, rwkv::V6, float, rwkv::Cuda)
