/// States to and from files: what follows a file is what would have followed without it, and what does not fit is refused.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "../model/live.hpp"
#include "../versions.hpp"

using namespace rwkv;
using config::live;
using config::some_tokens;

namespace {

const ModelSizes sizes{.vocab = 20, .width = 16, .depth = 2, .head_size = 8};

template <class V>
using NetOf = LanguageModel<V, float, Cpu>;

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::filesystem::path temporary(const std::string& name) { return std::filesystem::temp_directory_path() / name; }

template <class V>
void check_round_trip() {
  const auto net = live<NetOf<V>>(sizes, Cpu());
  const auto path = temporary("rwkv_state_trip.safetensors");
  auto straight = net.context();
  straight.prefill(some_tokens(7, 20));
  save_state(straight, 0, path, {{"chat", "first"}});
  auto resumed = net.context();
  resumed.step(3);
  load_state(resumed, 0, path);
  CHECK(resumed.position(0) == 7);
  CHECK(resumed.state() == straight.state());
  for (const Token token : some_tokens(3, 20, 8)) CHECK(copy(resumed.step(token)) == copy(straight.step(token)));
  CHECK(resumed.position(0) == 10);

  // The file by itself: the tensors of visit_state, and what they belong to.
  const TensorFile file = open_tensors(path);
  std::size_t tensors = 0;
  resumed.visit_state([&](const std::string& name, const Mat<float>& view) {
    const TensorView* found = file.find(name);
    REQUIRE(found != nullptr);
    CHECK(found->shape == std::vector<Index>{view.cols});
    ++tensors;
  });
  CHECK(file.tensors().size() == tensors);
  auto texts = file.metadata();
  CHECK(texts["chat"] == "first");
  CHECK(texts["rwkv.position"] == "7");
  CHECK(texts["rwkv.head_size"] == "8");

  // One sequence of several, to another place; the others stay as they are.
  auto batch = net.context({.batch = 3});
  batch.prefill(some_tokens(12, 20));
  const auto first = batch.state(0), second = batch.state(1);
  save_state(batch, 2, path);
  const auto third = batch.state(2);
  load_state(resumed, 0, path);
  CHECK(resumed.state(0) == third);
  load_state(batch, 0, path);
  CHECK(batch.state(0) == third);
  CHECK(batch.state(1) == second);

  AnyContext any(net.context());
  load_state(any, 0, path);
  CHECK(any.state(0) == third);
  CHECK(any.position(0) == 4);
  save_state(any, 0, path);
  load_state(batch, 1, path);
  CHECK(batch.state(1) == third);
}

/// A file of a state that a test can damage, and a context that refuses it.
struct Draft {
  using Net = NetOf<V7>;
  std::map<std::string, std::string> texts;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::vector<std::byte>> bytes;
  std::filesystem::path path = temporary("rwkv_state_draft.safetensors");

  Draft() {
    const auto net = live<Net>(sizes, Cpu());
    auto context = net.context();
    context.prefill(some_tokens(7, 20));
    save_state(context, 0, path);
    const TensorFile file = open_tensors(path);
    texts = file.metadata();
    file.for_each([&](const TensorView& tensor) { set(tensor.name, tensor.dtype, tensor.shape, tensor.bytes); });
  }
  void set(const std::string& name, DType dtype, std::vector<Index> shape, std::span<const std::byte> content) {
    bytes[name].assign(content.begin(), content.end());
    tensors[name] = {name, dtype, std::move(shape), bytes[name]};
  }
  void write() const {
    std::vector<TensorView> list;
    for (const auto& [name, tensor] : tensors) list.push_back(tensor);
    save_safetensors(path, list, texts);
  }
  /// Tries to load the file, and checks that nothing changed; returns the sentence without the path.
  template <class M>
  std::string refusal_by(Context<M> context) const {
    write();
    context.step(std::vector<Token>{1, 2});
    const auto state = context.state();
    std::string said;
    try {
      load_state(context, 1, path);
    } catch (const Error& error) {
      said = error.what();
    }
    CHECK(context.state() == state);
    CHECK(context.position(1) == 1);
    const std::string name = detail::path_text(path) + ": ";
    CHECK(said.starts_with(name));
    return said.substr(std::min(said.size(), name.size()));
  }
  std::string refusal() const { return refusal_by(live<Net>(sizes, Cpu()).context({.batch = 2})); }
};

}  // namespace

TEST_CASE("a state that went through a file goes on as if it had never stopped") {
  config::each_version([&]<class V>() { check_round_trip<V>(); });
}

