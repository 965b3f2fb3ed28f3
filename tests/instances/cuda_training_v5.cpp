#include "../instances.hpp"

RWKV_TEST_TRAINING(, rwkv::V5, float, rwkv::Cuda)
