// Every reference file opens, and the official .pth agrees with the .safetensors that it was rounded from.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/core/number.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"

#include "../golden.hpp"
#include "checks.hpp"

using rwkv::DType;
using rwkv::Index;
using rwkv::TensorView;
namespace fs = std::filesystem;

namespace {

const fs::path folder = golden::folder();

template <class T>
T element(const TensorView& tensor, std::size_t i) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

/// Names and shapes of an official RWKV-4 checkpoint.
std::map<std::string, std::vector<Index>> rwkv4_shapes(Index layers, Index width, Index ffn_width, Index vocab) {
  std::map<std::string, std::vector<Index>> shapes;
  const auto norm = [&](const std::string& name) { shapes[name + ".weight"] = shapes[name + ".bias"] = {width}; };
  shapes["emb.weight"] = shapes["head.weight"] = {vocab, width};
  norm("blocks.0.ln0");
  norm("ln_out");
  for (Index l = 0; l < layers; ++l) {
    const std::string block = "blocks." + std::to_string(l) + ".";
    norm(block + "ln1");
    norm(block + "ln2");
    shapes[block + "att.time_decay"] = shapes[block + "att.time_first"] = {width};
    for (const char* mix : {"att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r"})
      shapes[block + mix] = {1, 1, width};
    for (const char* matrix : {"att.key", "att.value", "att.receptance", "att.output", "ffn.receptance"})
      shapes[block + matrix + ".weight"] = {width, width};
    shapes[block + "ffn.key.weight"] = {ffn_width, width};
    shapes[block + "ffn.value.weight"] = {width, ffn_width};
  }
  return shapes;
}

void check_shapes(const rwkv::TensorFile& file, const std::map<std::string, std::vector<Index>>& shapes, DType dtype) {
  CHECK(file.tensors().size() == shapes.size());
  for (const auto& expected : shapes) {
    CAPTURE(expected.first);
    const TensorView* tensor = file.find(expected.first);
    REQUIRE(tensor != nullptr);
    CHECK(tensor->shape == expected.second);
    CHECK(tensor->dtype == dtype);
  }
}

}  // namespace

TEST_CASE("golden: every file opens, mapped and loaded alike") {
  std::size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".safetensors" && extension != ".pth") continue;
    ++count;
    CAPTURE(entry.path());
    const rwkv::TensorFile loaded = rwkv::open_tensors(entry.path(), {.access = rwkv::Access::loaded});
    const rwkv::TensorFile mapped = rwkv::open_tensors(entry.path(), {.access = rwkv::Access::mapped});
    CHECK(mapped.is_mapped());
    REQUIRE(!loaded.tensors().empty());
    REQUIRE(loaded.tensors().size() == mapped.tensors().size());
    std::size_t total = 0;
    for (std::size_t i = 0; i < loaded.tensors().size(); ++i) {
      const TensorView& a = loaded.tensors()[i];
      const TensorView& b = mapped.tensors()[i];
      CHECK(a.name == b.name);
      CHECK(a.shape == b.shape);
      REQUIRE(a.bytes.size() == b.bytes.size());
      CHECK(std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0);
      CHECK(loaded.find(a.name) == &a);
      total += a.bytes.size();
    }
    CHECK(total <= fs::file_size(entry.path()));
  }
  CHECK(count >= 10);
}

TEST_CASE("golden: the official .pth of RWKV-4 holds the weights of its float32 source, rounded") {
  if (golden::is_subset()) {
    MESSAGE("skipped: the trained models are not in the golden subset");
    return;
  }
  const rwkv::TensorFile pth = rwkv::open_tensors(folder / "models/rwkv4-tiny-660k-bf16.pth");
  const rwkv::TensorFile source = rwkv::open_tensors(folder / "models/rwkv4-tiny-660k-f32.safetensors");
  check_shapes(pth, rwkv4_shapes(4, 128, 256, 256), DType::bf16);
  check_shapes(source, rwkv4_shapes(4, 128, 256, 256), DType::f32);
  CHECK(pth.tensors().front().name == "emb.weight");
  CHECK(pth.tensors().back().name == "head.weight");
  for (const TensorView& tensor : pth.tensors()) {
    CAPTURE(tensor.name);
    const TensorView& wide = *source.find(tensor.name);
    std::size_t different = 0;
    for (std::size_t i = 0; i < tensor.bytes.size() / 2; ++i)
      different += rwkv::bf16(element<float>(wide, i)).bits != element<rwkv::bf16>(tensor, i).bits;
    CHECK(different == 0);
  }
}

TEST_CASE("golden: a plain dictionary of RWKV-7") {
  if (golden::is_subset()) {
    MESSAGE("skipped: the trained models are not in the golden subset");
    return;
  }
  const rwkv::TensorFile file = rwkv::open_tensors(folder / "models/rwkv7-tiny-834k-bf16.pth");
  CHECK(file.tensors().size() == 399);
  CHECK(file.find("emb.weight")->shape == std::vector<Index>{256, 64});
  CHECK(file.find("blocks.11.att.r_k")->shape == std::vector<Index>{1, 64});
  CHECK(file.find("blocks.1.att.v0")->shape == std::vector<Index>{1, 1, 64});
  CHECK(file.find("blocks.0.att.v0") == nullptr);
  for (const TensorView& tensor : file.tensors()) {
    CHECK(tensor.dtype == DType::bf16);
    for (std::size_t i = 0; i < tensor.bytes.size() / 2; ++i) {
      const auto value = static_cast<float>(element<rwkv::bf16>(tensor, i));
      if (!(value > -100 && value < 100)) FAIL(tensor.name, " holds ", value);
    }
  }
}

TEST_CASE("golden: saving a file as .safetensors keeps every tensor") {
  const build::Folder copies;
  for (const auto& path : golden::files("models", "rwkv4", golden::is_subset() ? 2 : 6)) {
    const rwkv::TensorFile from = rwkv::open_tensors(path);
    rwkv::save_safetensors(copies / "copy", from.tensors(), from.metadata());
    const rwkv::TensorFile to = rwkv::open_tensors(copies / "copy");
    CHECK(to.metadata() == from.metadata());
    REQUIRE(to.tensors().size() == from.tensors().size());
    // The writer orders tensors by the size of their numbers.
    for (const TensorView& tensor : from.tensors()) {
      const TensorView* copy = to.find(tensor.name);
      REQUIRE(copy != nullptr);
      CHECK(copy->dtype == tensor.dtype);
      CHECK(copy->shape == tensor.shape);
      CHECK((build::text(copy->bytes) == build::text(tensor.bytes)));
    }
  }
}
