#pragma once
/// The file of a training run: everything that its next steps depend on.
#include <algorithm>
#include <charconv>
#include <deque>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/backend/transfer.hpp"
#include "rwkv/io/checkpoint.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One tensor of the file of a run.
template <class T>
struct RunTensor {
  std::string name;
  std::vector<Index> shape;
  std::span<T> numbers;
};

namespace detail {
/// A checksum of all texts but itself.
inline std::string checksum_of_texts(const std::map<std::string, std::string>& texts) {
  std::string all;
  for (const auto& [key, text] : texts) {
    if (key != "crc32.texts") all += join(key.size(), " ", key, text.size(), " ", text);
  }
  return join(detail::crc32(as_bytes(all)));
}
}  // namespace detail

/// Writes tensors and texts with a checksum of every tensor and one of the texts as .safetensors, in one step: at every
/// moment, a crash included, the path leads to the whole old file or to the whole new one.
template <class T, class B>
void save_run(B& be, const std::filesystem::path& path, std::span<const RunTensor<T>> tensors,
              std::map<std::string, std::string> texts, FileSystem& files) {
  std::deque<OnHost<B, T>> read;
  std::vector<TensorView> views;
  for (const RunTensor<T>& tensor : tensors) {
    const auto numbers = read.emplace_back(be, std::span<const T>(tensor.numbers)).numbers();
    views.push_back({tensor.name, dtype_of<T>(), tensor.shape, std::as_bytes(numbers)});
    texts["crc32"] += join(detail::crc32(views.back().bytes), " ");
  }
  texts["crc32.texts"] = detail::checksum_of_texts(texts);
  save_safetensors(path, views, texts, files);
}

/// A file that save_run wrote, read and compared with the run that is to go on from it.
template <class T>
class RunFile {
 public:
  /// Errors    a file that is damaged or no file of a run, tensors other than `expected`, texts other than `settings`
  RunFile(const std::filesystem::path& path, std::span<const RunTensor<T>> expected,
          const std::map<std::string, std::string>& settings, FileSystem& files)
      : file_(open_tensors(path, {Access::loaded}, files)), name_(detail::path_text(path)) {
    expects(text("crc32") != nullptr && text("step") != nullptr, name_, ": this is no file of a training run");
    expects(text("crc32.texts") != nullptr && *text("crc32.texts") == detail::checksum_of_texts(file_.metadata()),
            name_, ": the file is damaged: its checksum does not agree with its texts");
    for (const auto& [key, wanted] : settings) {
      const std::string was = text(key) == nullptr ? "nothing" : *text(key);
      expects(was == wanted, name_, ": the run in the file has other settings: ", key, " is ", detail::in_quotes(was),
              " there and ", detail::in_quotes(wanted), " here");
    }
    for (const RunTensor<T>& tensor : expected) check(tensor);
    expects(file_.tensors().size() == expected.size(), name_, ": the file holds ", file_.tensors().size(),
            " tensors, the run expects ", expected.size());
    std::string checksums;  // one of every tensor, in the order of the run
    for (const RunTensor<T>& tensor : expected) checksums += join(detail::crc32(file_.find(tensor.name)->bytes), " ");
    expects(*text("crc32") == checksums, name_, ": the file is damaged: its checksums do not agree with its tensors");
  }

  /// The number that a text is.
  Index number(const std::string& key) const {
    Index value = 0;
    const std::string digits = text(key) == nullptr ? std::string() : *text(key);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    expects(error == std::errc() && end == digits.data() + digits.size() && value >= 0, name_, ": '", key,
            "' is no number: ", detail::in_quotes(digits));
    return value;
  }

  /// The texts whose keys start with `prefix`, under what follows it.
  std::map<std::string, std::string> texts_after(std::string_view prefix) const {
    std::map<std::string, std::string> texts;
    for (const auto& [key, value] : file_.metadata()) {
      if (key.starts_with(prefix)) texts[key.substr(prefix.size())] = value;
    }
    return texts;
  }

  /// Copies the numbers of every tensor to where the run keeps them.
  template <class B>
  void copy_to(B& be, std::span<const RunTensor<T>> tensors) const {
    for (const RunTensor<T>& tensor : tensors) {
      const auto bytes = file_.find(tensor.name)->bytes;  // not always aligned
      write_numbers(be, tensor.numbers, [&](std::size_t i) { return detail::element_at<T>(bytes, i); });
    }
  }

 private:
  const std::string* text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    return found == file_.metadata().end() ? nullptr : &found->second;
  }

  void check(const RunTensor<T>& tensor) const {
    const TensorView* found = file_.find(tensor.name);
    expects(found != nullptr, name_, ": ", tensor.name, " is missing from the file");
    expects(std::ranges::equal(found->shape, tensor.shape), name_, ": ", tensor.name, ": file has ",
            std::span(found->shape), ", the run expects ", std::span(tensor.shape));
    expects(found->dtype == dtype_of<T>(), name_, ": ", tensor.name, ": file has ", name_of(found->dtype),
            " numbers, the run computes in ", name_of(dtype_of<T>()));
  }

  TensorFile file_;
  std::string name_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
