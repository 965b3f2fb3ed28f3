// error: rwkv: a backend must have rows(program, operands...)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void rows() = delete;
};
template class rwkv::TimeMix<config::AnyVersion, float, Mine>;
