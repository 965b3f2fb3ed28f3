/// Models whose matrices keep the number types of their file: the bits of a model of that type, in place, and saved as
/// they came.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <map>
#include <set>

#include "../golden.hpp"
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

namespace {

/// Rows of whole blocks.
constexpr ModelSizes wide{.vocab = 37, .width = 64, .depth = 2, .ffn = 96};

/// What saving or loading says that fails; empty if it does not.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a quantised model is mapped, runs as it is, and is saved as it came") {
  const build::Folder folder;
  const auto exact = config::live<Net<float>>(wide, Cpu());
  const Quantisation types{.matrices = DType::q4_0, .embedding = DType::q5_1, .head = DType::q8_0};
  const auto list = save_quantised(exact, folder / "model", types, {{"note", "kept"}});
  REQUIRE(list.size() == 2 + 2 * 7);
  for (const QuantisedTensor& tensor : list) {
    CAPTURE(tensor.name);
    const auto count = static_cast<std::size_t>(tensor.before) / sizeof(float);
    CHECK(tensor.after == static_cast<Index>(bytes_of(tensor.type, count)));
    CHECK(tensor.error > 0.001);
    CHECK(tensor.error < 0.12);
  }
  CHECK(list.front().type == DType::q5_1);
  CHECK(list[1].type == DType::q4_0);
  CHECK(list.back().type == DType::q8_0);

  const auto file = open_tensors(folder / "model", {.access = Access::mapped});
  CHECK(file.metadata() == std::map<std::string, std::string>{{"note", "kept"}});
  auto net = load_checkpoint<Net<AsStored<float>>>(file);
  for (const auto& parameter : net.stored_parameters()) {
    CAPTURE(parameter.name);
    CHECK(is_quantised(parameter.dtype) == parameter.keeps_stored_type);
    CHECK(parameter.data == file.find(parameter.name)->bytes.data());
  }
  save_checkpoint(net, folder / "again", file.metadata());
  CHECK(build::get(folder / "again") == build::get(folder / "model"));

  // A step is a sequence of length one, on any number of threads.
  const auto tokens = config::some_tokens(40, wide.vocab);
  const auto logits = config::all_logits(net, tokens);
  CHECK(same_bits(config::all_logits(net, tokens, {.chunk = 1}), logits));
  CHECK(same_bits(config::all_logits(net, tokens, {.chunk = 7}), logits));
  const auto on_three = load_checkpoint<Net<AsStored<float>>>(file, {}, Cpu(3));
  CHECK(same_bits(config::all_logits(on_three, tokens), logits));
  // Memory of the caller is copied.
  const std::string bytes = build::get(folder / "model");
  const auto copied = load_checkpoint<Net<AsStored<float>>>(open_tensors(build::bytes(bytes), "memory"));
  CHECK(same_bits(config::all_logits(copied, tokens), logits));
  // Other models widen the weights; then the activations are exact.
  const auto widened = config::all_logits(load_checkpoint<Net<float>>(file), tokens);
  CHECK(golden::relative_error(logits, std::vector<double>(widened.begin(), widened.end())) < 0.05);
  CHECK(load_checkpoint<Net<bf16>>(file).parameter_count() == exact.parameter_count());
}

TEST_CASE("what cannot be quantised, or is not what its file says, is refused") {
  const build::Folder folder;
  const auto net = config::live<Net<float>>(wide, Cpu());
  const auto path = folder / "model";
  CHECK(error_of([&] { save_quantised(net, path, {.matrices = DType::q4_k}); }) ==
        "rwkv: numbers are quantised to Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0, not to Q4_K");
  CHECK(error_of([&] { save_quantised(net, path, {.matrices = DType::bf16, .head = DType::f16}); }) == "");
  const auto narrow = config::live<Net<float>>(sizes, Cpu());
  CHECK(error_of([&] { save_quantised(narrow, folder / "narrow"); }) ==
        (folder / "narrow").string() + ": emb.weight: rows of 20 numbers are no whole blocks of Q8_0, which have 32");
  CHECK(!std::filesystem::exists(folder / "narrow"));
  auto large = config::live<Net<float>>(wide, Cpu());
  large.parameters().front().data[33] = 1e38f;
  CHECK(error_of([&] { save_quantised(large, path); }) ==
        path.string() + ": emb.weight: the block of element 32 has a number that is too large for Q8_0");

  save_quantised(net, path);
  const std::string good = build::get(path);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    REQUIRE(from.size() == to.size());
    bad.replace(bad.find(from), from.size(), to);
    return error_of([&] { load_checkpoint<Net<AsStored<float>>>(open_tensors(build::bytes(bad), "bad")); });
  };
  const std::string entry = R"("rwkv.quantised.1.emb.weight":")";
  CHECK(with(entry + "Q8_0", entry + "Q3_0") ==
        "bad: tensor 'emb.weight': it is quantised as 'Q3_0', which is no type that is known");
  CHECK(with(entry + "Q8_0", entry + "Q4_0") ==
        "bad: tensor 'emb.weight': U8 [37, 68] does not hold rows of Q4_0 blocks, of 18 bytes each");
  const std::string other = with("rwkv.quantised.1.emb", "rwkv.quantised.2.emb");  // of a layout to come
  CHECK(other.find("emb.weight: file has ") != std::string::npos);
  std::string infinite = good;
  const auto file = open_tensors(build::bytes(infinite), "bad");
  const auto at = reinterpret_cast<const char*>(file.find("head.weight")->bytes.data()) - infinite.data();
  infinite.replace(static_cast<std::size_t>(at) + 34, 2, build::u16(0x7c00));
  CHECK(error_of([&] {
          load_checkpoint<Net<AsStored<float>>>(file);
        }).find("head.weight: element 32 is not a finite number") != std::string::npos);
}
