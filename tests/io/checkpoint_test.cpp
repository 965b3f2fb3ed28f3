/// Checkpoints into models: what does not fit is refused in one report, what fits is used where it lies.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>

#include "../golden.hpp"
#include "../model/live.hpp"

using namespace rwkv;

namespace {

using Version = V4;  // whose tensors this file names
using Net = LanguageModel<Version, float, Cpu>;

/// A checkpoint in memory that a test can damage before it is written and read again.
struct Draft {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::vector<std::byte>> bytes;

  Draft() {
    const auto net = config::live<Net>({.vocab = 6, .width = 4, .depth = 2, .ffn = 8}, Cpu());
    for (const auto& parameter : net.parameters()) {
      const auto shape = parameter.shape.span();
      set(parameter.name, DType::f32, {shape.begin(), shape.end()}, std::as_bytes(parameter.numbers()));
    }
  }
  void set(const std::string& name, DType dtype, std::vector<Index> shape, std::span<const std::byte> content) {
    bytes[name].assign(content.begin(), content.end());
    tensors[name] = {name, dtype, std::move(shape), bytes[name]};
  }
  void zeros(const std::string& name, DType dtype, std::vector<Index> shape) {
    Index count = static_cast<Index>(size_of(dtype));
    for (const Index size : shape) count *= size;
    set(name, dtype, std::move(shape), std::vector<std::byte>(static_cast<std::size_t>(count)));
  }
  Net load(const LoadOptions& options = {}) const {
    const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_draft.safetensors";
    std::vector<TensorView> list;
    for (const auto& [name, tensor] : tensors) list.push_back(tensor);
    save_safetensors(path, list);
    return load_checkpoint<Net>(path, options);
  }
  std::string error(const LoadOptions& options = {}) const {
    try {
      load(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("an intact draft loads") { CHECK(Draft().error() == ""); }

TEST_CASE("one report lists everything that does not fit") {
  Draft draft;
  draft.tensors.erase("blocks.1.att.key.weight");
  draft.zeros("blocks.0.att.value.weight", DType::f32, {4, 5});
  draft.zeros("blocks.0.ffn.time_mix_k", DType::i32, {1, 1, 4});
  draft.zeros("blocks.0.att.surprise", DType::f32, {3});
  const std::string error = draft.error();
  CAPTURE(error);
  CHECK(mentions(error, "rwkv_checkpoint_draft.safetensors"));
  CHECK(mentions(error, "in 4 places (by its names it holds RWKV-4)"));
  CHECK(mentions(error, "blocks.1.att.key.weight: missing from the file, the model expects [4, 4]"));
  CHECK(mentions(error, "blocks.0.att.value.weight: file has [4, 5], model expects [4, 4]"));
  CHECK(mentions(error, "blocks.0.ffn.time_mix_k: file has I32 numbers, weights are F64, F32, F16 or BF16"));
  CHECK(mentions(error, "'blocks.0.att.surprise': unexpected, the model has no such tensor; file has [3]"));
}

TEST_CASE("a file that is no RWKV checkpoint says what is missing") {
  Draft draft;
  draft.tensors.erase("emb.weight");
  CHECK(mentions(draft.error(), "this is no RWKV checkpoint: it holds no tensor emb.weight"));
  draft = Draft();
  draft.zeros("emb.weight", DType::f32, {24});
  CHECK(mentions(draft.error(), "emb.weight has shape [24], a checkpoint has [vocab, width]"));
  draft = Draft();
  std::erase_if(draft.tensors, [](const auto& tensor) { return tensor.first.starts_with("blocks."); });
  CHECK(mentions(draft.error(), "it holds no tensor blocks.0."));
  draft = Draft();
  draft.zeros("blocks.4000000000.ln1.weight", DType::f32, {4});
  CHECK(mentions(draft.error(), "'blocks.4000000000.ln1.weight' cannot be right in a file of"));
  draft = Draft();
  draft.zeros("emb.weight", DType::f32, {0, 4});
  CHECK(mentions(draft.error(), "emb.weight is empty, with shape [0, 4]"));
}

TEST_CASE("where tensors disagree about a size, the first one stands and the others are named") {
  Draft draft;
  const Index ffn = draft.tensors.at("blocks.0.ffn.key.weight").shape[0];
  draft.zeros("blocks.1.ffn.value.weight", DType::f32, {4, ffn + 3});
  const std::string error = draft.error();
  CAPTURE(error);
  CHECK(mentions(error, "in 1 place ("));
  CHECK(mentions(error, join("blocks.1.ffn.value.weight: file has [4, ", ffn + 3, "], model expects [4, ", ffn, "]")));
}

TEST_CASE("what a model leaves open, the type of its sizes may say") {
  const LanguageModel<V7, float, Cpu, Dims<16, 2>> heads({.vocab = 3, .width = 16, .depth = 1});
  CHECK(heads.parts.body.parts[0].att.dims.head_size() == 8);
  const TimeMix<V6, float, Cpu, Dims<16, 2, 40>> mix({.width = 16}, 0);
  CHECK(mix.dims.ffn == 40);
  CHECK_THROWS_WITH_AS((TimeMix<V6, float, Cpu>({.width = 8, .head_size = 4, .ranks = {.mix = -3}}, 0)),
                       "rwkv: the rank of a product must not be negative: -3", Error);
  CHECK_THROWS_WITH_AS((TimeMix<V6, float, Cpu>({.width = 8, .head_size = 4, .ranks = {.mix = Index{1} << 62}}, 0)),
                       "rwkv: a size of 4611686018427387904 is above 1099511627776", Error);
}

TEST_CASE("sizes that the model cannot have name the file") {
  using Fixed = LanguageModel<Version, float, Cpu, Dims<8, dyn, dyn, dyn>>;
  const Draft draft;
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_sizes.safetensors";
  std::vector<TensorView> list;
  for (const auto& [name, tensor] : draft.tensors) list.push_back(tensor);
  save_safetensors(path, list);
  CHECK_THROWS_WITH_AS(load_checkpoint<Fixed>(path),
                       (detail::path_text(path) + ": the width is fixed to 8 by the type, the model has 4").c_str(),
                       Error);
}

TEST_CASE("unexpected tensors are left out where their names fit a pattern") {
  Draft draft;
  draft.zeros("blocks.0.att.surprise", DType::f32, {3});
  draft.zeros("blocks.1.att.surprise", DType::i64, {});
  draft.zeros("step", DType::i64, {1});
  CHECK(mentions(draft.error(), "in 3 places"));
  CHECK(mentions(draft.error({.ignore = {"step"}}), "in 2 places"));
  CHECK(mentions(draft.error({.ignore = {"blocks.*.att.surprise"}}), "'step': unexpected"));
  CHECK(mentions(draft.error({.ignore = {"*"}}), "in 2 places"));  // which fits no dot
  CHECK(mentions(draft.error({.ignore = {"{step"}}), "has a { without its }"));
  CHECK(mentions(Draft().error({.ignore = {"step}"}}), "has a } without its {"));
  for (const std::vector<std::string>& patterns :
       {std::vector<std::string>{"blocks.?.att.surprise", "step"}, {"{step,blocks.*.*.surprise}"}, {"**"}}) {
    const auto net = draft.load({.ignore = patterns});
    const auto plain = Draft().load();
    for (std::size_t p = 0; p < net.parameters().size(); ++p) {  // what the model needs is loaded all the same
      CHECK(std::ranges::equal(net.parameters()[p].numbers(), plain.parameters()[p].numbers()));
    }
  }
  draft.tensors.erase("ln_out.bias");
  draft.zeros("head.weight", DType::f32, {6, 5});
  CHECK(mentions(draft.error({.ignore = {"**"}}), "ln_out.bias: missing from the file"));
  CHECK(mentions(draft.error({.ignore = {"**"}}), "head.weight: file has [6, 5], model expects [6, 4]"));
}

TEST_CASE("beside official names a foreign one says nothing about the file, unless it is that of an adapter") {
  for (const std::string name : {"ema.emb.weight", "blocks.0.att.missing", "module.head.weight", "blocks.0.attention.x",
                                 "lm_head.weight", "blocks.0.att.time_state"}) {
    Draft draft;
    draft.zeros(name, DType::f32, {3});
    CHECK(mentions(draft.error(), "in 1 place (by its names it holds RWKV-4):\n  '" + name + "': unexpected"));
  }
  for (const std::string name :
       {"blocks.0.att.key.lora_A", "blocks.0.att.key.lora_B.weight", "blocks.0.ffn.key.bone", "blocks.0.ffn.key.miss",
        "blocks.0.att.key.weight.D", "base_model.model.blocks.0.att.key.lora_A.weight"}) {
    Draft draft;
    draft.zeros(name, DType::f32, {3});
    CHECK(
        mentions(draft.error(), "; this holds an adapter; load_adapter() reads it for the model that it was made for"));
  }
}

TEST_CASE("an unreadable tensor is an error where the model needs it, and unexpected where it does not") {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_unreadable.safetensors";
  const auto error_with = [&](const std::string& name, const LoadOptions& options) -> std::string {
    Draft draft;
    const auto there = draft.tensors.find(name);
    const std::vector<Index> shape = there == draft.tensors.end() ? std::vector<Index>{3} : there->second.shape;
    draft.zeros(name, DType::u8, shape);
    std::vector<TensorView> list;
    for (const auto& [key, tensor] : draft.tensors) list.push_back(tensor);
    save_safetensors(path, list);
    std::ifstream in(path, std::ios::binary);
    std::string file(std::istreambuf_iterator<char>(in), {});
    file.replace(file.find("\"U8\""), 4, "\"F8\"");
    try {
      load_checkpoint<Net>(open_tensors(std::as_bytes(std::span(file)), "f8.safetensors"), options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::string reason = "cannot be read: its numbers are of the unknown type 'F8'";
  for (const std::string name : {"emb.weight", "head.weight", "ln_out.bias", "blocks.0.att.time_decay",
                                 "blocks.1.ffn.key.weight", "blocks.0.ln0.weight"}) {
    CHECK(mentions(error_with(name, {}), "in 1 place (by its names it holds RWKV-4):\n  " + name + ": " + reason));
    CHECK(mentions(error_with(name, {.ignore = {"**"}}), name + ": " + reason));
  }
  for (const std::string name : {"scales", "blocks.0.att.scale", "blocks.1.ffn.key.weight_mx", "emb", "x"}) {
    CHECK(mentions(error_with(name, {}), "'" + name + "': unexpected, the model has no such tensor, and it " + reason));
    CHECK(error_with(name, {.ignore = {"{scales,**.scale,**_mx,emb,x}"}}) == "");
  }
  std::filesystem::remove(path);
}

TEST_CASE("a tensor that is stored as another says so") {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_tied.safetensors";
  Draft draft;
  const auto error_without = [&](const std::string& name) -> std::string {
    std::vector<TensorView> list;
    for (const auto& [key, tensor] : draft.tensors) {
      if (key != name) list.push_back(tensor);
    }
    save_safetensors(path, list, {{name, "another.weight"}});
    try {
      load_checkpoint<Net>(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  for (const std::string name :
       {"head.weight", "ln_out.weight", "blocks.1.ln1.weight", "blocks.0.ln2.bias", "blocks.0.ffn.time_mix_k"}) {
    const std::string error = error_without(name);
    CAPTURE(error);
    CHECK(
        mentions(error, "in 1 place (by its names it holds RWKV-4):\n  " + name +
                            ": missing from the file, whose metadata say that it is the same as 'another.weight'; save "
                            "it without sharing, as a clone(), the model expects ["));
  }
  CHECK(mentions(error_without("emb.weight"), "it is the same as 'another.weight'; save it without sharing"));
  std::filesystem::remove(path);
}

TEST_CASE("a checkpoint of another version is named") {
  const std::pair<std::string, std::string> others[] = {{"rwkv7-rand-l2-d32-h4-f32", "RWKV-7"},
                                                        {"rwkv6-rand-l2-d32-h4-bf16", "RWKV-6"},
                                                        {"rwkv5.2-rand-l2-d32-h4-f32", "RWKV-5.2"},
                                                        {"rwkv5.1-rand-l2-d16-h2-f32", "RWKV-5.1"},
                                                        {"rwkv5.0-rand-l2-d16-h2-f32", "RWKV-5.0"}};
  for (const auto& other : others) {
    std::string message;
    try {
      load_checkpoint<Net>(golden::folder() / "models" / (other.first + ".safetensors"));
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(mentions(message, "by its names it holds " + other.second + ")"));
  }
  CHECK(version_named_by(open_tensors(golden::folder() / "models" / "rwkv4-rand-l2-d32-f32.safetensors")) ==
        &V4::official);
}

TEST_CASE("NaN and infinite weights are refused by name and place") {
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity()}) {
    Draft draft;
    std::memcpy(&draft.bytes["blocks.1.ffn.value.weight"][4 * 13], &poison, 4);
    CHECK(mentions(draft.error(), "blocks.1.ffn.value.weight: element 13 is not a finite number"));
    CHECK_NOTHROW(draft.load({.check_values = false}));
  }
}

TEST_CASE("tensors of the wanted type are used where they lie, others are converted") {
  const auto path = golden::folder() / "models" / "rwkv4-rand-l2-d32-f32.safetensors";
  const auto file = open_tensors(path, {.access = Access::mapped});
  for (const auto& parameter : load_checkpoint<Net>(file).parameters()) {
    CHECK(static_cast<const void*>(parameter.data) == file.find(parameter.name)->bytes.data());
  }
  for (const auto& parameter : load_checkpoint<LanguageModel<Version, double, Cpu>>(file).parameters()) {
    CHECK(static_cast<const void*>(parameter.data) != file.find(parameter.name)->bytes.data());
  }
}

TEST_CASE("writing to the weights of a mapped file leaves the file alone") {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_private.safetensors";
  save_checkpoint(config::live<Net>({.vocab = 6, .width = 4, .depth = 1}, Cpu()), path);
  float original;
  {
    auto net = load_checkpoint<Net>(path, {.access = Access::mapped});
    original = net.parts.head.params.table(0, 0);
    net.parts.head.params.table(0, 0) = original + 1;
  }
  CHECK(load_checkpoint<Net>(path).parts.head.params.table(0, 0) == original);
  std::filesystem::remove(path);
}

TEST_CASE("a model keeps its file alive") {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_alive.safetensors";
  save_checkpoint(config::live<Net>({.vocab = 6, .width = 4, .depth = 1}, Cpu()), path);
  const auto net = load_checkpoint<Net>(path, {.access = Access::mapped});
  std::filesystem::remove(path);
  const Token tokens[] = {1, 2, 3};
  auto context = net.context();
  CHECK(std::isfinite(context.prefill(tokens)[0]));
}

TEST_CASE("weights are stored under official names, in the order of official checkpoints") {
  const auto file = open_tensors(golden::folder() / "models" / "rwkv4-rand-l2-d32-f32.safetensors");
  const auto net = load_checkpoint<Net>(file);
  const auto parameters = net.parameters();
  CHECK(parameters.size() == file.tensors().size());
  for (const auto& parameter : parameters) {
    const auto* tensor = file.find(parameter.name);
    REQUIRE(tensor != nullptr);
    CHECK(std::ranges::equal(tensor->shape, parameter.shape.span()));
  }
  Index numbers = 0;
  file.for_each([&](const TensorView& tensor) { numbers += std::ssize(tensor.bytes) / 4; });
  CHECK(net.parameter_count() == numbers);
}

TEST_CASE_TEMPLATE("a model can be saved in another number type", Storage, double, float, f16, bf16) {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_rounded.safetensors";
  const auto net = config::live<Net>({.vocab = 6, .width = 4, .depth = 2}, Cpu());
  save_checkpoint<Storage>(net, path, {{"made", "by a test"}});
  const auto file = open_tensors(path);
  CHECK(file.metadata().at("made") == "by a test");
  CHECK(file.tensors().size() == net.parameters().size());
  const auto loaded = load_checkpoint<LanguageModel<Version, Storage, Cpu>>(file);
  const auto exact = net.parameters();
  const auto rounded = loaded.parameters();
  for (std::size_t p = 0; p < exact.size(); ++p) {
    CAPTURE(exact[p].name);
    const auto* tensor = file.find(exact[p].name);
    REQUIRE(tensor != nullptr);
    CHECK(size_of(tensor->dtype) == sizeof(Storage));
    for (std::size_t i = 0; i < exact[p].numbers().size(); ++i) {
      CHECK(widen<double>(rounded[p].numbers()[i]) == widen<double>(narrow<Storage>(exact[p].numbers()[i])));
    }
  }
  std::filesystem::remove(path);
}

TEST_CASE("a weight too large for the number type of the file is named, and nothing is written") {
  const auto path = std::filesystem::temp_directory_path() / "rwkv_checkpoint_large.safetensors";
  std::filesystem::remove(path);
  auto net = config::live<Net>({.vocab = 6, .width = 4, .depth = 1}, Cpu());
  net.parts.head.params.table(1, 2) = 1e5f;
  std::string message;
  try {
    save_checkpoint<f16>(net, path);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(mentions(message, "rwkv_checkpoint_large.safetensors: head.weight: element 6, 1e+05, is too large for F16"));
  CHECK(!std::filesystem::exists(path));
  CHECK_NOTHROW(save_checkpoint<bf16>(net, path));
  std::filesystem::remove(path);
}

TEST_CASE("a weight too large for the number type of the model is named when it is loaded") {
  Draft draft;
  std::vector<double> numbers(24, 0.5);
  numbers[7] = 1e300;
  draft.set("head.weight", DType::f64, {6, 4}, std::as_bytes(std::span(numbers)));
  CHECK(mentions(draft.error(), "head.weight: element 7, 1e+300, is too large for F32"));
}
