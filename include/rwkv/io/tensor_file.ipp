#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/io/dialects.hpp"
#include "rwkv/io/gguf.hpp"
#include "rwkv/io/json.hpp"
#include "rwkv/io/pth.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/shards.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file_kind.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY TensorFile::TensorFile(std::vector<Bytes> parts, std::filesystem::path path, detail::TensorTable table,
                                 detail::Surroundings surroundings)
    : parts_(std::move(parts)), surroundings_(std::move(surroundings)), path_(std::move(path)),
      tensors_(std::move(table.tensors)), unreadable_(std::move(table.unreadable)),
      metadata_(std::move(table.metadata)), by_name_(detail::order_by_name(tensors_)) {
  std::sort(unreadable_.begin(), unreadable_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  if (parts_.size() == 1) keep_alive_ = parts_[0].keep_alive();
  else keep_alive_ = std::make_shared<const std::vector<Bytes>>(parts_);
}

RWKV_BODY bool TensorFile::is_mapped() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const Bytes& part) { return part.is_mapped(); });
}

RWKV_BODY void TensorFile::check_unchanged() const {
  for (const Bytes& part : parts_) part.check_unchanged();
}

RWKV_BODY const TensorView* TensorFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  if (found != by_name_.end() && tensors_[*found].name == name) return &tensors_[*found];
  if (const UnreadableTensor* tensor = find_unreadable(name)) {
    fail(detail::path_text(path_), ": tensor ", detail::in_quotes(name), " cannot be read: ", tensor->reason);
  }
  return nullptr;
}

