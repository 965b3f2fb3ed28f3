#pragma once
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "rwkv/io/dialects.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr bool is_telling = true, is_turned = true;  // in the tables

inline constexpr std::array<Rename, 9> official_names{{{"emb.weight", "emb.weight", is_telling},
                                                       {"head.weight", "head.weight", is_telling},
                                                       {"ln_out.weight", "ln_out.weight"},
                                                       {"ln_out.bias", "ln_out.bias"},
                                                       {"blocks.#.ln0.", "blocks.#.ln0.", is_telling},
                                                       {"blocks.#.ln1.", "blocks.#.ln1.", is_telling},
                                                       {"blocks.#.ln2.", "blocks.#.ln2.", is_telling},
                                                       {"blocks.#.att.", "blocks.#.att.", is_telling},
                                                       {"blocks.#.ffn.", "blocks.#.ffn.", is_telling}}};

/// Of transformers for RWKV-4, and of the code that comes with the models for 5 and 6.
inline constexpr std::array<Rename, 16> transformers_names{
    {{"rwkv.embeddings.weight", "emb.weight", is_telling},
     {"rwkv.ln_out.", "ln_out."},
     {"head.weight", "head.weight"},
     {"rwkv.blocks.#.pre_ln.", "blocks.#.ln0.", is_telling},
     {"rwkv.blocks.#.ln1.", "blocks.#.ln1."},
     {"rwkv.blocks.#.ln2.", "blocks.#.ln2."},
     {"rwkv.blocks.#.attention.time_mix_key", "blocks.#.att.time_mix_k", is_telling},
     {"rwkv.blocks.#.attention.time_mix_value", "blocks.#.att.time_mix_v", is_telling},
     {"rwkv.blocks.#.attention.time_mix_receptance", "blocks.#.att.time_mix_r", is_telling},
     {"rwkv.blocks.#.attention.time_mix_gate", "blocks.#.att.time_mix_g", is_telling},
     {"rwkv.blocks.#.attention.", "blocks.#.att.", is_telling},
     {"rwkv.blocks.#.feed_forward.time_mix_key", "blocks.#.ffn.time_mix_k", is_telling},
     {"rwkv.blocks.#.feed_forward.time_mix_receptance", "blocks.#.ffn.time_mix_r", is_telling},
     {"rwkv.blocks.#.feed_forward.time_maa_key", "blocks.#.ffn.time_maa_k", is_telling},
     {"rwkv.blocks.#.feed_forward.time_maa_receptance", "blocks.#.ffn.time_maa_r", is_telling},
     {"rwkv.blocks.#.feed_forward.", "blocks.#.ffn.", is_telling}}};

/// Of RWKV-7 in flash-linear-attention. Its low-rank products are two linear layers, whose matrices are [out, in]; an
/// older version has the six mixes in one tensor.
inline constexpr std::array<Rename, 17> fla_names{
    {{"model.embeddings.weight", "emb.weight"},
     {"model.norm.", "ln_out."},
     {"lm_head.weight", "head.weight"},
     {"model.layers.#.pre_norm.", "blocks.#.ln0."},
     {"model.layers.#.attn_norm.", "blocks.#.ln1."},
     {"model.layers.#.ffn_norm.", "blocks.#.ln2."},
     {"model.layers.#.attn.r_proj.weight", "blocks.#.att.receptance.weight", is_telling},
     {"model.layers.#.attn.k_proj.weight", "blocks.#.att.key.weight"},
     {"model.layers.#.attn.v_proj.weight", "blocks.#.att.value.weight"},
     {"model.layers.#.attn.o_proj.weight", "blocks.#.att.output.weight"},
     {"model.layers.#.attn.g_norm.", "blocks.#.att.ln_x."},
     {"model.layers.#.attn.?_lora.lora.0.weight", "blocks.#.att.?1", is_telling, is_turned},
     {"model.layers.#.attn.?_lora.lora.2.weight", "blocks.#.att.?2", is_telling, is_turned},
     {"model.layers.#.attn.?_lora.lora.2.bias", "blocks.#.att.?0", is_telling},
     {"model.layers.#.attn.x_x", "blocks.#.att.x_*", is_telling, false, "rwkvag"},
     {"model.layers.#.attn.", "blocks.#.att."},
     {"model.layers.#.ffn.", "blocks.#.ffn."}}};

