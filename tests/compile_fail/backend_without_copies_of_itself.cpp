// error: rwkv: a backend must be copyable: copies are handles to one device
#include <rwkv/blocks.hpp>

struct Mine : rwkv::Reference {
  Mine(const Mine&) = delete;
};
template class rwkv::TimeMix<config::AnyVersion, float, Mine>;
