#pragma once
#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <string>

#include "rwkv/core/error.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY std::string_view version_named_by(const TensorFile& file) {
  const auto has = [&](std::string_view name) { return file.find(name) != nullptr; };
  const TensorView* decay = file.find("blocks.0.att.time_decay");
  if (has("blocks.0.att.r_k")) return "RWKV-7";
  if (has("blocks.0.att.time_maa_x")) return "RWKV-6";
  if (decay == nullptr) return {};
  if (!has("blocks.0.att.ln_x.weight")) return "RWKV-4";
  if (!has("blocks.0.att.gate.weight")) return "RWKV-5.0";
  return decay->shape.size() > 1 ? "RWKV-5.2" : "RWKV-5.1";
}

namespace detail {

/// The N of a name `blocks.N.…`.
inline std::optional<Index> block_number(std::string_view name) {
  constexpr std::string_view prefix = "blocks.";
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  Index number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || number < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return number;
}

}  // namespace detail

RWKV_BODY ModelSizes sizes_of_model(const TensorFile& file) {
  const std::string name = detail::path_text(file.path());
  const TensorView* embedding = file.find("emb.weight");
  expects(embedding != nullptr, name, ": this is no RWKV checkpoint: it holds no tensor emb.weight");
  expects(embedding->shape.size() == 2, name, ": emb.weight has shape ", std::span(embedding->shape),
          ", a checkpoint has [vocab, width]");
  ModelSizes sizes{.vocab = embedding->shape[0], .width = embedding->shape[1]};
  expects(sizes.vocab > 0 && sizes.width > 0, name, ": emb.weight is empty, with shape ", std::span(embedding->shape));

  // The two norms of a layer alone have four tensors: a large number in a small file is no depth.
  constexpr Index fewest_per_layer = 4;
  const Index deepest = std::ssize(file.tensors()) / fewest_per_layer;
  file.for_each([&](const TensorView& tensor) {
    const auto number = detail::block_number(tensor.name);
    if (!number) return;
    expects(*number < deepest, name, ": ", detail::in_quotes(tensor.name), " cannot be right in a file of ",
            file.tensors().size(), " tensors");
    sizes.depth = std::max(sizes.depth, *number + 1);
  });
  expects(sizes.depth > 0, name, ": this is no RWKV checkpoint: it holds no tensor blocks.0.…");

  if (const TensorView* key = file.find("blocks.0.ffn.key.weight"); key != nullptr && key->shape.size() == 2) {
    sizes.ffn = key->shape[0];
  }
  if (const TensorView* heads = file.find("blocks.0.att.r_k"); heads != nullptr && heads->shape.size() == 2) {
    sizes.head_size = heads->shape[1];
  }
  return sizes;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
