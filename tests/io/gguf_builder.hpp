#pragma once
/// Builds GGUF files in memory, well-formed unless told otherwise.
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "builders.hpp"

namespace build {

inline std::string gguf_text(std::string_view text) { return u64(text.size()) + std::string(text); }

/// Values of metadata, with their types in front.
inline std::string gguf_value(std::string_view text) { return u32(8) + gguf_text(text); }
inline std::string gguf_value(std::uint32_t number) { return u32(4) + u32(number); }
inline std::string gguf_value(float number) { return u32(6) + u32(std::bit_cast<std::uint32_t>(number)); }

struct Gguf {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> sizes;  // the innermost first
    std::uint32_t type = 0;            // F32
    std::string data;
    std::optional<std::uint64_t> offset{};
  };

  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<Tensor> tensors;
  std::uint32_t version = 3;
  std::size_t alignment = 32;
  bool padded = true;  // behind the last tensor
  std::optional<std::uint64_t> tensor_count{}, key_count{};

  std::string file() const {
    std::string out =
        "GGUF" + u32(version) + u64(tensor_count.value_or(tensors.size())) + u64(key_count.value_or(metadata.size()));
    const auto pad = [&](std::string& text) { text.resize((text.size() + alignment - 1) / alignment * alignment); };
    for (const auto& [key, value] : metadata) out += gguf_text(key) + value;
    std::string data;
    for (const Tensor& tensor : tensors) {
      pad(data);
      out += gguf_text(tensor.name) + u32(tensor.sizes.size());
      for (const std::uint64_t size : tensor.sizes) out += u64(size);
      out += u32(tensor.type) + u64(tensor.offset.value_or(data.size()));
      data += tensor.data;
    }
    if (padded) pad(data);
    pad(out);
    return out + data;
  }
};

}  // namespace build
