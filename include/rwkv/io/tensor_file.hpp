#pragma once
/// Opening a file of tensors, whatever its format.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/pth.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

struct OpenOptions {
  Access access = Access::automatic;
  /// Whether the CRC-32 sums of a .pth are checked, which reads the whole file once. Entries above 1 GB are never
  /// checked.
  bool verify_checksums = true;
};

/// All tensors of one file. The views point into the bytes of the file, which live as long as this object, a copy of it
/// or what keep_alive() returned.
class TensorFile {
 public:
  TensorFile(Bytes bytes, std::filesystem::path path, detail::TensorTable table)
      : bytes_(std::move(bytes)), path_(std::move(path)), tensors_(std::move(table.tensors)),
        metadata_(std::move(table.metadata)), by_name_(detail::order_by_name(tensors_)) {}

  /// In the order of the data in a .safetensors, in the order of the dictionary in a .pth.
  std::span<const TensorView> tensors() const { return tensors_; }

  /// The tensor of that name, or null.
  const TensorView* find(std::string_view name) const {
    const auto found =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
    return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
  }

  template <class F>
  void for_each(F&& f) const {
    for (const TensorView& tensor : tensors_) f(tensor);
  }

  /// The texts under __metadata__ of a .safetensors; none for a .pth.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The path as given, or the name of the memory.
  const std::filesystem::path& path() const { return path_; }

  /// Keeps the bytes in memory; null when the caller of open_tensors owns them.
  std::shared_ptr<const void> keep_alive() const { return bytes_.keep_alive(); }

  bool is_mapped() const { return bytes_.is_mapped(); }

  /// See Bytes::check_unchanged; to be called before each load from a mapped file.
  void check_unchanged() const { bytes_.check_unchanged(); }

 private:
  Bytes bytes_;
  std::filesystem::path path_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::uint32_t> by_name_;
};

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

/// Opens a .safetensors or a .pth; the content decides which, not the name. Nothing in the file is executed. Throws an
/// Error that names the file, and the tensor where one is to blame. `files` must outlive the result.
inline TensorFile open_tensors(const std::filesystem::path& path, OpenOptions options = {},
                               FileSystem& files = system_files()) {
  Bytes bytes = read_file(path, options.access, files);
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  return TensorFile(std::move(bytes), path, std::move(table));
}

/// The same for a file in memory, which must outlive the result; `name` stands for the path.
inline TensorFile open_tensors(std::span<const std::byte> memory, std::string name, OpenOptions options = {}) {
  std::filesystem::path path(name);
  Bytes bytes(memory, std::move(name));
  detail::TensorTable table = detail::read_tensors(bytes, options.verify_checksums);
  return TensorFile(std::move(bytes), std::move(path), std::move(table));
}

static_assert(TensorSource<TensorFile>);

}  // namespace RWKV_ABI
}  // namespace rwkv
