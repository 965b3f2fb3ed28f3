// Models in GGUF files: every weight has the bits of the official file, where it lies if its type allows.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cstring>

#include "gguf_models.hpp"

using namespace gguf_models;
using build::Folder;
using build::put;

namespace {

template <class V>
using Net = LanguageModel<V, float, Cpu>;

template <class V>
void check_bits(const TensorFile& source, const Gguf& made) {
  const std::string file = made.file();
  const auto want = load_checkpoint<Net<V>>(source);
  const auto got = load_checkpoint<Net<V>>(open_tensors(build::bytes(file), "m.gguf"));
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
}

}  // namespace

TEST_CASE("GGUF: every weight of RWKV-6 and RWKV-7 has the bits of the official file") {
  check_bits<V7>(official_v7(), converted(official_v7()));
  for (const std::uint32_t rescale : {0u, 1u, 2u, 6u}) check_bits<V6>(official_v6(), converted(official_v6(), rescale));
}

TEST_CASE("GGUF: numbers of the model's type stay where the file has them") {
  const Folder folder;
  put(folder / "m.gguf", converted(official_v7()).file());
  const auto file = open_tensors(folder / "m.gguf", {.access = Access::mapped});
  auto net = load_checkpoint<Net<V7>>(file);
  const auto& time_mix = net.parts.body.parts[1].att.params;
  const auto bytes = [&](const char* name) { return static_cast<const void*>(file.find(name)->bytes.data()); };
  CHECK(static_cast<const void*>(net.parts.head.params.table.data) == bytes("output.weight"));
  CHECK(static_cast<const void*>(time_mix.w1.data) == bytes("blk.1.time_mix_w1.weight"));
  CHECK(static_cast<const void*>(time_mix.mix_r.data) == bytes("blk.1.time_mix_lerp_fused.weight"));
}

TEST_CASE("GGUF: weights that were quantised are saved in the computing type where that is asked for") {
  Gguf made = converted(official_v7());
  Gguf::Tensor& key = tensor_of(made, "blk.1.time_mix_key.weight");
  key.type = 8;
  key.data.assign(32 * 34, '\1');
  const Folder folder;
  put(folder / "m.gguf", made.file());
  save_checkpoint<float>(load_checkpoint<LanguageModel<V7, AsStored<float>, Cpu>>(folder / "m.gguf"), folder / "saved");
  const TensorFile saved = open_tensors(folder / "saved"), source = official_v7();
  for (const TensorView& tensor : saved.tensors()) {
    CAPTURE(tensor.name);
    CHECK(tensor.dtype == DType::f32);
    if (tensor.name == "blocks.1.att.key.weight" || tensor.name.starts_with("blocks.0.att.v")) continue;
    CHECK(build::text(tensor.bytes) == build::text(source.find(tensor.name)->bytes));
  }
  std::string numbers(32 * 32 * sizeof(float), '\0');
  detail::convert(DType::q8_0, build::bytes(key.data).data(), DType::f32, reinterpret_cast<std::byte*>(numbers.data()),
                  32 * 32);
  CHECK(build::text(saved.find("blocks.1.att.key.weight")->bytes) == numbers);
}
