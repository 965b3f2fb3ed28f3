#include "../instances.hpp"

#ifndef RWKV_TEST_CUDA
#error "part of the suites that run on the CUDA backend"
#endif

RWKV_TEST_MODEL(, rwkv::V4, float, rwkv::Cuda)
RWKV_TEST_TRAINING(, rwkv::V4, float, rwkv::Cuda)
