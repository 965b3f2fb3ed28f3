// error: rwkv: there is no TimeMix for this version; pass a version tag such as rwkv::V4 or a type derived from one
#include <rwkv/blocks.hpp>

struct V40 {};
template class rwkv::TimeMix<V40, float, rwkv::Cpu>;
