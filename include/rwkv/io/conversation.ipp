#pragma once
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/io/conversation.hpp"
#include "rwkv/io/state_file.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr const char *weights_key = "rwkv.weights", *pending_key = "rwkv.pending";

inline std::string hexadecimal(std::uint64_t word) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, word, 16).ptr;
  const std::string text(digits, end);
  return std::string(sizeof digits - text.size(), '0') + text;
}

RWKV_BODY void write_conversation(const std::filesystem::path& path, const StateLayout& layout,
                                  std::uint64_t fingerprint, std::span<const std::byte> numbers, Index position,
                                  const ConversationParts& parts, const std::map<std::string, std::string>& metadata,
                                  FileSystem& files) {
  BesideState beside;
  beside.texts[weights_key] = hexadecimal(fingerprint);
  if (parts.pending) {
    expects(*parts.pending >= 0 && *parts.pending < layout.sizes.vocab, "rwkv: the pending token ", *parts.pending,
            " is outside the vocabulary of ", layout.sizes.vocab);
    beside.texts[pending_key] = join(*parts.pending);
  }
  for (const auto& [name, list] : parts.sampler) {
    beside.tensors.push_back(
        {join(sampler_prefix, name), DType::f64, {std::ssize(list)}, std::as_bytes(std::span(list))});
  }
  write_state(path, layout, numbers, position, metadata, files, beside);
}

RWKV_BODY SavedConversation read_conversation(const std::filesystem::path& path, const StateLayout& layout,
                                              std::uint64_t fingerprint, FileSystem& files) {
  const TensorFile file = open_tensors(path, {Access::loaded}, files);
  SavedConversation saved{{}, read_state(file, layout), path_text(file.path())};
  const auto weights = file.metadata().find(weights_key);
  expects(weights != file.metadata().end(), saved.name,
          ": this is the state of a sequence alone, and no conversation; load_state reads it");
  const std::string own = hexadecimal(fingerprint);
  expects(weights->second == own, saved.name, ": the conversation belongs to other weights: their fingerprint is ",
          in_quotes(weights->second), ", and that of this model is '", own, "'; load_state takes the state alone");

  if (const auto pending = file.metadata().find(pending_key); pending != file.metadata().end()) {
    const std::string& text = pending->second;
    Token token = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), token);
    expects(error == std::errc() && end == text.data() + text.size() && token >= 0 && token < layout.sizes.vocab,
            saved.name, ": the pending token ", in_quotes(text), " is outside the vocabulary of ", layout.sizes.vocab);
    saved.pending = token;
  }
  for (const TensorView& tensor : file.tensors()) {
    if (!tensor.name.starts_with(sampler_prefix)) continue;
    expects(tensor.dtype == DType::f64, saved.name, ": ", tensor.name, " has ", name_of(tensor.dtype),
            " numbers, not F64");
    std::vector<double>& list = saved.sampler[tensor.name.substr(sampler_prefix.size())];
    list.resize(tensor.bytes.size() / sizeof(double));
    if (!list.empty()) std::memcpy(list.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  return saved;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
