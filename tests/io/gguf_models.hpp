#pragma once
/// The golden models of RWKV-6 and RWKV-7 in the form that the converter of llama.cpp gives them.
#include <cmath>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../golden.hpp"
#include "checks.hpp"
#include "gguf_builder.hpp"
#include "rwkv/core/transpose.hpp"
#include "rwkv/io/checkpoint.hpp"

namespace gguf_models {

using namespace rwkv;
using build::Gguf;
using build::gguf_value;

/// Numbers of a type as floats, multiplied.
inline std::string as_floats(const TensorView& tensor, double scale) {
  const std::size_t count = tensor.bytes.size() / size_of(tensor.dtype);
  std::string floats(count * sizeof(float), '\0');
  detail::convert(tensor.dtype, tensor.bytes.data(), DType::f32, reinterpret_cast<std::byte*>(floats.data()), count,
                  scale);
  return floats;
}

inline const std::vector<std::pair<std::string, std::string>> words_of_both{{"emb.weight", "token_embd.weight"},
                                                                            {"blocks.0.ln0.", "token_embd_norm."},
                                                                            {"ln_out.", "output_norm."},
                                                                            {"head.", "output."},
                                                                            {".ln1.", ".attn_norm."},
                                                                            {".ln2.", ".attn_norm_2."},
                                                                            {".att.ln_x.", ".time_mix_ln."},
                                                                            {".ffn.x_k", ".channel_mix_lerp_k"},
                                                                            {".ffn.time_maa_", ".channel_mix_lerp_"},
                                                                            {".att.time_maa_x", ".time_mix_lerp_x"},
                                                                            {".att.time_maa_w1", ".time_mix_w1"},
                                                                            {".att.time_maa_w2", ".time_mix_w2"},
                                                                            {".att.time_faaaa", ".time_mix_first"},
                                                                            {".att.time_decay", ".time_mix_decay"},
                                                                            {".att.", ".time_mix_"},
                                                                            {".ffn.", ".channel_mix_"},
                                                                            {"blocks.", "blk."}};

/// A model of official names as the converter of llama.cpp makes it, with every number as F32. Of RWKV-6, weights that
/// write to x are halved after every `rescale` layers.
inline Gguf converted(const TensorFile& file, std::uint32_t rescale = 0) {
  const bool is_v7 = file.find("blocks.0.att.r_k") != nullptr;
  const std::string mixes = is_v7 ? "rwkvag" : "wkvrg", prefix = is_v7 ? "att.x_" : "att.time_maa_";
  const std::string architecture = is_v7 ? "rwkv7" : "rwkv6";
  const ModelSizes sizes = sizes_of_model(file);
  const auto second = [&](const std::string& name) {
    return static_cast<std::uint32_t>(file.find("blocks.1.att." + name)->shape[1]);
  };
  Gguf made;
  const auto say = [&](const std::string& key, auto value) {
    made.metadata.emplace_back(architecture + "." + key, gguf_value(value));
  };
  made.metadata.emplace_back("general.architecture", gguf_value(architecture));
  made.metadata.emplace_back("general.type", gguf_value("model"));
  say("embedding_length", static_cast<std::uint32_t>(sizes.width));
  say("block_count", static_cast<std::uint32_t>(sizes.depth));
  say("feed_forward_length", static_cast<std::uint32_t>(sizes.ffn));
  say("wkv.head_size", static_cast<std::uint32_t>(sizes.head_size));
  say("attention.layer_norm_epsilon", 1e-5f);
  say("attention.head_count", 0u);
  if (is_v7) {
    say("attention.decay_lora_rank", second("w1"));
    say("attention.iclr_lora_rank", second("a1"));
    say("attention.value_residual_mix_lora_rank", second("v1"));
    say("attention.gate_lora_rank", second("g1"));
  } else {
    say("rescale_every_n_layers", rescale);
    say("time_mix_extra_dim", second("time_maa_w2"));
    say("time_decay_extra_dim", second("time_decay_w1"));
  }

  std::map<std::string, std::string> fused;  // by layer
  for (Index layer = 0; layer < sizes.depth; ++layer) {
    std::string& all = fused[std::to_string(layer)];
    for (const char mix : mixes) all += as_floats(*file.find(join("blocks.", layer, ".", prefix, mix)), 1);
  }
  for (const TensorView& tensor : file.tensors()) {
    std::string name = tensor.name;
    const bool in_first = name.starts_with("blocks.0."),
               is_fused = name.find(prefix) != std::string::npos && mixes.find(name.back()) != std::string::npos;
    if (is_fused) continue;
    if (is_v7 && in_first && name.find(".att.v") != std::string::npos && name.size() == 15) continue;
    const bool writes = name.ends_with("att.output.weight") || name.ends_with("ffn.value.weight");
    const double layer = name.starts_with("blocks.") ? name[7] - '0' : 0;
    std::string data = as_floats(tensor, writes && rescale > 0 ? std::exp2(-std::floor(layer / rescale)) : 1);
    std::vector<Index> shape = tensor.shape;
    if (name.ends_with('1') || name.ends_with('2')) {
      std::vector<std::byte> turned(data.size());
      transpose_matrices(build::bytes(data).data(), sizeof(float), shape.end()[-2], shape.end()[-1], turned);
      data = build::text(turned);
      std::swap(shape.end()[-2], shape.end()[-1]);
    }
    if (shape.size() == 3 && shape[0] == 1) shape = {shape[2]};
    if (name.ends_with("r_k")) shape = {shape[0] * shape[1]};
    for (const auto& [from, to] : words_of_both) {
      if (const std::size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
    }
    if (!name.ends_with(".weight") && !name.ends_with(".bias")) name += ".weight";
    const std::vector<std::uint64_t> dims(shape.rbegin(), shape.rend());
    made.tensors.push_back({name, dims, 0, data});
    if (is_v7 && in_first && name.starts_with("blk.0.time_mix_a")) {
      made.tensors.push_back({"blk.0.time_mix_v" + name.substr(16), dims, 0, data});
    }
  }
  const auto width = static_cast<std::uint64_t>(sizes.width);
  for (const auto& [layer, data] : fused) {
    made.tensors.push_back({"blk." + layer + ".time_mix_lerp_fused.weight", {width, 1, 1, mixes.size()}, 0, data});
  }
  return made;
}

inline Gguf::Tensor& tensor_of(Gguf& file, std::string_view name) {
  return *std::ranges::find(file.tensors, name, &Gguf::Tensor::name);
}
inline std::string& value_of(Gguf& file, const std::string& key) {
  for (auto& [name, value] : file.metadata) {
    if (name == key) return value;
  }
  throw std::logic_error("no such key");
}

inline TensorFile official(const char* model) { return open_tensors(golden::folder() / "models" / model); }
inline TensorFile official_v6() { return official("rwkv6-rand-l2-d32-h4-bf16.safetensors"); }
inline TensorFile official_v7() { return official("rwkv7-rand-l2-d32-h4-f32.safetensors"); }

inline void check_says(const std::string& said, const std::string& words) {
  CAPTURE(said);
  CAPTURE(words);
  CHECK(said.find(words) != std::string::npos);
}

}  // namespace gguf_models
