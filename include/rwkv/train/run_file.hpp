#pragma once
/// The file of a training run: everything that its next steps depend on.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/backend/transfer.hpp"
#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/io/tensor_file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One tensor of the file of a run. Where several ranks hold it, `numbers` are those of one of them.
template <class T>
struct RunTensor {
  std::string name;          ///< in the file
  std::vector<Index> shape;  ///< in the file
  std::span<T> numbers;      ///< where they are read from and go to
  Index first = 0;           ///< position of numbers[0] in the tensor
};

namespace detail {

/// Writes tensors and texts with their checksums; see save_run below.
void save_run(const std::filesystem::path& path, std::span<const TensorView> tensors,
              std::map<std::string, std::string> texts, FileSystem& files);

/// Removes what a save that was killed left beside a file.
void remove_abandoned_beside(const std::filesystem::path& path, FileSystem& files);

/// What of a RunFile does not depend on the type of its numbers.
class OpenRun {
 public:
  /// Only names, types and shapes of the expected tensors count.
  OpenRun(const std::filesystem::path& path, std::span<const TensorView> expected,
          const std::map<std::string, std::string>& settings, FileSystem& files);

  /// The number that a text is.
  Index number(const std::string& key) const;

  /// A checksum of the whole file.
  std::uint64_t fingerprint() const { return static_cast<std::uint64_t>(number("crc32.texts")); }

  /// The texts whose keys start with `prefix`, under what follows it.
  std::map<std::string, std::string> texts_after(std::string_view prefix) const;

 protected:
  const TensorFile& file() const { return file_; }

 private:
  const std::string* text(const std::string& key) const;
  void check(const TensorView& tensor) const;

  TensorFile file_;
  std::string name_;
};

}  // namespace detail

/// Writes tensors and texts as .safetensors, with a checksum of every tensor and one of all texts. The file is replaced
/// atomically: at every moment, even after a crash, the path leads to the whole old file or to the whole new one.
template <class T, class B>
void save_run(B& be, const std::filesystem::path& path, std::span<const RunTensor<T>> tensors,
              std::map<std::string, std::string> texts, FileSystem& files) {
  std::deque<OnHost<B, T>> read;
  std::vector<TensorView> views;
  for (const RunTensor<T>& tensor : tensors) {
    const auto numbers = read.emplace_back(be, std::span<const T>(tensor.numbers)).numbers();
    views.push_back({tensor.name, dtype_of<T>(), tensor.shape, std::as_bytes(numbers)});
  }
  detail::save_run(path, views, std::move(texts), files);
}

/// A file of save_run, read and compared with the run that resumes from it.
template <class T>
class RunFile : public detail::OpenRun {
 public:
  /// Errors    a file that is damaged or no file of a run, tensors other than `expected`, texts other than `settings`
  RunFile(const std::filesystem::path& path, std::span<const RunTensor<T>> expected,
          const std::map<std::string, std::string>& settings, FileSystem& files)
      : OpenRun(path, descriptions(expected), settings, files) {}

  /// Copies the numbers of every tensor from the file into the memory of the run.
  template <class B>
  void copy_to(B& be, std::span<const RunTensor<T>> tensors) const {
    for (const RunTensor<T>& tensor : tensors) {
      const auto bytes = file().find(tensor.name)->bytes;  // not always aligned
      const auto first = static_cast<std::size_t>(tensor.first);
      write_numbers(be, tensor.numbers, [&](std::size_t i) { return detail::element_at<T>(bytes, first + i); });
    }
  }

 private:
  static std::vector<TensorView> descriptions(std::span<const RunTensor<T>> tensors) {
    std::vector<TensorView> all;
    for (const RunTensor<T>& tensor : tensors) all.push_back({tensor.name, dtype_of<T>(), tensor.shape, {}});
    return all;
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/train/run_file.ipp"
#endif
