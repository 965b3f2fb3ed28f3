#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V4, float, rwkv::Cpu)
RWKV_TEST_TRAINING(, rwkv::V4, float, rwkv::Cpu)
RWKV_TEST_RECOMPUTING(, rwkv::V4, float, rwkv::Cpu)
