#pragma once
/// What the tests of models AsStored share: a small model, files of it, and the comparison of bits.
#include <rwkv/rwkv.hpp>

#include <cstring>
#include <vector>

#include "../model/live.hpp"
#include "checks.hpp"

namespace as_stored {

using namespace rwkv;

inline constexpr ModelSizes sizes{.vocab = 37, .width = 20, .depth = 2, .ffn = 33};

template <class S, class B = Cpu>
using Net = LanguageModel<config::AnyVersion, S, B>;

/// A checkpoint of one number type.
template <class Storage>
void write_model(const std::filesystem::path& path) {
  save_checkpoint<Storage>(config::live<Net<float>>(sizes, Cpu()), path);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace as_stored
