#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

RWKV_BODY const std::vector<Index>* shape_of(const TensorFile& file, std::string_view name) {
  if (const UnreadableTensor* tensor = file.find_unreadable(name)) return tensor->shape ? &*tensor->shape : nullptr;
  const TensorView* tensor = file.find(name);
  return tensor == nullptr ? nullptr : &tensor->shape;
}

inline bool lists(const TensorFile& file, std::string_view name) {
  return file.find_unreadable(name) != nullptr || file.find(name) != nullptr;
}

/// Calls f with the names of all tensors, readable or not.
template <class F>
void for_each_name(const TensorFile& file, const F& f) {
  for (const TensorView& tensor : file.tensors()) f(std::string_view(tensor.name));
  for (const UnreadableTensor& tensor : file.unreadable()) f(std::string_view(tensor.name));
}

}  // namespace detail

RWKV_BODY std::string_view version_named_by(const TensorFile& file) {
  const auto has = [&](std::string_view name) { return detail::lists(file, name); };
  if (has("blocks.0.att.r_k")) return "RWKV-7";
  if (has("blocks.0.att.time_maa_x")) return "RWKV-6";
  if (!has("blocks.0.att.time_decay")) return {};
  if (!has("blocks.0.att.ln_x.weight")) return "RWKV-4";
  if (!has("blocks.0.att.gate.weight")) return "RWKV-5.0";
  const std::vector<Index>* decay = detail::shape_of(file, "blocks.0.att.time_decay");
  return decay != nullptr && decay->size() > 1 ? "RWKV-5.2" : "RWKV-5.1";
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

/// What stands before the official part of a name; empty for official names, absent for names without such a part.
inline std::optional<std::string_view> prefix_of(std::string_view name) {
  for (std::size_t begin = 0;;) {
    const std::string_view rest = name.substr(begin);
    if (rest == "emb.weight" || rest == "head.weight" || block_number(rest)) return name.substr(0, begin);
    const std::size_t dot = rest.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    begin += dot + 1;
  }
}

/// Whether the name of the file is that of a part, such as model-00001-of-00002.safetensors.
inline bool is_shard(const std::filesystem::path& path) {
  const std::string name = path_text(path.filename());
  const std::size_t of = name.find("-of-");
  const auto digit_at = [&](std::size_t i) { return i < name.size() && '0' <= name[i] && name[i] <= '9'; };
  return of != std::string::npos && of > 0 && digit_at(of - 1) && digit_at(of + 4);
}

RWKV_BODY std::string kind_by_names(const TensorFile& file) {
  struct Rule {
    std::string_view part;  // of a name
    std::string_view kind;
  };
  static constexpr std::string_view adapter =
      "this holds an adapter; merge it into the model that it was made for, and save that whole";
  static constexpr std::string_view fla =
      "the names are those of flash-linear-attention; use the original .pth, or convert it back to official names";
  static constexpr std::string_view hugging_face =
      "the names are those of a Hugging Face model; if it is an RWKV, use the original .pth, or convert it back to "
      "official names";
  static constexpr std::string_view state =
      "this holds an initial state, not a model; merge it into the model that it was made for, and save that whole";
  static constexpr std::string_view run = "this is the run file of a training; use the model beside it";
  // A name may have parts of several, so the first rule that any name fits decides. Those behind the adapters are only
  // for files without official names.
  static constexpr std::size_t adapters = 8;
  static constexpr std::array<Rule, 20> rules{{{".adamw_m", run},
                                               {".adamw_v", run},
                                               {"base_model.model.", adapter},
                                               {"lora_A", adapter},
                                               {"lora_B", adapter},
                                               {".bone", adapter},
                                               {".miss", adapter},
                                               {".disha", adapter},
                                               {".time_state", state},
                                               {".attn.r_proj.", fla},
                                               {".attn.x_", fla},
                                               {"_lora.lora.", fla},
                                               {".linear_attn.", hugging_face},
                                               {".attention.", hugging_face},
                                               {".feed_forward.", hugging_face},
                                               {".pre_ln.", hugging_face},
                                               {"embeddings.weight", hugging_face},
                                               {"embed_tokens.weight", hugging_face},
                                               {"lm_head.weight", hugging_face},
                                               {"model.layers.", hugging_face}}};
  const auto fits = [](std::string_view name, std::string_view part) {
    const std::size_t at = name.find(part);
    if (at == std::string_view::npos) return false;
    const std::string_view rest = name.substr(at + part.size());
    return rest.empty() || rest[0] == '.' || part.ends_with('.') || part.ends_with('_');
  };
  if (file.metadata().contains("crc32.texts")) return std::string(run);  // which nothing but a run file has
  const bool official = lists(file, "emb.weight");
  const std::size_t used = official ? adapters : rules.size();
  std::size_t first = used;
  std::string_view example, prefix;
  bool has_official = false;
  for_each_name(file, [&](std::string_view name) {
    for (std::size_t i = 0; i < first; ++i) {
      if (!fits(name, rules[i].part)) continue;
      first = i;
      example = name;
    }
    const auto before = prefix_of(name);
    if (before && before->empty()) has_official = true;
    if (before && prefix.empty()) prefix = *before;
  });
  if (first < used) return join(rules[first].kind, " (it holds ", in_quotes(example), ")");
  if (!prefix.empty() && !has_official) {
    return join("the names carry the prefix ", in_quotes(prefix),
                prefix.find("_orig_mod.") != std::string_view::npos ? " of torch.compile"
                : prefix.find("module.") != std::string_view::npos  ? " of a wrapper for parallel training"
                                                                    : "",
                "; save the tensors under their names without it");
  }
  if (is_shard(file.path())) return "this is one shard of several; join the shards into one file, and use that";
  static constexpr std::array<std::string_view, 3> parts{"emb.weight", "blocks.0.ln1.weight", "head.weight"};
  const auto there = std::ranges::count_if(parts, [&](auto name) { return lists(file, name); });
  const auto shared =
      std::ranges::count_if(parts, [&](auto name) { return file.metadata().contains(std::string(name)); });
  if (has_official && there + shared < std::ssize(parts)) {
    return "this is a part of a model; if it is one shard of several, join them into one file";
  }
  return {};
}

RWKV_BODY std::string why_missing(const TensorFile& file, std::string_view name) {
  const auto tied = file.metadata().find(std::string(name));
  if (tied == file.metadata().end()) return "missing from the file";
  return join("missing from the file, whose metadata say that it is the same as ", in_quotes(tied->second),
              "; save it without sharing, as a clone()");
}

}  // namespace detail

