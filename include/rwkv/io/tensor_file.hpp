#pragma once
/// Opening a file of tensors, whatever its format.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a file of tensors is opened.
struct OpenOptions {
  Access access = Access::automatic;  ///< copied into memory, or mapped
  /// Whether the CRC-32 sums of a .pth are checked, which reads the whole file once. Entries above 1 GB are never
  /// checked, and neither is a file that was saved without sums.
  bool verify_checksums = true;
};

namespace detail {
/// What lies beside a file of tensors, and what was done to open it.
struct Surroundings {
  std::map<std::string, double, std::less<>> config;  ///< the numbers of config.json, read if the names call for it
  std::string index;                                  ///< the name of the index, if the file is one of its shards
  std::vector<std::string> notes;                     ///< one sentence for what was done
};
}  // namespace detail

/// All tensors of one file, or of the shards of one index. The views point into the bytes of the files, which live as
/// long as this object, a copy of it or what keep_alive() returned.
class TensorFile {
 public:
  /// What the readers of formats make; others call open_tensors.
  TensorFile(std::vector<Bytes> parts, std::filesystem::path path, detail::TensorTable table,
             detail::Surroundings surroundings = {});

  /// In the order of the data in a .safetensors or .gguf, in the order of the dictionary in a .pth, shard by shard.
  std::span<const TensorView> tensors() const { return tensors_; }

  /// What the file holds besides: tensors of foreign number types, classes and layouts, by name.
  std::span<const UnreadableTensor> unreadable() const { return unreadable_; }

  /// The tensor of that name, or null. Errors: the tensor is one of the unreadable.
  const TensorView* find(std::string_view name) const;

  /// The unreadable tensor of that name, or null.
  const UnreadableTensor* find_unreadable(std::string_view name) const;

  /// Calls f(TensorView) for every tensor, in the order of tensors().
  template <class F>
  void for_each(F&& f) const {
    for (const TensorView& tensor : tensors_) f(tensor);
  }

  /// The texts under __metadata__ of a .safetensors, or the metadata of a .gguf that are no arrays, as texts; but for odd
  /// keys and what is beyond 1000. None for a .pth.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The path as given, or the name of the memory.
  const std::filesystem::path& path() const { return path_; }

  /// Keeps the bytes in memory; null when the caller of open_tensors owns them.
  std::shared_ptr<const void> keep_alive() const { return keep_alive_; }

  /// Whether any of the bytes are.
  bool is_mapped() const;

  /// See Bytes::check_unchanged; to be called before each load from a mapped file.
  void check_unchanged() const;

  /// The numbers of a model in the config.json beside a file whose names are not official; empty if there is none.
  const std::map<std::string, double, std::less<>>& config() const { return surroundings_.config; }
  /// The name of the index beside a file that is a shard of it; empty for all others.
  const std::string& index_beside() const { return surroundings_.index; }
  /// What was done to open it, one sentence each, such as that it has several shards.
  std::span<const std::string> notes() const { return surroundings_.notes; }

 private:
  std::vector<Bytes> parts_;
  std::shared_ptr<const void> keep_alive_;
  detail::Surroundings surroundings_;
  std::filesystem::path path_;
  std::vector<TensorView> tensors_;
  std::vector<UnreadableTensor> unreadable_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::uint32_t> by_name_;
};

/// Opens a .safetensors, a .pth or a .gguf; the content decides which, not the name. Nothing in the file is executed. Also
/// opens an index such as model.safetensors.index.json with all its shards, and a folder that holds an index or else a
/// model.safetensors. Throws an Error that names the file, and the tensor where one is to blame; for a file of another kind
/// the Error says which, and what to do. `files` must outlive the result.
TensorFile open_tensors(const std::filesystem::path& path, OpenOptions options = {},
                        FileSystem& files = system_files());

/// The same for a file in memory, which must outlive the result; `name` stands for the path.
TensorFile open_tensors(std::span<const std::byte> memory, std::string name, OpenOptions options = {});

static_assert(TensorSource<TensorFile>);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/tensor_file.ipp"
#endif
