#include "../instances.hpp"

RWKV_TEST_VERSION(, rwkv::V6, double, rwkv::Reference)
