#include "../instances.hpp"

RWKV_TEST_MODEL(, config::AnyVersion, rwkv::bf16, rwkv::Cpu)
RWKV_TEST_MODEL(, config::AnyVersion, rwkv::f16, rwkv::Cpu)
