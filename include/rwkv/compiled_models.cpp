/// The models of every version on the CPU, which load_model() chooses from; only declared where RWKV_COMPILED is defined.
/// The CMake target rwkv::compiled is this file and compiled.cpp; by hand, compile both once, give -DRWKV_COMPILED to the
/// rest and link them.
#ifndef RWKV_COMPILED
#define RWKV_COMPILED
#endif
#include "rwkv/backend/cpu.hpp"
#include "rwkv/io/load_model.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
template AnyModel load_model(const std::filesystem::path&, Cpu, const LoadOptions&, FileSystem&);
}
}  // namespace rwkv
