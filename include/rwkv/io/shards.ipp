#pragma once
#include <algorithm>
#include <cstddef>
#include <set>

#include "rwkv/core/error.hpp"
#include "rwkv/io/json.hpp"
#include "rwkv/io/shards.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr std::size_t max_shards = 1000;

/// Whether a name leads to a file in the same folder, on every system.
inline bool is_plain_file_name(std::string_view name) {
  return is_clean_name(name) && name != "." && name != ".." && name.find_first_of("/\\:") == std::string_view::npos;
}

RWKV_BODY WeightMap read_weight_map(std::string_view json, std::string_view file) {
  SmallJson index(file, "weight_map");
  index.read(json);
  expects(index.has_map(), file, ": the index has no weight_map");
  WeightMap& map = index.texts;
  expects(!map.empty(), file, ": the index names no tensors");
  std::sort(map.begin(), map.end());
  const auto twice =
      std::adjacent_find(map.begin(), map.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != map.end()) fail(file, ": the index names the tensor ", in_quotes(twice->first), " twice");
  std::set<std::string_view> shards;
  for (const auto& [tensor, shard] : map) {
    if (!is_plain_file_name(shard)) {
      fail(file, ": the index leads to ", in_quotes(shard), ", but shards are files in its own folder");
    }
    shards.insert(shard);
    expects(shards.size() <= max_shards, file, ": the index leads to more than ", max_shards, " shards");
  }
  return std::move(map);
}

/// Where "-00001-of-00002" stands in the name of a shard, and its length; 0 and 0 in other names.
inline std::pair<std::size_t, std::size_t> shard_number(std::string_view name) {
  constexpr std::string_view middle = "-of-", digits = "0123456789";
  const std::size_t of = name.rfind(middle);
  if (of == std::string_view::npos || of == 0) return {};
  const std::size_t before = name.find_last_not_of(digits, of - 1);
  const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const std::size_t end = std::min(name.find_first_not_of(digits, of + middle.size()), name.size());
  if (begin == of || end == of + middle.size()) return {};
  const std::size_t dash = begin > 0 && name[begin - 1] == '-' ? begin - 1 : begin;
  return {dash, end - dash};
}

RWKV_BODY bool is_shard(const std::filesystem::path& path) {
  return shard_number(path_text(path.filename())).second > 0;
}

RWKV_BODY std::string index_of_shard(const std::filesystem::path& path) {
  std::string name = path_text(path.filename());
  const auto [begin, size] = shard_number(name);
  return name.erase(begin, size) + ".index.json";
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
