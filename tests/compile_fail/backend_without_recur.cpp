// error: rwkv: a backend must have recur(scratch, schedule, cell, length, state, operands...)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void recur() = delete;
};
template class rwkv::TimeMix<config::AnyVersion, float, Mine>;