TEST_CASE("a state of another model is refused") {
  const auto refusal = [](ModelSizes other) {
    return Draft().refusal_by(live<NetOf<V7>>(other, Cpu()).context({.batch = 2}));
  };
  const std::string another = "the state belongs to another model: ";
  ModelSizes other = sizes;
  other.vocab = 21;
  CHECK(refusal(other) == another + "vocab is '20' there and '21' here");
  other = sizes;
  other.width = 24;
  CHECK(refusal(other) == another + "width is '16' there and '24' here");
  other = sizes;
  other.depth = 3;
  CHECK(refusal(other) == another + "depth is '2' there and '3' here");
  other = sizes;
  other.head_size = 4;
  CHECK(refusal(other) == "blocks.0.att.wkv: file has [128], the model expects [64]");
  CHECK(Draft().refusal_by(live<NetOf<V4>>(sizes, Cpu()).context({.batch = 2})) ==
        another + "version is 'RWKV-7' there and 'RWKV-4' here");
  CHECK(Draft().refusal_by(live<LanguageModel<V7, double, Reference>>(sizes, {}).context({.batch = 2})) ==
        another + "number_type is 'F32' there and 'F64' here");
  Draft draft;
  draft.texts.erase("rwkv.version");
  CHECK(draft.refusal() == another + "version is 'nothing' there and 'RWKV-7' here");
  draft = Draft();
  draft.texts["rwkv.layout"] = "head, value, key";
  CHECK(draft.refusal() == another + "layout is 'head, value, key' there and 'head, key, value' here");
}

TEST_CASE("a file that is no whole state is refused") {
  Draft draft;
  draft.texts.erase("rwkv.state");
  CHECK(draft.refusal() == "this is no file of a state");
  draft.texts["rwkv.state"] = "2";
  CHECK(draft.refusal() == "the state has the format '2', where this library reads 1");

  draft = Draft();
  draft.tensors.erase("blocks.1.ffn.shift");
  CHECK(draft.refusal() == "blocks.1.ffn.shift is missing from the file");
  draft = Draft();
  draft.set("blocks.2.ffn.shift", DType::f32, {16}, std::vector<std::byte>(64));
  CHECK(draft.refusal() == "the file holds 7 tensors, the state has 6");
  draft = Draft();
  draft.set("blocks.0.att.shift", DType::f16, {16}, std::vector<std::byte>(32));
  CHECK(draft.refusal() == "blocks.0.att.shift: file has F16 numbers, the model computes in F32");
  draft.set("blocks.0.att.shift", DType::f32, {1, 16}, std::vector<std::byte>(64));
  CHECK(draft.refusal() == "blocks.0.att.shift: file has [1, 16], the model expects [16]");

  draft = Draft();
  const float nan = NAN;
  std::memcpy(draft.bytes["blocks.1.att.wkv"].data() + 5 * sizeof(float), &nan, sizeof(float));
  CHECK(draft.refusal() == "blocks.1.att.wkv has NaN at 5");

  draft = Draft();
  draft.texts.erase("rwkv.position");
  CHECK(draft.refusal() == "the file does not say how many tokens the state has seen");
  for (const std::string text : {"-1", "", "seven", "7 ", "99999999999999999999"}) {
    draft.texts["rwkv.position"] = text;
    CHECK(draft.refusal() == "the state cannot have seen '" + text + "' tokens");
  }
}

TEST_CASE("what cannot be saved or loaded says so") {
  const auto net = live<NetOf<V7>>(sizes, Cpu());
  auto context = net.context();
  const auto path = temporary("rwkv_state_refused.safetensors");
  std::filesystem::remove(path);
  const auto none = "rwkv: there is no sequence 1 in a context of 1";
  CHECK_THROWS_WITH_AS(save_state(context, 1, path), none, Error);
  CHECK_THROWS_WITH_AS(load_state(context, 1, path), none, Error);
  CHECK_THROWS_AS(load_state(context, 0, path), Error);
  CHECK_THROWS_WITH_AS(save_state(context, 0, path, {{"rwkv.position", "3"}}),
                       "rwkv: the metadata 'rwkv.position' would be taken for those of the state, which start with "
                       "'rwkv.'",
                       Error);
  AnyContext any(live<LanguageModel<V7, double, Reference>>(sizes, {}).context());
  const auto part =
      "rwkv: the model computes in F64, and its handle has the state in F32, which is not all of it; use the context "
      "of the model itself";
  CHECK_THROWS_WITH_AS(save_state(any, 0, path), part, Error);
  CHECK_THROWS_WITH_AS(load_state(any, 0, path), part, Error);
  CHECK(!std::filesystem::exists(path));
}

TEST_CASE("a state of a model that does not tell its version keeps to such models") {
  const StateLayout layout{nullptr, sizes, DType::f32, {{"layers.0.own", 2}, {"layers.1.none", 0}}};
  const auto path = temporary("rwkv_state_own.safetensors");
  const float numbers[] = {1.5f, -INFINITY};
  detail::write_state(path, layout, std::as_bytes(std::span(numbers)), Index{1} << 40, {}, system_files());
  const auto saved = detail::read_state(path, layout, system_files());
  CHECK(saved.position == Index{1} << 40);
  CHECK(std::ranges::equal(saved.numbers, std::as_bytes(std::span(numbers))));
  Draft draft;
  draft.write();
  CHECK_THROWS_WITH_AS(static_cast<void>(detail::read_state(draft.path, layout, system_files())),
                       doctest::Contains("version is 'RWKV-7' there and 'nothing' here"), Error);
}