RWKV_BODY const UnreadableTensor* TensorFile::find_unreadable(std::string_view name) const {
  const auto found = std::lower_bound(unreadable_.begin(), unreadable_.end(), name,
                                      [](const auto& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != unreadable_.end() && found->name == name ? &*found : nullptr;
}

namespace detail {

/// Whether this start of a file is UTF-8, up to a last character that may be cut, without control characters.
inline bool is_plain_text(std::string_view start) {
  const auto is_control = [](unsigned char c) { return (c < ' ' && (c < '\t' || c > '\r')) || c == 0x7f; };
  if (std::any_of(start.begin(), start.end(), is_control)) return false;
  for (int cut = 0; cut < 4 && !start.empty(); ++cut, start.remove_suffix(1)) {
    if (is_utf8(start)) return true;
  }
  return false;
}

/// Whether a text begins as the World vocabulary does: `1 '..' 1`, with any quotes and a single token.
inline bool is_world_vocabulary(std::string_view text) {
  std::string_view line = text.substr(0, std::min(text.find('\n'), std::size_t{64}));
  if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!line.starts_with("1 ") || !line.ends_with(" 1")) return false;
  line.remove_prefix(line.substr(2).starts_with('b') ? 3 : 2);
  return line.size() > 4 && (line[0] == '\'' || line[0] == '"') && line[line.size() - 3] == line[0];
}

/// What a text is that was given as a model, and how it begins.
inline std::string kind_of_text(std::string_view text) {
  if (is_world_vocabulary(text)) return "a World vocabulary, not a model; are model and vocabulary exchanged?";
  constexpr std::size_t most = 40;
  std::string_view line = text.substr(0, std::min(text.find_first_of("\r\n"), most));
  while (!line.empty() && !is_utf8(line)) line.remove_suffix(1);
  return join("a text, not a model (it begins with ", in_quotes(line), ")");
}

inline TensorTable read_tensors(const Bytes& bytes, bool verify_checksums) {
  static_assert(std::endian::native == std::endian::little,
                "rwkv: tensor files are read on little-endian machines only");
  const std::string& file = bytes.name();
  const std::string_view text = as_text(bytes.view());
  expects(!text.empty(), file, ": the file is empty");
  // The first eight bytes of a safetensors file are the length of the JSON behind them, and may be those of anything.
  const bool json_follows = text.size() > 8 && text[8] == '{' && text.substr(4, 4) == std::string_view("\0\0\0\0", 4);
  if (json_follows) return read_safetensors(bytes.view(), file);
  if (text.starts_with("PK\x03\x04")) return read_pth(bytes.view(), file, verify_checksums);
  if (text.starts_with("GGUF")) return read_gguf(bytes.view(), file);
  const std::string_view kind = kind_of_file(text);
  if (!kind.empty()) fail(file, ": only .safetensors, .pth and .gguf are read, and this is ", kind);
  if (is_plain_text(text.substr(0, 256))) fail(file, ": this is ", kind_of_text(text));
  return read_safetensors(bytes.view(), file);
}

/// What was done to read the table.
inline Surroundings with_notes(const TensorTable& table) {
  Surroundings surroundings;
  if (!table.entry.empty()) surroundings.notes.push_back(join("the state dict is its entry ", in_quotes(table.entry)));
  return surroundings;
}

/// What a path leads to; `other` where that cannot be told.
inline FileStatus::Kind kind_of_path(const std::filesystem::path& path, FileSystem& files) {
  FileStatus found;
  const std::error_code error = files.status(path, found);
  return error ? FileStatus::Kind::other : found.kind;
}

/// The file in a folder that stands for the model in it; the folder itself if none does.
inline std::filesystem::path model_in(const std::filesystem::path& folder, FileSystem& files) {
  for (const char* name : {"model.safetensors.index.json", "pytorch_model.bin.index.json", "model.safetensors"}) {
    std::filesystem::path path = folder / name;
    if (kind_of_path(path, files) == FileStatus::Kind::regular) return path;
  }
  return folder;
}

/// The numbers of the config.json beside a file, if its names are of a program that keeps some there.
inline void read_config(const std::filesystem::path& path, const TensorTable& table, FileSystem& files,
                        Surroundings& surroundings) {
  const FoundDialect found = find_dialect(names_of(table.tensors, table.unreadable));
  if (found.dialect == nullptr || !found.dialect->has_config) return;
  const std::filesystem::path config = path.parent_path() / "config.json";
  if (kind_of_path(config, files) != FileStatus::Kind::regular) return;
  const Bytes bytes = read_small_json(config, files);
  SmallJson json(bytes.name());
  json.read(as_text(bytes.view()));
  for (const char* key :
       {"hidden_size", "norm_eps", "layer_norm_epsilon", "layer_norm_eps", "group_norm_epsilon", "head_size_divisor"}) {
    if (const auto number = json.number(key)) surroundings.config.emplace(key, *number);
  }
}

/// All shards of an index as one file. A shard holds the tensors that the index has in it and no others.
inline TensorFile open_shards(const std::filesystem::path& path, const Bytes& index, OpenOptions options,
                              FileSystem& files) {
  const std::string& name = index.name();
  const WeightMap map = read_weight_map(as_text(index.view()), name);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map) shards.insert(shard);
  std::vector<Bytes> parts;
  TensorTable all;
  std::vector<bool> found(map.size());
  for (const std::string& shard : shards) {
    const std::filesystem::path place = path.parent_path() / std::u8string(shard.begin(), shard.end());
    if (kind_of_path(place, files) == FileStatus::Kind::missing) {
      fail(name, ": the shard ", in_quotes(shard), " is missing; it belongs into the same folder");
    }
    const Bytes& part = parts.emplace_back(read_file(place, options.access, files));
    TensorTable table = read_tensors(part, options.verify_checksums);
    for (const std::string_view tensor : names_of(table.tensors, table.unreadable)) {
      const auto known =
          std::lower_bound(map.begin(), map.end(), tensor,
                           [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
      if (known == map.end() || known->first != tensor) {
        fail(name, ": the shard ", in_quotes(shard), " holds ", in_quotes(tensor), ", which the index does not name");
      }
      if (known->second != shard) {
        fail(name, ": the shard ", in_quotes(shard), " holds ", in_quotes(tensor), ", which the index has in ",
             in_quotes(known->second));
      }
      found[static_cast<std::size_t>(known - map.begin())] = true;
    }
    std::move(table.tensors.begin(), table.tensors.end(), std::back_inserter(all.tensors));
    std::move(table.unreadable.begin(), table.unreadable.end(), std::back_inserter(all.unreadable));
    for (auto& [key, text] : table.metadata) {
      if (all.metadata.size() < max_metadata) all.metadata.emplace(key, std::move(text));
    }
  }
  const auto lost = std::find(found.begin(), found.end(), false);
  if (lost != found.end()) {
    const auto& [tensor, shard] = map[static_cast<std::size_t>(lost - found.begin())];
    fail(name, ": the shard ", in_quotes(shard), " lacks ", in_quotes(tensor), ", which the index has in it");
  }
  Surroundings surroundings;
  surroundings.notes.push_back(join("it has ", shards.size(), shards.size() == 1 ? " shard" : " shards"));
  read_config(path, all, files, surroundings);
  return TensorFile(std::move(parts), path, std::move(all), std::move(surroundings));
}

/// Whether it is an index, and not a file of tensors, which has the length of its header in front.
inline bool is_index(const Bytes& bytes) {
  const std::string_view text = as_text(bytes.view());
  return text.substr(0, 8).find('\0') == std::string_view::npos && kind_of_file(text) == index_kind;
}

}  // namespace detail

RWKV_BODY TensorFile open_tensors(const std::filesystem::path& given, OpenOptions options, FileSystem& files) {
  const bool is_folder = detail::kind_of_path(given, files) == FileStatus::Kind::folder;
  const std::filesystem::path path = is_folder ? detail::model_in(given, files) : given;
  Bytes bytes = read_file(path, options.access, files);
  if (detail::is_index(bytes)) return detail::open_shards(path, bytes, options, files);
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  detail::Surroundings surroundings = detail::with_notes(table);
  if (detail::is_shard(path)) {
    std::string index = detail::index_of_shard(path);
    const std::filesystem::path place = path.parent_path() / std::u8string(index.begin(), index.end());
    if (detail::kind_of_path(place, files) == FileStatus::Kind::regular) surroundings.index = std::move(index);
  }
  detail::read_config(path, table, files, surroundings);
  return TensorFile({std::move(bytes)}, path, std::move(table), std::move(surroundings));
}

RWKV_BODY TensorFile open_tensors(std::span<const std::byte> memory, std::string name, OpenOptions options) {
  std::filesystem::path path(name);
  Bytes bytes(memory, std::move(name));
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  detail::Surroundings surroundings = detail::with_notes(table);
  return TensorFile({std::move(bytes)}, std::move(path), std::move(table), std::move(surroundings));
}

}  // namespace RWKV_ABI
}  // namespace rwkv
