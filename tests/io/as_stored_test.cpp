/// Models whose matrices keep the number types of their file: the bits of a model of that type, in place, and saved as
/// they came.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <map>
#include <set>

#include "as_stored.hpp"

using namespace as_stored;

TEST_CASE("matrices are used where the file has them") {
  const build::Folder folder;
  write_model<bf16>(folder / "model");
  const auto file = open_tensors(folder / "model");
  auto net = load_checkpoint<Net<AsStored<float>>>(file);
  int in_place = 0;
  for (const auto& parameter : net.stored_parameters()) {
    const bool matrix = parameter.keeps_stored_type;
    CHECK(parameter.dtype == (matrix ? DType::bf16 : DType::f32));
    CHECK((parameter.data == file.find(parameter.name)->bytes.data()) == matrix);
    in_place += matrix;
  }
  CHECK(in_place == 2 + 2 * 7);  // embedding and head; four matrices of a time mix, three of a channel mix
}

TEST_CASE("a file of several types is kept and saved as it is") {
  const build::Folder folder;
  write_model<float>(folder / "f32");
  const auto source = open_tensors(folder / "f32");
  // Every third tensor in bf16, every third in f16.
  std::vector<TensorView> tensors(source.tensors().begin(), source.tensors().end());
  std::map<std::string, std::vector<std::byte>> bytes;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i % 3 == 0) continue;
    tensors[i].dtype = i % 3 == 1 ? DType::bf16 : DType::f16;
    auto& to = bytes[tensors[i].name];
    const auto from = tensors[i].bytes;
    to.resize(from.size() / 2);
    detail::convert(DType::f32, from.data(), tensors[i].dtype, to.data(), from.size() / sizeof(float));
    tensors[i].bytes = to;
  }
  save_safetensors(folder / "mixed", tensors);
  const auto net = load_checkpoint<Net<AsStored<float>>>(folder / "mixed");
  const auto converted = load_checkpoint<Net<float>>(folder / "mixed");
  const auto tokens = config::some_tokens(9, sizes.vocab);
  CHECK(same_bits(config::all_logits(net, tokens), config::all_logits(converted, tokens)));

  save_checkpoint(net, folder / "again");
  const auto before = open_tensors(folder / "mixed"), after = open_tensors(folder / "again");
  REQUIRE(after.tensors().size() == before.tensors().size());
  std::set<DType> types;
  before.for_each([&](const TensorView& tensor) {
    const TensorView* saved = after.find(tensor.name);
    REQUIRE(saved != nullptr);
    CHECK(saved->dtype == tensor.dtype);
    CHECK(std::ranges::equal(saved->bytes, tensor.bytes));
    types.insert(tensor.dtype);
  });
  CHECK(types.size() == 3);
  save_checkpoint<float>(net, folder / "widened");
  open_tensors(folder / "widened").for_each([](const TensorView& tensor) { CHECK(tensor.dtype == DType::f32); });
}

TEST_CASE("weights of a new AsStored model are zeros of the computing type") {
  Net<AsStored<float>> net(sizes);
  CHECK(net.parameter_count() == Net<float>(sizes).parameter_count());
  for (const auto& parameter : net.stored_parameters()) {
    CHECK(parameter.dtype == DType::f32);
    CHECK(*static_cast<const float*>(parameter.data) == 0);
  }
}

TEST_CASE("a parameter of one type is not bound to another") {
  Net<bf16> net(sizes);
  auto parameter = net.stored_parameters().front();
  float number = 0;
  CHECK_THROWS_WITH_AS(parameter.bind(&number, DType::f32), "emb.weight: a parameter of BF16 numbers is bound to F32",
                       Error);
  Net<AsStored<float>> any(sizes);
  auto matrix = any.stored_parameters().front();
  for (const DType wrong : {DType::f64, DType::i8, DType::i32}) CHECK_THROWS_AS(matrix.bind(&number, wrong), Error);
  CHECK_THROWS_WITH_AS(std::as_const(any).stored_parameters().front().bind(&number, DType::f32),
                       "emb.weight: a parameter of a const model cannot be bound", Error);
}
