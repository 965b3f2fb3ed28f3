#include "../instances.hpp"

RWKV_TEST_VERSION(, rwkv::V5, double, rwkv::Cpu)
