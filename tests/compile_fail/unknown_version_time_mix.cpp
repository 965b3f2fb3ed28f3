// error: rwkv: there is no TimeMix for this version; pass a version tag
#include <rwkv/blocks.hpp>

struct Unknown {};
template class rwkv::TimeMix<Unknown, float, rwkv::Cpu>;
