#pragma once
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "rwkv/core/error.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/crc32.hpp"
#include "rwkv/train/run_file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A checksum of all texts but itself.
inline std::string checksum_of_texts(const std::map<std::string, std::string>& texts) {
  std::string all;
  for (const auto& [key, text] : texts) {
    if (key != "crc32.texts") all += join(key.size(), " ", key, text.size(), " ", text);
  }
  return join(crc32(as_bytes(all)));
}

/// What to do about other settings.
inline constexpr std::string_view go_on =
    "; a run goes on with the settings it began with. To train further, or otherwise, begin a new run from its model";

RWKV_BODY void save_run(const std::filesystem::path& path, std::span<const TensorView> tensors,
                        std::map<std::string, std::string> texts, FileSystem& files) {
  for (const TensorView& tensor : tensors) texts["crc32"] += join(crc32(tensor.bytes), " ");
  texts["crc32.texts"] = checksum_of_texts(texts);
  save_safetensors(path, tensors, texts, files);
}

RWKV_BODY void remove_abandoned_beside(const std::filesystem::path& path, FileSystem& files) {
  std::filesystem::path real;
  if (!files.resolve(path, real)) files.remove_abandoned(folder_of(real));
}

RWKV_BODY OpenRun::OpenRun(const std::filesystem::path& path, std::span<const TensorView> expected,
                           const std::map<std::string, std::string>& settings, FileSystem& files)
    : file_(open_tensors(path, {Access::loaded}, files)), name_(path_text(path)) {
  expects(text("crc32") != nullptr && text("step") != nullptr, name_, ": this is no file of a training run");
  expects(text("crc32.texts") != nullptr && *text("crc32.texts") == checksum_of_texts(file_.metadata()), name_,
          ": the file is damaged: its checksum does not agree with its texts");
  for (const auto& [key, wanted] : settings) {
    const std::string was = text(key) == nullptr ? "nothing" : *text(key);
    expects(was == wanted, name_, ": the run in the file has other settings: ", key, " is ", in_quotes(was),
            " there and ", in_quotes(wanted), " here", go_on);
  }
  for (const TensorView& tensor : expected) check(tensor);
  expects(file_.tensors().size() == expected.size(), name_, ": the file holds ", file_.tensors().size(),
          " tensors, the run expects ", expected.size());
  std::string checksums;  // one of every tensor, in the order of the run
  for (const TensorView& tensor : expected) checksums += join(crc32(file_.find(tensor.name)->bytes), " ");
  expects(*text("crc32") == checksums, name_, ": the file is damaged: its checksums do not agree with its tensors");
}

RWKV_BODY Index OpenRun::number(const std::string& key) const {
  Index value = 0;
  const std::string digits = text(key) == nullptr ? std::string() : *text(key);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  expects(error == std::errc() && end == digits.data() + digits.size() && value >= 0, name_, ": '", key,
          "' is no number: ", in_quotes(digits));
  return value;
}

RWKV_BODY std::map<std::string, std::string> OpenRun::texts_after(std::string_view prefix) const {
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : file_.metadata()) {
    if (key.starts_with(prefix)) texts[key.substr(prefix.size())] = value;
  }
  return texts;
}

RWKV_BODY const std::string* OpenRun::text(const std::string& key) const {
  const auto found = file_.metadata().find(key);
  return found == file_.metadata().end() ? nullptr : &found->second;
}

RWKV_BODY void OpenRun::check(const TensorView& tensor) const {
  const TensorView* found = file_.find(tensor.name);
  expects(found != nullptr, name_, ": ", tensor.name, " is missing from the file");
  expects(same_sizes(found->shape, tensor.shape), name_, ": ", tensor.name, ": file has ", std::span(found->shape),
          ", the run expects ", std::span(tensor.shape));
  expects(found->dtype == tensor.dtype, name_, ": ", tensor.name, ": file has ", name_of(found->dtype),
          " numbers, the run computes in ", name_of(tensor.dtype));
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