RWKV_BODY ModelSizes sizes_of_model(const TensorFile& file) {
  const std::string name = detail::path_text(file.path());
  const auto expects_part = [&](bool holds, std::string_view part) {
    if (holds) return;
    const std::string kind = detail::kind_by_names(file);
    fail(name, ": this is no RWKV checkpoint: it holds no tensor ", part,
         file.metadata().contains("emb.weight") ? join(" (emb.weight: ", detail::why_missing(file, "emb.weight"), ")")
                                                : "",
         kind.empty() ? "" : "; ", kind);
  };
  expects_part(detail::lists(file, "emb.weight"), "emb.weight");
  const std::vector<Index>* embedding = detail::shape_of(file, "emb.weight");
  if (embedding == nullptr) static_cast<void>(file.find("emb.weight"));  // says why it cannot be read
  const std::span<const Index> shape = *embedding;
  expects(shape.size() == 2, name, ": emb.weight has shape ", shape, ", a checkpoint has [vocab, width]");
  ModelSizes sizes{.vocab = shape[0], .width = shape[1]};
  expects(sizes.vocab > 0 && sizes.width > 0, name, ": emb.weight is empty, with shape ", shape);
  // Far above every model, and low enough that no product of sizes overflows, whatever an unreadable tensor claims.
  constexpr Index largest = Index{1} << 20;
  const auto check_size = [&](Index size, std::string_view what) {
    expects(0 < size && size <= largest, name, ": ", what, " of ", size, " is not between 1 and ", largest);
  };
  check_size(sizes.vocab, "a vocabulary");
  check_size(sizes.width, "a width");

  // The two norms of a layer alone have four tensors: a large number in a small file is no depth.
  constexpr Index fewest_per_layer = 4;
  const Index count = std::ssize(file.tensors()) + std::ssize(file.unreadable());
  detail::for_each_name(file, [&](std::string_view tensor) {
    const auto number = detail::block_number(tensor);
    if (!number) return;
    if (*number >= count / fewest_per_layer) {
      const std::string kind = detail::kind_by_names(file);
      fail(name, ": ", detail::in_quotes(tensor), " cannot be right in a file of ", count, " tensors",
           kind.empty() ? "" : "; ", kind);
    }
    sizes.depth = std::max(sizes.depth, *number + 1);
  });
  expects_part(sizes.depth > 0, "blocks.0.…");

  const std::vector<Index>* key = detail::shape_of(file, "blocks.0.ffn.key.weight");
  if (key != nullptr && key->size() == 2) check_size(sizes.ffn = (*key)[0], "an ffn");
  // [heads, head size]: a bonus of the current token, in RWKV-7 or in 5 and 6; in RWKV-5.2 the decay as well.
  for (const char* tensor : {"r_k", "time_faaaa", "time_decay"}) {
    const std::vector<Index>* heads = detail::shape_of(file, join("blocks.0.att.", tensor));
    if (heads == nullptr || heads->empty() || heads->size() > 2) continue;
    const bool per_head = heads->size() == 1;  // RWKV-5.0 and 5.1: a number for each head
    if (per_head && !detail::lists(file, "blocks.0.att.ln_x.weight")) continue;  // RWKV-4 has one for each channel
    check_size(sizes.head_size = per_head ? sizes.width / std::max<Index>(1, (*heads)[0]) : (*heads)[1], "a head size");
    expects(sizes.width % sizes.head_size == 0, name, ": a width of ", sizes.width, " does not divide into heads of ",
            sizes.head_size);
    break;
  }
  return sizes;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
