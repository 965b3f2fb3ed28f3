// error: rwkv: a backend must have rows(program, operands...)
#include <rwkv/blocks.hpp>

template class rwkv::TokenShift<float, int>;
