#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/io/shards.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

RWKV_BODY const OfficialVersion* version_named_by(const OfficialNames& names) {
  const auto has = [&](const LayerTensor& mark) {
    if (mark.name.empty()) return true;
    const std::string name = join("blocks.0.", mark.name);
    if (mark.rank == 0) return names.find(name) != nullptr;
    const std::vector<Index>* shape = names.shape_of(name);
    return shape != nullptr && shape->size() >= mark.rank;
  };
  for (const OfficialVersion* version : official_versions) {
    if (std::all_of(version->marks.begin(), version->marks.end(), has)) return version;
  }
  return nullptr;
}

namespace detail {

/// What the metadata say that a tensor shares its numbers with, by the names of the file; null if they say nothing.
inline const std::string* tied_to(const OfficialNames& names, std::string_view name) {
  for (const auto& [tensor, same] : names.file().metadata()) {
    if (names.official(tensor) == name) return &same;
  }
  return nullptr;
}

RWKV_BODY std::string kind_by_names(const OfficialNames& names) {
  const TensorFile& file = names.file();
  struct Rule {
    std::string_view part;  // of a name
    std::string_view kind;
  };
  static constexpr std::string_view adapter =
      "this holds an adapter; load_adapter() reads it for the model that it was made for";
  static constexpr std::string_view fla =
      "the names are those of flash-linear-attention; use the original .pth, or convert it back to official names";
  static constexpr std::string_view hugging_face =
      "the names are those of a Hugging Face model; if it is an RWKV, use the original .pth, or convert it back to "
      "official names";
  static constexpr std::string_view state =
      "this holds an initial state, not a model; load_initial_state() reads it for the model that it was made for";
  static constexpr std::string_view run = "this is the run file of a training; use the model beside it";
  // A name may have parts of several, so the first rule that any name fits decides.
  static constexpr std::array<Rule, 23> rules{{{".adamw_m", run},
                                               {".adamw_v", run},
                                               {"base_model.model.", adapter},
                                               {"lora_A", adapter},
                                               {"lora_B", adapter},
                                               {".bone", adapter},
                                               {".bone_block", adapter},
                                               {".miss", adapter},
                                               {".disha", adapter},
                                               {".miss_block", adapter},
                                               {".weight.D", adapter},
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
  const auto first_of = [](std::string_view kind) {
    return static_cast<std::size_t>(
        std::find_if(rules.begin(), rules.end(), [&](const Rule& rule) { return rule.kind == kind; }) - rules.begin());
  };
  // The rules from the states on are only for files without an embedding, those behind them for names of no dialect that
  // is read.
  const std::size_t used = names.find("emb.weight") != nullptr ? first_of(state)
                           : names.dialect().is_foreign()      ? first_of(fla)
                                                               : rules.size();
  std::size_t first = used;
  std::string_view example;
  bool has_official = false;
  for (const OfficialTensor& tensor : names.tensors()) {
    for (std::size_t i = 0; i < first; ++i) {
      if (!fits(tensor.in_file, rules[i].part)) continue;
      first = i;
      example = tensor.in_file;
    }
    has_official = has_official || tensor.name == "emb.weight" || tensor.name == "head.weight" ||
                   block_number(tensor.name).has_value();
  }
  if (first < used) return join(rules[first].kind, " (it holds ", in_quotes(example), ")");
  if (!file.index_beside().empty()) {
    return join("this is one shard of several; open the index ", in_quotes(file.index_beside()), " beside it");
  }
  if (is_shard(file.path())) {
    return "this is one shard of several; open their index, or join the shards into one file";
  }
  static constexpr std::array<std::string_view, 3> parts{"emb.weight", "blocks.0.ln1.weight", "head.weight"};
  const auto there = std::count_if(parts.begin(), parts.end(), [&](auto name) { return names.find(name) != nullptr; });
  const auto shared =
      std::count_if(parts.begin(), parts.end(), [&](auto name) { return tied_to(names, name) != nullptr; });
  if (has_official && there + shared < std::ssize(parts)) {
    return "this is a part of a model; if it is one shard of several, join them into one file";
  }
  return {};
}

RWKV_BODY std::string why_missing(const OfficialNames& names, std::string_view name) {
  const std::string* tied = tied_to(names, name);
  if (tied == nullptr) return "missing from the file";
  return join("missing from the file, whose metadata say that it is the same as ", in_quotes(*tied),
              "; save it without sharing, as a clone()");
}

/// A number that norms add to variances, from outside. Errors: no number between 0 and 1.
inline double checked_epsilon(double number, std::string_view where, std::string_view key) {
  expects(number > 0 && number < 1, where, ": ", key, " is not between 0 and 1");  // neither is NaN
  return number;
}

/// Sets what norms add to variances from the metadata that save_checkpoint wrote.
inline void read_epsilons(const TensorFile& file, ModelSizes& sizes) {
  const auto read = [&](std::string_view key, double& number) {
    const auto found = file.metadata().find(std::string(key));
    if (found == file.metadata().end()) return;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) number = -1;
    checked_epsilon(number, path_text(file.path()), join("the metadata ", key));
  };
  read(norm_epsilon_key, sizes.norm_epsilon);
  read(head_norm_epsilon_key, sizes.head_norm_epsilon);
}

/// Sets what norms add to variances as the programs of the dialect do, which read it from config.json.
inline void apply_config(const OfficialNames& names, ModelSizes& sizes) {
  const TensorFile& file = names.file();
  const std::string where = path_text(file.path().parent_path() / "config.json");
  const auto number = [&](std::string_view key) -> std::optional<double> {
    const auto found = file.config().find(key);
    return found == file.config().end() ? std::nullopt : std::optional(found->second);
  };
  const auto width = number("hidden_size");
  expects(!width || *width == static_cast<double>(sizes.width), where,
          ": this is the configuration of a model of width ", width.value_or(0), ", the model beside it has ",
          sizes.width);
  constexpr double usual = 1e-5, usual_head_size = 64, usual_divisor = 8;
  double norm = usual;
  for (const char* key : {"layer_norm_eps", "layer_norm_epsilon", "norm_eps"}) {
    if (const auto epsilon = number(key)) norm = checked_epsilon(*epsilon, where, key);
  }
  if (norm != usual) sizes.norm_epsilon = norm;
  // How much larger that of a head's norm is, and how much larger in official files.
  const double divisor = number("head_size_divisor").value_or(usual_divisor);
  const double head_size = sizes.head_size > 0 ? static_cast<double>(sizes.head_size) : usual_head_size;
  const bool scales = names.dialect().dialect->scales_norms;
  const double factor = scales ? head_size : divisor * divisor;
  const double norm_of_heads = scales ? norm : usual;
  const double head_norm = checked_epsilon(number("group_norm_epsilon").value_or(factor * norm_of_heads), where,
                                           "what ln_x adds to a variance");
  const bool is_usual = head_norm == usual_head_size * usual || head_norm == 64e-5;
  if (!is_usual) sizes.head_norm_epsilon = head_norm;
}

/// Throws where the metadata of a .gguf say that it holds no model, a part of one, or one of another architecture.
inline void check_architecture(const OfficialNames& names) {
  const auto text = [&](const char* key) -> const std::string* {
    const auto found = names.file().metadata().find(key);
    return found == names.file().metadata().end() ? nullptr : &found->second;
  };
  const std::string file = path_text(names.file().path());
  const std::string* const type = text("general.type");
  if (type != nullptr && *type != "model")
    fail(file, ": by its metadata this is no model but of the type ", in_quotes(*type));
  const std::string* const parts = text("split.count");
  if (parts != nullptr && *parts != "0" && *parts != "1") {
    fail(file, ": this is one part of a model in several; join them with `llama-gguf-split --merge`");
  }
  const std::string* const architecture = text("general.architecture");
  const Dialect* const dialect = names.dialect().dialect;
  if (dialect != nullptr && !dialect->architecture.empty()) {
    expects(architecture != nullptr, file, ": its metadata lack general.architecture");
    if (*architecture != dialect->architecture) {
      fail(file, ": by its metadata it is of the architecture ", in_quotes(*architecture), ", by its names of '",
           dialect->architecture, "'");
    }
  } else if (architecture != nullptr && !is_known_architecture(*architecture) && names.find("emb.weight") == nullptr) {
    fail(file, ": this is a model of the architecture ", in_quotes(*architecture),
         ", where 'rwkv6' and 'rwkv7' are read");
  }
}

/// Compares the metadata of a .gguf with the sizes of its tensors, and sets what norms add to variances. Its program adds
/// 64e-5 in ln_x whatever the size of heads.
inline void apply_gguf(const OfficialNames& names, ModelSizes& sizes) {
  const TensorFile& file = names.file();
  const std::string where = path_text(file.path());
  const std::string_view architecture = names.dialect().dialect->architecture;
  const auto compare = [&](std::string_view key, Index size) {
    const double said = gguf_number(file, architecture, key).value_or(static_cast<double>(size));
    expects(said == static_cast<double>(size), where, ": ", architecture, ".", key, " is ", said,
            " in its metadata, and ", size, " by the shapes of its tensors");
  };
  constexpr std::string_view head_size = "wkv.head_size";
  expects(gguf_number(file, architecture, head_size).has_value(), where, ": its metadata lack ", architecture, ".",
          head_size);
  compare("vocab_size", sizes.vocab);
  compare("embedding_length", sizes.width);
  compare("block_count", sizes.depth);
  if (sizes.ffn > 0) compare("feed_forward_length", sizes.ffn);
  if (sizes.head_size > 0) compare(head_size, sizes.head_size);
  struct Rank {
    std::string_view key, tensor;  // with the rank as its second size
  };
  static constexpr std::array<Rank, 6> ranks{{{"time_mix_extra_dim", "time_maa_w2"},
                                              {"time_decay_extra_dim", "time_decay_w1"},
                                              {"attention.decay_lora_rank", "w1"},
                                              {"attention.iclr_lora_rank", "a1"},
                                              {"attention.value_residual_mix_lora_rank", "v1"},
                                              {"attention.gate_lora_rank", "g1"}}};
  for (const auto& [key, tensor] : ranks) {
    const std::vector<Index>* shape = names.shape_of(join("blocks.", sizes.depth - 1, ".att.", tensor));
    if (shape != nullptr && shape->size() >= 2) compare(key, (*shape)[1]);
  }
  constexpr std::string_view epsilon = "attention.layer_norm_epsilon";
  constexpr double usual = 1e-5;
  const double norm = checked_epsilon(gguf_number(file, architecture, epsilon).value_or(usual), where,
                                      join(architecture, ".", epsilon));
  if (norm != usual) sizes.norm_epsilon = norm;
}

RWKV_BODY void add_epsilons(const ModelSizes& sizes, std::map<std::string, std::string>& metadata) {
  const auto add = [&](std::string_view key, double number) {
    if (number == 0) return;
    std::array<char, 32> text;
    const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
    metadata.insert_or_assign(std::string(key), std::string(text.data(), end));
  };
  add(norm_epsilon_key, sizes.norm_epsilon);
  add(head_norm_epsilon_key, sizes.head_norm_epsilon);
}

RWKV_BODY std::vector<std::string> notes_on(const OfficialNames& names, const ModelSizes& sizes) {
  const TensorFile& file = names.file();
  std::vector<std::string> notes(file.notes().begin(), file.notes().end());
  for (std::string& note : names.notes()) notes.push_back(std::move(note));
  const std::string_view from = file.config().empty() ? "" : ", by the config.json beside it";
  if (sizes.norm_epsilon != 0) notes.push_back(join("its layer norms add ", sizes.norm_epsilon, " to variances", from));
  if (sizes.head_norm_epsilon != 0)
    notes.push_back(join("its ln_x adds ", sizes.head_norm_epsilon, " to variances", from));
  for (std::string& note : notes) note = join(path_text(file.path()), ": ", note);
  return notes;
}

}  // namespace detail

RWKV_BODY ModelSizes sizes_of_model(const OfficialNames& names) {
  const TensorFile& file = names.file();
  const std::string name = detail::path_text(file.path());
  detail::check_architecture(names);
  const auto expects_part = [&](bool holds, std::string_view part) {
    if (holds) return;
    const std::string kind = detail::kind_by_names(names);
    const bool tied = detail::tied_to(names, "emb.weight") != nullptr;
    fail(name, ": this is no RWKV checkpoint: it holds no tensor ", part,
         tied ? join(" (emb.weight: ", detail::why_missing(names, "emb.weight"), ")") : "", kind.empty() ? "" : "; ",
         kind);
  };
  const OfficialTensor* embedding = names.find("emb.weight");
  expects_part(embedding != nullptr, "emb.weight");
  if (!embedding->shape) {
    fail(name, ": tensor ", detail::in_quotes(embedding->in_file), " cannot be read: ", embedding->unreadable->reason);
  }
  const std::span<const Index> shape = *embedding->shape;
  expects(shape.size() == 2, name, ": emb.weight has shape ", shape, ", a checkpoint has [vocab, width]");
  ModelSizes sizes{.vocab = shape[0], .width = shape[1]};
  expects(sizes.vocab > 0 && sizes.width > 0, name, ": emb.weight is empty, with shape ", shape);
  const auto check_size = [&](Index size, std::string_view what) {
    expects(0 < size && size <= detail::largest_size, name, ": ", what, " of ", size, " is not between 1 and ",
            detail::largest_size);
  };
  check_size(sizes.vocab, "a vocabulary");
  check_size(sizes.width, "a width");

  // The two norms of a layer alone have four tensors: a large number in a small file is no depth.
  constexpr Index fewest_per_layer = 4;
  const Index count = std::ssize(names.tensors());
  for (const OfficialTensor& tensor : names.tensors()) {
    const auto number = detail::block_number(tensor.name);
    if (!number) continue;
    if (*number >= count / fewest_per_layer) {
      const std::string kind = detail::kind_by_names(names);
      fail(name, ": ", detail::in_quotes(tensor.in_file), " cannot be right in a file of ", count, " tensors",
           kind.empty() ? "" : "; ", kind);
    }
    sizes.depth = std::max(sizes.depth, *number + 1);
  }
  expects_part(sizes.depth > 0, "blocks.0.…");

  const std::vector<Index>* key = names.shape_of("blocks.0.ffn.key.weight");
  if (key != nullptr && key->size() == 2) check_size(sizes.ffn = (*key)[0], "an ffn");
  const OfficialVersion* version = version_named_by(names);
  const bool has_heads = version != nullptr && !version->heads.empty();
  const std::vector<Index>* heads = has_heads ? names.shape_of(join("blocks.0.", version->heads)) : nullptr;
  if (heads != nullptr && (heads->size() == 1 || heads->size() == 2)) {
    const bool per_head = heads->size() == 1;  // a number for each head
    check_size(sizes.head_size = per_head ? sizes.width / std::max<Index>(1, (*heads)[0]) : (*heads)[1], "a head size");
    expects(sizes.width % sizes.head_size == 0, name, ": a width of ", sizes.width, " does not divide into heads of ",
            sizes.head_size);
  }
  const detail::FoundDialect& dialect = names.dialect();
  if (!dialect.is_foreign()) detail::read_epsilons(file, sizes);
  else if (dialect.dialect->architecture.empty()) detail::apply_config(names, sizes);
  else detail::apply_gguf(names, sizes);
  return sizes;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
