// error: rwkv: a backend must have gemm(products...)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void gemm() = delete;
};
template class rwkv::TimeMix<config::AnyVersion, float, Mine>;
