#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/io/pickle.hpp"
#include "rwkv/io/pth.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/io/zip.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// True when the elements lie row-major without gaps; the strides of dimensions of size 1 mean nothing.
inline bool is_row_major(std::span<const Index> shape, std::span<const Index> strides) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return true;
  Checked expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && !expected.equals(static_cast<std::uint64_t>(strides[i]))) return false;
    expected = expected * shape[i];
  }
  return true;
}

/// Refuses archives of other programs in words of their own.
inline void check_archive_kind(std::span<const std::string_view> names, std::string_view file) {
  struct Kind {
    std::string_view name;  // what one of the entries ends with
    std::string_view sentence;
  };
  static constexpr std::string_view packed = "an archive with a model inside; unpack it";
  static constexpr std::array<Kind, 12> kinds{
      {{"/constants.pkl",
        "a TorchScript archive of torch.jit.save; save the state dict: torch.save(m.state_dict(), path)"},
       {"/archive_format", "a program of torch.export; save the state dict: torch.save(m.state_dict(), path)"},
       {"data.pkl", ""},
       {".npy", "a NumPy archive; save the tensors with torch.save or as .safetensors"},
       {"[Content_Types].xml", "an office document"},
       {"AndroidManifest.xml", "an Android package"},
       {"META-INF/MANIFEST.MF", "a Java archive"},
       {".safetensors", packed},
       {".pth", packed},
       {".bin", packed},
       {".pt", packed},
       {".ckpt", packed}}};
  for (const Kind& kind : kinds) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&](std::string_view name) { return name.ends_with(kind.name); });
    if (found == names.end()) continue;
    if (kind.sentence.empty()) return;
    fail(file, ": this zip archive is no file of torch.save but ", kind.sentence, " (it holds ", in_quotes(*found),
         ")");
  }
  if (!names.empty()) {
    fail(file, ": this zip archive is no file of torch.save: it has no data.pkl (it holds ", in_quotes(names[0]), ")");
  }
}

/// The entries of one .pth archive by their path inside the root folder.
class PthArchive {
 public:
  PthArchive(std::span<const std::byte> bytes, std::string_view file, bool verify_checksums) {
    check_archive_kind(ZipReader(bytes, file, false).names(), file);
    const std::vector<ZipEntry> entries = ZipReader(bytes, file, verify_checksums).read();
    expects(!entries.empty(), file, ": the zip archive is empty");
    const std::string_view root = entries[0].name.substr(0, entries[0].name.find('/'));
    if (root == entries[0].name) {
      fail(file, ": the zip archive lacks the folder that torch.save puts around all entries (it holds ",
           in_quotes(root), " outside of any)");
    }
    for (const ZipEntry& entry : entries) {
      const bool inside = entry.name.starts_with(root) && entry.name.substr(root.size()).starts_with('/');
      if (!inside)
        fail(file, ": the zip entry ", in_quotes(entry.name), " lies outside of the folder ", in_quotes(root));
      entries_.emplace(entry.name.substr(root.size() + 1), entry.data);
    }
  }

  /// Null when there is no such entry.
  const std::span<const std::byte>* find(std::string_view path) const {
    const auto found = entries_.find(path);
    return found == entries_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::string_view, std::span<const std::byte>> entries_;
};

/// The bytes of the storages. Several tensors may share one; they must describe it alike.
class PthStorages {
 public:
  PthStorages(const PthArchive& archive, std::string_view file) : archive_(archive), file_(file) {}

  std::span<const std::byte> find(const PickledTensor& tensor) {
    const auto [known, is_new] = known_.try_emplace(tensor.storage, tensor.dtype, tensor.storage_size);
    if (known->second != std::pair(tensor.dtype, tensor.storage_size)) refuse(tensor, "is described in two ways");
    const std::span<const std::byte>* bytes = archive_.find("data/" + std::string(tensor.storage));
    if (bytes == nullptr) refuse(tensor, "is not in the archive");
    if (!(Checked(tensor.storage_size) * size_of(tensor.dtype)).equals(bytes->size())) {
      refuse(tensor,
             join("has ", bytes->size(), " bytes, which is not ", tensor.storage_size, " x ", name_of(tensor.dtype)));
    }
    return *bytes;
  }

 private:
  [[noreturn]] void refuse(const PickledTensor& tensor, std::string_view what) const {
    fail(file_, ": tensor ", in_quotes(tensor.name), ": its storage ", in_quotes(tensor.storage), " ", what);
  }

  const PthArchive& archive_;
  std::string_view file_;
  std::map<std::string_view, std::pair<DType, std::uint64_t>> known_;
};

RWKV_BODY TensorTable read_pth(std::span<const std::byte> bytes, std::string_view file, bool verify_checksums) {
  Reporting reporting(Phase::load, std::ssize(bytes));
  const PthArchive archive(bytes, file, verify_checksums);
  reporting.finish();
  const std::span<const std::byte>* order = archive.find("byteorder");
  expects(order == nullptr || as_text(*order) == "little", file, ": the tensors are not little-endian");
  const std::span<const std::byte>* pickle = archive.find("data.pkl");
  expects(pickle != nullptr, file, ": the zip archive has no data.pkl in its folder, so it is no PyTorch file");

  TensorTable table;
  PthStorages storages(archive, file);
  Checked total = 0;
  StateDictPickle program(*pickle, file);
  std::vector<PickledTensor> tensors = program.read();
  table.entry = program.entry();
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const PickledTensor& tensor : tensors) names.push_back(tensor.name);
  check_names_differ(std::move(names), file);
  for (PickledTensor& tensor : tensors) {
    const auto too_large = [&] {
      fail(file, ": tensor ", in_quotes(tensor.name), ": the shape ", std::span(tensor.shape), " is too large");
    };
    if (!tensor.unreadable.empty()) {
      if (!is_possible(tensor.shape)) too_large();
      auto& listed = table.unreadable.emplace_back(
          UnreadableTensor{std::string(tensor.name), std::nullopt, std::move(tensor.unreadable)});
      if (tensor.has_shape) listed.shape = std::move(tensor.shape);
      continue;
    }
    const std::span<const Index> shape = tensor.shape;
    const std::span<const Index> strides = tensor.strides;
    const Checked size = count_bytes(shape, tensor.dtype);
    const std::span<const std::byte> storage = storages.find(tensor);
    if (!size.valid()) too_large();
    if (!is_row_major(shape, strides)) {
      std::string reason = join("its strides ", strides, " are not row-major; call contiguous() on it before saving");
      table.unreadable.push_back({std::string(tensor.name), std::move(tensor.shape), std::move(reason)});
      continue;
    }
    const Checked begin = Checked(tensor.offset) * size_of(tensor.dtype);
    if (!(begin + size).at_most(storage.size())) {
      fail(file, ": tensor ", in_quotes(tensor.name), " of shape ", shape, " at element ", tensor.offset,
           " reaches past its storage of ", tensor.storage_size, " elements");
    }
    // Tensors may overlap, as tied weights do, but not without end: what they hold is copied and converted one by one.
    if (!(total + size).at_most(2 * std::uint64_t{bytes.size()})) {
      table.unreadable.push_back({std::string(tensor.name), std::move(tensor.shape),
                                  "with the tensors before it, which share their storages, it describes more than "
                                  "twice the file; save it as a clone(), or remove it"});
      continue;
    }
    total = total + size;
    table.tensors.push_back(
        {std::string(tensor.name), tensor.dtype, std::move(tensor.shape), slice(storage, begin, size, file)});
  }
  return table;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