/// Of RWKV-7 with the layers of a transformer.
inline constexpr std::array<Rename, 13> linear_attention_names{
    {{"model.embed_tokens.weight", "emb.weight"},
     {"model.embedding_norm.", "blocks.0.ln0."},
     {"model.norm.", "ln_out."},
     {"lm_head.weight", "head.weight"},
     {"model.layers.#.input_layernorm.", "blocks.#.ln1."},
     {"model.layers.#.post_attention_layernorm.", "blocks.#.ln2."},
     {"model.layers.#.linear_attn.r_proj.", "blocks.#.att.receptance.", is_telling},
     {"model.layers.#.linear_attn.k_proj.", "blocks.#.att.key."},
     {"model.layers.#.linear_attn.v_proj.", "blocks.#.att.value."},
     {"model.layers.#.linear_attn.o_proj.", "blocks.#.att.output."},
     {"model.layers.#.linear_attn.g_norm.", "blocks.#.att.ln_x."},
     {"model.layers.#.linear_attn.", "blocks.#.att."},
     {"model.layers.#.mlp.", "blocks.#.ffn."}}};

/// Of RWKV-6 in llama.cpp. Its matrices are [out, in], low-rank ones as well; an older form has a tensor for every mix.
inline constexpr std::array<Rename, 25> gguf_v6_names{
    {{"token_embd.weight", "emb.weight"},
     {"token_embd_norm.", "blocks.0.ln0."},
     {"output_norm.", "ln_out."},
     {"output.weight", "head.weight"},
     {"blk.#.attn_norm.", "blocks.#.ln1."},
     {"blk.#.attn_norm_2.", "blocks.#.ln2."},
     {"blk.#.time_mix_w1.weight", "blocks.#.att.time_maa_w1", false, is_turned},
     {"blk.#.time_mix_w2.weight", "blocks.#.att.time_maa_w2", false, is_turned},
     {"blk.#.time_mix_lerp_fused.weight", "blocks.#.att.time_maa_*", false, false, "wkvrg"},
     {"blk.#.time_mix_lerp_?.weight", "blocks.#.att.time_maa_?"},
     {"blk.#.time_mix_first.weight", "blocks.#.att.time_faaaa", is_telling, false, "", Change::flattened},
     {"blk.#.time_mix_decay.weight", "blocks.#.att.time_decay", is_telling},
     {"blk.#.time_mix_decay_w1.weight", "blocks.#.att.time_decay_w1", is_telling, is_turned},
     {"blk.#.time_mix_decay_w2.weight", "blocks.#.att.time_decay_w2", is_telling, is_turned},
     {"blk.#.time_mix_receptance.", "blocks.#.att.receptance."},
     {"blk.#.time_mix_key.", "blocks.#.att.key."},
     {"blk.#.time_mix_value.", "blocks.#.att.value."},
     {"blk.#.time_mix_gate.", "blocks.#.att.gate."},
     {"blk.#.time_mix_ln.", "blocks.#.att.ln_x."},
     {"blk.#.time_mix_output.weight", "blocks.#.att.output.weight", false, false, "", Change::halved},
     {"blk.#.channel_mix_lerp_k.weight", "blocks.#.ffn.time_maa_k"},
     {"blk.#.channel_mix_lerp_r.weight", "blocks.#.ffn.time_maa_r"},
     {"blk.#.channel_mix_key.", "blocks.#.ffn.key."},
     {"blk.#.channel_mix_receptance.", "blocks.#.ffn.receptance."},
     {"blk.#.channel_mix_value.weight", "blocks.#.ffn.value.weight", false, false, "", Change::halved}}};

/// Of RWKV-7 in llama.cpp. Where its first layer has no value to mix with, it holds copies of a0, a1 and a2.
inline constexpr std::array<Rename, 24> gguf_v7_names{
    {{"token_embd.weight", "emb.weight"},
     {"token_embd_norm.", "blocks.0.ln0."},
     {"output_norm.", "ln_out."},
     {"output.weight", "head.weight"},
     {"blk.#.attn_norm.", "blocks.#.ln1."},
     {"blk.#.attn_norm_2.", "blocks.#.ln2."},
     {"blk.#.time_mix_lerp_fused.weight", "blocks.#.att.x_*", false, false, "rwkvag"},
     {"blk.0.time_mix_v0.weight", "", false, false, "", Change::unused},
     {"blk.0.time_mix_v1.weight", "", false, false, "", Change::unused},
     {"blk.0.time_mix_v2.weight", "", false, false, "", Change::unused},
     {"blk.#.time_mix_?0.weight", "blocks.#.att.?0"},
     {"blk.#.time_mix_?1.weight", "blocks.#.att.?1", false, is_turned},
     {"blk.#.time_mix_?2.weight", "blocks.#.att.?2", false, is_turned},
     {"blk.#.time_mix_k_k.weight", "blocks.#.att.k_k", is_telling},
     {"blk.#.time_mix_k_a.weight", "blocks.#.att.k_a", is_telling},
     {"blk.#.time_mix_r_k.weight", "blocks.#.att.r_k", is_telling, false, "", Change::flattened},
     {"blk.#.time_mix_receptance.", "blocks.#.att.receptance."},
     {"blk.#.time_mix_key.", "blocks.#.att.key."},
     {"blk.#.time_mix_value.", "blocks.#.att.value."},
     {"blk.#.time_mix_ln.", "blocks.#.att.ln_x."},
     {"blk.#.time_mix_output.", "blocks.#.att.output."},
     {"blk.#.channel_mix_lerp_k.weight", "blocks.#.ffn.x_k"},
     {"blk.#.channel_mix_key.", "blocks.#.ffn.key."},
     {"blk.#.channel_mix_value.", "blocks.#.ffn.value."}}};

