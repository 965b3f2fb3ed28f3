// error: rwkv: a backend must have allocate<T>(count), free(pointer), sync() and a flag bool dry
#include <rwkv/blocks.hpp>

struct Gpu {};
template class rwkv::TimeMix<config::AnyVersion, float, Gpu>;
