#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "rwkv/core/error.hpp"
#include "rwkv/io/pth.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file_kind.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY TensorFile::TensorFile(Bytes bytes, std::filesystem::path path, detail::TensorTable table)
    : bytes_(std::move(bytes)), path_(std::move(path)), tensors_(std::move(table.tensors)),
      unreadable_(std::move(table.unreadable)), metadata_(std::move(table.metadata)),
      by_name_(detail::order_by_name(tensors_)) {
  std::ranges::sort(unreadable_, {}, &UnreadableTensor::name);
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
  const auto found =
      std::ranges::lower_bound(unreadable_, name, {}, [](const auto& t) -> std::string_view { return t.name; });
  return found != unreadable_.end() && found->name == name ? &*found : nullptr;
}

namespace detail {

/// Whether this start of a file is UTF-8, up to a last character that may be cut, without control characters.
inline bool is_plain_text(std::string_view start) {
  const auto is_control = [](unsigned char c) { return (c < ' ' && (c < '\t' || c > '\r')) || c == 0x7f; };
  if (std::ranges::any_of(start, is_control)) return false;
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
  const std::string_view kind = kind_of_file(text);
  if (!kind.empty()) fail(file, ": only .safetensors and .pth are read, and this is ", kind);
  if (is_plain_text(text.substr(0, 256))) fail(file, ": this is ", kind_of_text(text));
  return read_safetensors(bytes.view(), file);
}

}  // namespace detail

RWKV_BODY TensorFile open_tensors(const std::filesystem::path& path, OpenOptions options, FileSystem& files) {
  Bytes bytes = read_file(path, options.access, files);
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  return TensorFile(std::move(bytes), path, std::move(table));
}

RWKV_BODY TensorFile open_tensors(std::span<const std::byte> memory, std::string name, OpenOptions options) {
  std::filesystem::path path(name);
  Bytes bytes(memory, std::move(name));
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  return TensorFile(std::move(bytes), std::move(path), std::move(table));
}

}  // namespace RWKV_ABI
}  // namespace rwkv
