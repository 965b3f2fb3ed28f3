#include "../instances.hpp"

RWKV_TEST_MODEL(, config::AnyVersion, rwkv::bf16, rwkv::Cpu)
