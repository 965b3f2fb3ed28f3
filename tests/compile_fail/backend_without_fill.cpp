// error: rwkv: a backend must have copy(from, to), fill(to, value) and gather_rows(table, tokens, to)
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  void fill() = delete;
};
template class rwkv::TimeMix<config::AnyVersion, float, Mine>;
