#pragma once
/// The JSON files beside models: the index of one that is stored in several shards, and config.json.
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The tensors of an index, sorted by name, with the shard that holds each.
using WeightMap = std::vector<std::pair<std::string, std::string>>;

/// The weight map of an index, model.safetensors.index.json; `file` starts every error. Shards are files beside the
/// index: one with a folder in its name is an error, as are a name that occurs twice and too many of either.
WeightMap read_weight_map(std::string_view json, std::string_view file);

/// Whether the name of the file is that of a part, such as model-00001-of-00002.safetensors.
bool is_shard(const std::filesystem::path& path);

/// What the index of that part would be called, such as model.safetensors.index.json.
std::string index_of_shard(const std::filesystem::path& path);

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/shards.ipp"
#endif
