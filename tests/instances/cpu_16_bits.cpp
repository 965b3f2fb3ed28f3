#include "../instances.hpp"

RWKV_TEST_MODEL(, rwkv::V4, rwkv::bf16, rwkv::Cpu)
RWKV_TEST_MODEL(, rwkv::V4, rwkv::f16, rwkv::Cpu)
