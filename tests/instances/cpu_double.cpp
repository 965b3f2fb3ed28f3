#include "../instances.hpp"

RWKV_TEST_VERSION(, rwkv::V4, double, rwkv::Cpu)
