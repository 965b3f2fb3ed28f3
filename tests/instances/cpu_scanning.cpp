#include "../instances.hpp"

RWKV_TEST_MODEL(, config::Scanning, float, rwkv::Cpu)
