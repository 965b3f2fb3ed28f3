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

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY TensorFile::TensorFile(Bytes bytes, std::filesystem::path path, detail::TensorTable table)
    : bytes_(std::move(bytes)), path_(std::move(path)), tensors_(std::move(table.tensors)),
      metadata_(std::move(table.metadata)), by_name_(detail::order_by_name(tensors_)) {}

RWKV_BODY const TensorView* TensorFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
}

namespace detail {

inline TensorTable read_tensors(const Bytes& bytes, bool verify_checksums) {
  static_assert(std::endian::native == std::endian::little,
                "rwkv: tensor files are read on little-endian machines only");
  const std::string& file = bytes.name();
  const std::string_view text = as_text(bytes.view());
  expects(!text.starts_with("GGUF"), file, ": this is a GGUF file; only .safetensors and .pth are read");
  expects(!text.starts_with("\x80\x02\x8a\x0a"), file,
          ": this is a .pth in the format before PyTorch 1.6; load and save it with a newer PyTorch");
  // A safetensors file whose header happens to have 0x04034b50 bytes starts like a zip, but goes on with the JSON.
  const bool is_zip = text.starts_with("PK\x03\x04") && !text.substr(4).starts_with(std::string_view("\0\0\0\0{", 5));
  return is_zip ? read_pth(bytes.view(), file, verify_checksums) : read_safetensors(bytes.view(), file);
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
