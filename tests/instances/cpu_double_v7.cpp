#include "../instances.hpp"

RWKV_TEST_VERSION(, rwkv::V7, double, rwkv::Cpu)
