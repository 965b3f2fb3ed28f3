#include "../instances.hpp"

RWKV_TEST_MODEL(, config::AnyVersion, rwkv::f16, rwkv::Cpu)
RWKV_TEST_MODEL(, config::Scanning, double, rwkv::Cpu)