/// The dialects; the one that knows the most names of a file counts, of several the first.
inline constexpr std::array<Dialect, 6> dialects{
    {{"the official code", official_names, false, false},
     {"transformers", transformers_names, true, false},
     {"flash-linear-attention", fla_names, true, true},
     {"a transformer with linear attention", linear_attention_names, true, true},
     {"llama.cpp for RWKV-6", gguf_v6_names, false, false, "rwkv6"},
     {"llama.cpp for RWKV-7", gguf_v7_names, false, false, "rwkv7"}}};

/// The official name of a tensor, if the rule knows its name. Only the first rule that does counts.
inline std::optional<std::string> renamed(const Rename& rule, std::string_view name) {
  std::string_view number, letter, rest = name;
  for (const char c : rule.from) {
    if (rest.empty()) return std::nullopt;
    std::size_t taken = 1;
    if (c == '#') {
      taken = std::min(rest.find_first_not_of("0123456789"), rest.size());
      if (taken == 0) return std::nullopt;
      number = rest.substr(0, taken);
    } else if (c == '?') {
      letter = rest.substr(0, 1);
      if (letter < "a" || letter > "z") return std::nullopt;
    } else if (rest[0] != c) {
      return std::nullopt;
    }
    rest.remove_prefix(taken);
  }
  if (rest.empty() == rule.from.ends_with('.')) return std::nullopt;
  std::string official;
  for (const char c : rule.to) {
    if (c == '#') official += number;
    else if (c == '?') official += letter;
    else official += c;
  }
  return official.append(rest);
}

RWKV_BODY Renamed renamed(const Dialect& dialect, std::string_view name) {
  for (const Rename& rule : dialect.rules) {
    if (auto official = renamed(rule, name)) return {&rule, std::move(*official)};
  }
  return {};
}

/// Calls f(prefix, rule) for the shortest prefix behind which a dialect knows the name, if there is one.
template <class F>
void for_prefix(const Dialect& dialect, std::string_view name, const F& f) {
  constexpr int most = 8;  // parts, so that the time is bounded whatever the name
  std::size_t begin = 0;
  for (int part = 0; part <= most; ++part) {
    const Renamed found = renamed(dialect, name.substr(begin));
    if (found.rule != nullptr) return f(name.substr(0, begin), *found.rule);
    const std::size_t dot = name.find('.', begin);
    if (dot == std::string_view::npos) return;
    begin = dot + 1;
  }
}

RWKV_BODY bool is_weight_name(std::string_view name) {
  bool known = false;
  for (const Dialect& dialect : dialects) {
    for_prefix(dialect, name, [&](std::string_view, const Rename& rule) { known = known || rule.telling; });
  }
  return known;
}

RWKV_BODY bool is_known_architecture(std::string_view architecture) {
  return !architecture.empty() && std::any_of(dialects.begin(), dialects.end(), [&](const Dialect& dialect) {
    return dialect.architecture == architecture;
  });
}

RWKV_BODY bool FoundDialect::is_official() const {
  return dialect == nullptr || (dialect == &dialects[0] && prefix.empty());
}
RWKV_BODY bool FoundDialect::is_foreign() const { return dialect != nullptr && dialect != &dialects[0]; }

RWKV_BODY FoundDialect find_dialect(std::span<const std::string_view> names) {
  struct Tally {
    std::size_t count = 0;
    bool told = false;
  };
  FoundDialect best;
  std::size_t most = 0;
  for (const Dialect& dialect : dialects) {
    std::map<std::string_view, Tally> tallies;  // by prefix
    for (const std::string_view name : names) {
      for_prefix(dialect, name, [&](std::string_view prefix, const Rename& rule) {
        Tally& tally = tallies[prefix];
        ++tally.count;
        tally.told = tally.told || rule.telling;
      });
    }
    for (const auto& [prefix, tally] : tallies) {
      if (!tally.told || tally.count <= most) continue;
      best = {&dialect, prefix};
      most = tally.count;
    }
    if (most == names.size()) break;
  }
  return best;
}

RWKV_BODY std::vector<std::string_view> names_of(std::span<const TensorView> tensors,
                                                 std::span<const UnreadableTensor> unreadable) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size() + unreadable.size());
  for (const TensorView& tensor : tensors) names.push_back(tensor.name);
  for (const UnreadableTensor& tensor : unreadable) names.push_back(tensor.name);
  return names;
}

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv
