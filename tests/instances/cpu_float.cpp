#include "../instances.hpp"

RWKV_TEST_VERSION(, rwkv::V4, float, rwkv::Cpu)
