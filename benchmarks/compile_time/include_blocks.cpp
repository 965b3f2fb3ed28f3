#include <rwkv/blocks.hpp>
