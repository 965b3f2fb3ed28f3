// Models in GGUF files, as llama.cpp's converter writes them, load with the bits of the official file.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../golden.hpp"
#include "../versions.hpp"
#include "checks.hpp"
#include "gguf_builder.hpp"
#include "rwkv/core/block_formats.hpp"

using namespace rwkv;
using build::Folder;
using build::Gguf;
using build::gguf_value;
using build::put;

namespace {

template <class V>
using Net = LanguageModel<V, float, Cpu>;

/// Numbers of a type as floats, multiplied.
std::string as_floats(const TensorView& tensor, double scale) {
  const std::size_t count = tensor.bytes.size() / size_of(tensor.dtype);
  std::string floats(count * sizeof(float), '\0');
  detail::convert(tensor.dtype, tensor.bytes.data(), DType::f32, reinterpret_cast<std::byte*>(floats.data()), count,
                  scale);
  return floats;
}

const std::vector<std::pair<std::string, std::string>> words_of_both{{"emb.weight", "token_embd.weight"},
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
template <class V>
Gguf converted(const TensorFile& file, std::uint32_t rescale = 0) {
  const bool is_v7 = std::is_same_v<V, V7>;
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

Gguf::Tensor& tensor_of(Gguf& file, std::string_view name) {
  return *std::ranges::find(file.tensors, name, &Gguf::Tensor::name);
}
std::string& value_of(Gguf& file, const std::string& key) {
  for (auto& [name, value] : file.metadata) {
    if (name == key) return value;
  }
  throw std::logic_error("no such key");
}

template <class V>
TensorFile official() {
  return open_tensors(golden::folder() / "models" / (std::string(config::Goldens<V>::model) + ".safetensors"));
}

std::vector<float> logits_of(const std::filesystem::path& path) {
  AnyModel model = load_model<Cpu>(path);
  const Token tokens[] = {3, 1, 4, 1, 5, 9, 2, 6};
  auto context = model.context();
  const auto last = context.prefill(tokens);
  return {last.begin(), last.end()};
}

/// The file must give a model with the bits of the official one; returns what was said about it.
template <class V>
std::string check_same(const Gguf& made) {
  const Folder folder;
  put(folder / "m.gguf", made.file());
  std::string said;
  const LoadOptions options{.note = [&](std::string_view note) { said.append(note).append("\n"); }};
  const TensorFile source = official<V>();
  const auto want = load_checkpoint<Net<V>>(source);
  const auto got = load_checkpoint<Net<V>>(folder / "m.gguf", options);
  const auto wanted = want.parameters(), found = got.parameters();
  REQUIRE(wanted.size() == found.size());
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    CAPTURE(wanted[p].name);
    if (wanted[p].unused()) continue;
    const auto a = std::as_bytes(wanted[p].numbers()), b = std::as_bytes(found[p].numbers());
    REQUIRE(a.size() == b.size());
    CHECK(std::memcmp(a.data(), b.data(), a.size()) == 0);
  }
  CHECK(got.sizes().norm_epsilon == 0);
  CHECK(got.sizes().head_norm_epsilon == 0);
  CHECK(logits_of(folder / "m.gguf") == logits_of(source.path()));
  return said;
}

/// What loading says that fails; empty if it does not.
template <class V>
std::string error_of(const Gguf& made) {
  try {
    const std::string file = made.file();
    load_checkpoint<Net<V>>(open_tensors(build::bytes(file), "m.gguf"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void check_says(const std::string& said, const std::string& words) {
  CAPTURE(said);
  CAPTURE(words);
  CHECK(said.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("GGUF: RWKV-6 and RWKV-7 load with the bits of the official file") {
  check_says(
      check_same<V7>(converted<V7>(official<V7>())),
      "its names are those of llama.cpp for RWKV-7; 69 tensors have another one, 14 of them their axes the other "
      "way round");
  check_says(check_same<V6>(converted<V6>(official<V6>())), "its names are those of llama.cpp for RWKV-6; ");
  for (const std::uint32_t rescale : {1u, 2u, 6u}) check_same<V6>(converted<V6>(official<V6>(), rescale));
  // An older form of RWKV-6 has a tensor for every mix.
  Gguf made = converted<V6>(official<V6>());
  std::erase_if(made.tensors, [](const auto& tensor) { return tensor.name.ends_with("fused.weight"); });
  for (const std::string layer : {"0", "1"}) {
    for (const std::string mix : {"w", "k", "v", "r", "g"}) {
      made.tensors.push_back({"blk." + layer + ".time_mix_lerp_" + mix + ".weight",
                              {32},
                              0,
                              as_floats(*official<V6>().find("blocks." + layer + ".att.time_maa_" + mix), 1)});
    }
  }
  check_same<V6>(made);
  // The sizes are those of the tensors where the metadata say nothing, but for heads.
  std::erase_if(made.metadata, [](const auto& pair) {
    return pair.first != "general.architecture" && pair.first != "rwkv6.wkv.head_size";
  });
  check_same<V6>(made);
}

TEST_CASE("GGUF: numbers of the model's type stay where the file has them") {
  const Folder folder;
  put(folder / "m.gguf", converted<V7>(official<V7>()).file());
  const auto file = open_tensors(folder / "m.gguf", {.access = Access::mapped});
  auto net = load_checkpoint<Net<V7>>(file);
  const auto& time_mix = net.parts.body.parts[1].att.params;
  const auto bytes = [&](const char* name) { return static_cast<const void*>(file.find(name)->bytes.data()); };
  CHECK(static_cast<const void*>(net.parts.head.params.table.data) == bytes("output.weight"));
  CHECK(static_cast<const void*>(time_mix.w1.data) == bytes("blk.1.time_mix_w1.weight"));
  CHECK(static_cast<const void*>(time_mix.mix_r.data) == bytes("blk.1.time_mix_lerp_fused.weight"));
}

TEST_CASE("GGUF: quantised weights are widened") {
  const ModelSizes sizes{.vocab = 10, .width = 256, .depth = 1, .ffn = 256};
  const Folder folder;
  {
    Net<V7> net(sizes);
    initialize(net, Seed{1});
    save_checkpoint(net, folder / "m.safetensors");
  }
  const auto source = open_tensors(folder / "m.safetensors");
  Gguf made{{{"rwkv.note", gguf_value("official names")}}, {}};
  std::map<std::string, std::string> widened;
  const std::map<std::string, std::pair<std::uint32_t, DType>> types{
      {"blocks.0.att.receptance.weight", {2, DType::q4_0}},
      {"blocks.0.att.key.weight", {3, DType::q4_1}},
      {"blocks.0.att.value.weight", {6, DType::q5_0}},
      {"blocks.0.att.output.weight", {7, DType::q5_1}},
      {"blocks.0.ffn.key.weight", {8, DType::q8_0}},
      {"blocks.0.ffn.value.weight", {12, DType::q4_k}},
      {"emb.weight", {13, DType::q5_k}},
      {"head.weight", {14, DType::q6_k}},
      {"blocks.0.att.w1", {8, DType::q8_0}}};
  std::uint32_t number = 0;
  for (const TensorView& tensor : source.tensors()) {
    std::string data = build::text(tensor.bytes);
    const auto quantised = types.find(tensor.name);
    std::uint32_t type = 0;
    if (quantised != types.end()) {
      type = quantised->second.first;
      std::string blocks;
      with_block(quantised->second.second, [&]<class Block>(Block block) {
        float numbers[Block::length];
        for (std::size_t at = 0; at < data.size(); at += sizeof(numbers)) {
          std::array<unsigned char, sizeof(Block)> random;
          for (auto& byte : random) byte = static_cast<unsigned char>((number = number * 1664525u + 1013904223u) >> 24);
          std::memcpy(&block, random.data(), sizeof(Block));
          block.unit = f16(0x1p-12f);
          if constexpr (requires { block.least; }) block.least = f16(-0x1p-8f);
          if constexpr (requires { block.offset_unit; }) block.offset_unit = f16(0x1p-12f);
          blocks.append(reinterpret_cast<const char*>(&block), sizeof(Block));
          dequantise(block, numbers);
          std::memcpy(data.data() + at, numbers, sizeof(numbers));
        }
      });
      made.tensors.push_back({tensor.name, {tensor.shape.rbegin(), tensor.shape.rend()}, type, blocks});
    } else {
      made.tensors.push_back({tensor.name, {tensor.shape.rbegin(), tensor.shape.rend()}, type, data});
    }
    widened[tensor.name] = data;
  }
  put(folder / "m.gguf", made.file());
  const auto net = load_checkpoint<Net<V7>>(folder / "m.gguf");
  std::vector<TensorView> tensors(source.tensors().begin(), source.tensors().end());
  for (TensorView& tensor : tensors) tensor.bytes = build::bytes(widened.at(tensor.name));
  save_safetensors(folder / "widened.safetensors", tensors);
  const auto want = load_checkpoint<Net<V7>>(folder / "widened.safetensors");
  const auto wanted = want.parameters(), found = net.parameters();
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    CAPTURE(wanted[p].name);
    CHECK(std::memcmp(wanted[p].data, found[p].data, wanted[p].numbers().size_bytes()) == 0);
  }
  CHECK(logits_of(folder / "m.gguf") == logits_of(folder / "widened.safetensors"));
  // What was quantised is saved in the computing type.
  save_checkpoint(load_checkpoint<LanguageModel<V7, AsStored<float>, Cpu>>(folder / "m.gguf"), folder / "again");
  CHECK(build::get(folder / "again") == build::get(folder / "widened.safetensors"));

  // Rounded once, on the way to a 16-bit type; refused where that has no finite number, or they are none.
  const Gguf::Tensor& q8 = tensor_of(made, "blocks.0.ffn.key.weight");
  const std::string& floats = widened.at(q8.name);
  std::vector<std::byte> rounded(floats.size() / 2), direct(floats.size() / 2);
  detail::convert(DType::q8_0, build::bytes(q8.data).data(), DType::bf16, direct.data(), floats.size() / 4);
  detail::convert(DType::f32, build::bytes(floats).data(), DType::bf16, rounded.data(), floats.size() / 4);
  CHECK(direct == rounded);
  Gguf broken = made;
  tensor_of(broken, "blocks.0.ffn.key.weight").data.replace(34 * 3, 2, "\xff\x7f");
  check_says(error_of<V7>(broken), "blocks.0.ffn.key.weight: element 96 is not a finite number");
  broken = made;
  tensor_of(broken, "blocks.0.ffn.value.weight").data.replace(144 + 2, 2, build::u16(0x7c00));
  check_says(error_of<V7>(broken), "blocks.0.ffn.value.weight: element 256 is not a finite number");
  broken = made;
  tensor_of(broken, "blocks.0.ffn.value.weight").type = 10;
  tensor_of(broken, "blocks.0.ffn.value.weight").data.resize(256 * 84);
  check_says(error_of<V7>(broken),
             "blocks.0.ffn.value.weight: cannot be read: its numbers are of the type Q2_K of ggml");
}

TEST_CASE("GGUF: what the metadata say that the tensors do not is refused") {
  const std::pair<const char*, std::uint32_t> sizes[] = {{"embedding_length", 32},
                                                         {"block_count", 2},
                                                         {"feed_forward_length", 64},
                                                         {"wkv.head_size", 8},
                                                         {"attention.decay_lora_rank", 8},
                                                         {"attention.iclr_lora_rank", 8},
                                                         {"attention.value_residual_mix_lora_rank", 8},
                                                         {"attention.gate_lora_rank", 16}};
  const Gguf good = converted<V7>(official<V7>());
  CHECK(error_of<V7>(good) == "");
  const auto with = [&](const std::string& key, const std::string& value) {
    Gguf made = good;
    value_of(made, key) = value;
    return error_of<V7>(made);
  };
  for (const auto& [key, size] : sizes) {
    const std::string name = std::string("rwkv7.") + key;
    if (name == "rwkv7.wkv.head_size") continue;
    check_says(with(name, gguf_value(size * 2)), join("m.gguf: ", name, " is ", size * 2, " in its metadata, and ",
                                                      size, " by the shapes of its tensors"));
  }
  check_says(with("rwkv7.block_count", gguf_value("two")), "m.gguf: the metadata 'rwkv7.block_count' is no number");
  check_says(with("general.architecture", gguf_value("arwkv7")),
             "m.gguf: by its metadata it is of the architecture 'arwkv7', by its names of 'rwkv7'");
  check_says(with("general.type", gguf_value("adapter")),
             "m.gguf: by its metadata this is no model but of the type 'adapter'");
  check_says(with("rwkv7.attention.layer_norm_epsilon", gguf_value(0.0f)), "is not between 0 and 1");
  // The heads of RWKV-7 are known from the metadata alone, where 5 would not divide the width.
  check_says(with("rwkv7.wkv.head_size", gguf_value(5u)),
             "rwkv7.wkv.head_size is 5 in its metadata, and 1 by the shapes");
  Gguf made = good;
  std::erase_if(made.metadata, [](const auto& pair) { return pair.first == "rwkv7.wkv.head_size"; });
  check_says(error_of<V7>(made), "m.gguf: its metadata lack rwkv7.wkv.head_size");
  made = good;
  made.metadata.erase(made.metadata.begin());
  check_says(error_of<V7>(made), "m.gguf: its metadata lack general.architecture");
  made = good;
  made.metadata.emplace_back("split.count", build::u32(2) + build::u16(3));
  check_says(error_of<V7>(made), "m.gguf: this is one part of a model in several; join them with");
  made = {{{"general.architecture", gguf_value("llama")}},
          {{"token_embd.weight", {2, 3}, 0, std::string(24, '\0')}, {"blk.0.attn_q.weight", {1}, 0, "1234"}}};
  check_says(error_of<V7>(made),
             "m.gguf: this is a model of the architecture 'llama', where 'rwkv6' and 'rwkv7' are read");

  Gguf v6 = converted<V6>(official<V6>(), 1);
  value_of(v6, "rwkv6.wkv.head_size") = gguf_value(16u);
  check_says(error_of<V6>(v6), "rwkv6.wkv.head_size is 16 in its metadata, and 8 by the shapes of its tensors");
  value_of(v6, "rwkv6.wkv.head_size") = gguf_value(8u);
  CHECK(error_of<V6>(v6) == "");
  value_of(v6, "rwkv6.attention.layer_norm_epsilon") = gguf_value(2e-5f);
  const std::string file = v6.file();
  CHECK(load_checkpoint<Net<V6>>(open_tensors(build::bytes(file), "m.gguf")).sizes().norm_epsilon == 2e-5);
  // A weight that undoing the halves makes too large.
  const std::string large = build::u32(0x7f000000);  // 2^127
  tensor_of(v6, "blk.1.time_mix_output.weight").data.replace(0, 4, large);
  check_says(error_of<V6>(v6),
             "blocks.1.att.output.weight (in the file 'blk.1.time_mix_output.weight'): element 0, 3.4");
  check_says(error_of<V6>(v6), "is too large for F32");
}
