// Models in GGUF files, as llama.cpp's converter writes them, give the bits of the official file.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <array>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gguf_models.hpp"
#include "rwkv/core/block_formats.hpp"

using namespace gguf_models;
using build::Folder;
using build::put;

namespace {

std::vector<float> logits_of(const std::filesystem::path& path, const LoadOptions& options = {}) {
  const AnyModel model = load_model<Cpu>(path, {}, options);
  const Token tokens[] = {3, 1, 4, 1, 5, 9, 2, 6};
  auto context = model.context();
  const auto last = context.prefill(tokens);
  return {last.begin(), last.end()};
}

/// The file must give the logits of the official one; returns what was said about it.
std::string check_same(const TensorFile& source, const Gguf& made) {
  const Folder folder;
  put(folder / "m.gguf", made.file());
  std::string said;
  const LoadOptions options{.note = [&](std::string_view note) { said.append(note).append("\n"); }};
  CHECK(logits_of(folder / "m.gguf", options) == logits_of(source.path()));
  CHECK(said.find("to variances") == std::string::npos);
  return said;
}

/// What loading says that fails; empty if it does not.
std::string error_of(const Gguf& made) {
  const Folder folder;
  put(folder / "m.gguf", made.file());
  try {
    load_model<Cpu>(folder / "m.gguf");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("GGUF: RWKV-6 and RWKV-7 load with the bits of the official file") {
  check_says(
      check_same(official_v7(), converted(official_v7())),
      "its names are those of llama.cpp for RWKV-7; 69 tensors have another one, 14 of them their axes the other "
      "way round");
  check_says(check_same(official_v6(), converted(official_v6())), "its names are those of llama.cpp for RWKV-6; ");
  for (const std::uint32_t rescale : {1u, 2u, 6u}) check_same(official_v6(), converted(official_v6(), rescale));
  // An older form of RWKV-6 has a tensor for every mix.
  Gguf made = converted(official_v6());
  std::erase_if(made.tensors, [](const auto& tensor) { return tensor.name.ends_with("fused.weight"); });
  for (const std::string layer : {"0", "1"}) {
    for (const std::string mix : {"w", "k", "v", "r", "g"}) {
      made.tensors.push_back({"blk." + layer + ".time_mix_lerp_" + mix + ".weight",
                              {32},
                              0,
                              as_floats(*official_v6().find("blocks." + layer + ".att.time_maa_" + mix), 1)});
    }
  }
  check_same(official_v6(), made);
  // The sizes are those of the tensors where the metadata say nothing, but for heads.
  std::erase_if(made.metadata, [](const auto& pair) {
    return pair.first != "general.architecture" && pair.first != "rwkv6.wkv.head_size";
  });
  check_same(official_v6(), made);
}

TEST_CASE("GGUF: quantised matrices stay, or are widened") {
  // The tensors of a layer of 256 channels, under official names.
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
  std::uint32_t state = 1;
  const auto random = [&] { return static_cast<unsigned char>((state = state * 1664525u + 1013904223u) >> 24); };
  const TensorFile source = official_v7();
  Gguf made;
  std::map<std::string, std::string> widened;
  std::vector<TensorView> tensors;
  for (const TensorView& tensor : source.tensors()) {
    if (tensor.name.starts_with("blocks.1.")) continue;
    TensorView& wide = tensors.emplace_back(tensor);
    std::size_t count = 1;
    for (Index& size : wide.shape) {
      size = size >= 32 ? 256 : size >= 8 ? 32 : size == 4 ? 8 : size;
      count *= static_cast<std::size_t>(size);
    }
    std::string& numbers = widened[tensor.name];
    std::string data;
    std::uint32_t type = 0;
    if (const auto quantised = types.find(tensor.name); quantised != types.end()) {
      type = quantised->second.first;
      with_block(quantised->second.second, [&]<class Block>(Block block) {
        float values[Block::length];
        for (std::size_t i = 0; i < count; i += Block::length) {
          std::array<unsigned char, sizeof(Block)> bytes;
          for (auto& byte : bytes) byte = random();
          std::memcpy(&block, bytes.data(), sizeof(Block));
          block.unit = f16(0x1p-12f);
          if constexpr (requires { block.least; }) block.least = f16(-0x1p-8f);
          if constexpr (requires { block.offset_unit; }) block.offset_unit = f16(0x1p-12f);
          data.append(reinterpret_cast<const char*>(&block), sizeof(Block));
          dequantise(block, values);
          numbers.append(reinterpret_cast<const char*>(values), sizeof(values));
        }
      });
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        const float number = static_cast<float>(random()) * 0x1p-10f - 0x1p-3f;
        numbers.append(reinterpret_cast<const char*>(&number), sizeof(number));
      }
      data = numbers;
    }
    wide.dtype = DType::f32;
    wide.bytes = build::bytes(numbers);
    made.tensors.push_back({tensor.name, {wide.shape.rbegin(), wide.shape.rend()}, type, data});
  }
  const Folder folder;
  put(folder / "m.gguf", made.file());
  save_safetensors(folder / "widened.safetensors", tensors);
  // As stored, the matrices stay quantised, but for one with its axes exchanged; they are saved so, or widened.
  const auto stored = load_checkpoint<LanguageModel<V7, AsStored<float>, Cpu>>(folder / "m.gguf");
  for (const auto& parameter : stored.stored_parameters()) {
    const auto quantised = types.find(parameter.name);
    const bool stays = quantised != types.end() && parameter.name != "blocks.0.att.w1";
    CHECK(parameter.dtype == (stays ? quantised->second.second : DType::f32));
  }
  const auto quantised = logits_of(folder / "m.gguf"), exact = logits_of(folder / "widened.safetensors");
  CHECK(golden::relative_error(quantised, std::vector<double>(exact.begin(), exact.end())) < 0.05);
  save_checkpoint(stored, folder / "again");
  CHECK(logits_of(folder / "again") == quantised);
  save_checkpoint<float>(stored, folder / "again");
  CHECK(logits_of(folder / "again") == exact);

  // Rounded once, on the way to a 16-bit type; refused where that has no finite number, or they are none.
  const Gguf::Tensor& q8 = tensor_of(made, "blocks.0.ffn.key.weight");
  const std::string& floats = widened.at(q8.name);
  std::vector<std::byte> rounded(floats.size() / 2), direct(floats.size() / 2);
  detail::convert(DType::q8_0, build::bytes(q8.data).data(), DType::bf16, direct.data(), floats.size() / 4);
  detail::convert(DType::f32, build::bytes(floats).data(), DType::bf16, rounded.data(), floats.size() / 4);
  CHECK(direct == rounded);
  Gguf broken = made;
  tensor_of(broken, "blocks.0.ffn.key.weight").data.replace(34 * 3, 2, "\xff\x7f");
  check_says(error_of(broken), "blocks.0.ffn.key.weight: element 96 is not a finite number");
  broken = made;
  tensor_of(broken, "blocks.0.ffn.value.weight").data.replace(144 + 2, 2, build::u16(0x7c00));
  check_says(error_of(broken), "blocks.0.ffn.value.weight: element 256 is not a finite number");
  broken = made;
  tensor_of(broken, "blocks.0.ffn.value.weight").type = 10;
  tensor_of(broken, "blocks.0.ffn.value.weight").data.resize(256 * 84);
  check_says(error_of(broken), "blocks.0.ffn.value.weight: cannot be read: its numbers are of the type Q2_K of ggml");
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
  const Gguf good = converted(official_v7());
  CHECK(error_of(good) == "");
  const auto with = [&](const std::string& key, const std::string& value) {
    Gguf made = good;
    value_of(made, key) = value;
    return error_of(made);
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
  check_says(error_of(made), "m.gguf: its metadata lack rwkv7.wkv.head_size");
  made = good;
  made.metadata.erase(made.metadata.begin());
  check_says(error_of(made), "m.gguf: its metadata lack general.architecture");
  made = good;
  made.metadata.emplace_back("split.count", build::u32(2) + build::u16(3));
  check_says(error_of(made), "m.gguf: this is one part of a model in several; join them with");
  made = {{{"general.architecture", gguf_value("llama")}},
          {{"token_embd.weight", {2, 3}, 0, std::string(24, '\0')}, {"blk.0.attn_q.weight", {1}, 0, "1234"}}};
  check_says(error_of(made), "m.gguf: this is a model of the architecture 'llama', where 'rwkv6' and 'rwkv7' are read");

  Gguf v6 = converted(official_v6(), 1);
  value_of(v6, "rwkv6.wkv.head_size") = gguf_value(16u);
  check_says(error_of(v6), "rwkv6.wkv.head_size is 16 in its metadata, and 8 by the shapes of its tensors");
  value_of(v6, "rwkv6.wkv.head_size") = gguf_value(8u);
  CHECK(error_of(v6) == "");
  value_of(v6, "rwkv6.attention.layer_norm_epsilon") = gguf_value(2e-5f);
  const Folder folder;
  put(folder / "m.gguf", v6.file());
  CHECK(load_model<Cpu>(folder / "m.gguf").sizes().norm_epsilon == 2e-5);
  // A weight that undoing the halves makes too large.
  const std::string large = build::u32(0x7f000000);  // 2^127
  tensor_of(v6, "blk.1.time_mix_output.weight").data.replace(0, 4, large);
  check_says(error_of(v6), "blocks.1.att.output.weight (in the file 'blk.1.time_mix_output.weight'): element 0, 3.4");
  check_says(error_of(v6), "is too large for F32");
}
