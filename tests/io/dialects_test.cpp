// Files that have the names, forms and containers of other programs load with the bits of the official file.
#include <doctest/doctest.h>

#include <rwkv/rwkv.hpp>

#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../golden.hpp"
#include "../versions.hpp"
#include "checks.hpp"

using namespace rwkv;
using build::Folder;
using build::get;
using build::put;

namespace {

template <class V>
using Net = LanguageModel<V, float, Cpu>;
using Words = std::vector<std::pair<std::string, std::string>>;

/// How a program names the tensors of the official code, word by word, and what else it does to them.
struct Form {
  Words words;
  bool turns = false;     // the low-rank matrices of RWKV-7
  bool squeezes = false;  // vectors [1, 1, C] to [C]
  bool lacks_first_values = false;
};

const Form transformers{{{"emb.", "rwkv.embeddings."},
                         {"ln_out.", "rwkv.ln_out."},
                         {"blocks.", "rwkv.blocks."},
                         {".ln0.", ".pre_ln."},
                         {".att.", ".attention."},
                         {".ffn.", ".feed_forward."},
                         {"time_mix_k", "time_mix_key"},
                         {"time_mix_v", "time_mix_value"},
                         {"time_mix_r", "time_mix_receptance"},
                         {"time_mix_g", "time_mix_gate"}}};

Form of_layers(Words words) {
  const Words common{{"ln_out.", "model.norm."},           {"head.", "lm_head."},
                     {"blocks.", "model.layers."},         {".ln_x.", ".g_norm."},
                     {".att.receptance.", ".att.r_proj."}, {".att.key.", ".att.k_proj."},
                     {".att.value.", ".att.v_proj."},      {".att.output.", ".att.o_proj."}};
  words.insert(words.end(), common.begin(), common.end());
  return {std::move(words), false, true, true};
}

Form fla() {
  Form form = of_layers(
      {{"emb.", "model.embeddings."}, {".ln0.", ".pre_norm."}, {".ln1.", ".attn_norm."}, {".ln2.", ".ffn_norm."}});
  for (const std::string letter : {"w", "a", "v", "g"}) {
    form.words.emplace_back(".att." + letter + "0", ".att." + letter + "_lora.lora.2.bias");
    form.words.emplace_back(".att." + letter + "1", ".att." + letter + "_lora.lora.0.weight");
    form.words.emplace_back(".att." + letter + "2", ".att." + letter + "_lora.lora.2.weight");
  }
  form.words.emplace_back(".att.", ".attn.");
  form.turns = true;
  return form;
}

Form linear_attention() {
  Form form = of_layers({{"emb.", "model.embed_tokens."},
                         {"blocks.0.ln0.", "model.embedding_norm."},
                         {".ln1.", ".input_layernorm."},
                         {".ln2.", ".post_attention_layernorm."}});
  form.words.emplace_back(".att.", ".linear_attn.");
  form.words.emplace_back(".ffn.", ".mlp.");
  return form;
}

/// The tensors of a file, to be changed and written.
struct Draft {
  std::map<std::string, TensorView> tensors;
  std::deque<std::vector<std::byte>> bytes;

  explicit Draft(const TensorFile& file, const Form& form = {}) {
    for (const TensorView& tensor : file.tensors()) {
      std::string name = tensor.name;
      if (form.lacks_first_values && name.starts_with("blocks.0.att.v") && name.size() == 15) continue;
      const bool low_rank = form.turns && tensor.shape.size() == 2 && (name.ends_with('1') || name.ends_with('2'));
      for (const auto& [from, to] : form.words) {
        const std::size_t at = name.find(from);
        if (at != std::string::npos) name.replace(at, from.size(), to);
      }
      TensorView& made = set(name, tensor.dtype, tensor.shape, tensor.bytes);
      if (form.squeezes && made.shape.size() == 3 && made.shape[1] == 1) made.shape = {made.shape[2]};
      if (!low_rank) continue;
      transpose_matrices(tensor.bytes.data(), size_of(made.dtype), made.shape[0], made.shape[1], bytes.back());
      std::swap(made.shape[0], made.shape[1]);
    }
  }
  TensorView& set(const std::string& name, DType dtype, std::vector<Index> shape, std::span<const std::byte> content) {
    bytes.emplace_back(content.begin(), content.end());
    return tensors[name] = {name, dtype, std::move(shape), bytes.back()};
  }
  void rename(const std::string& from, const std::string& to) {
    TensorView tensor = tensors.at(from);
    tensors.erase(from);
    tensor.name = to;
    tensors[to] = std::move(tensor);
  }
  /// Writes those whose names a predicate likes.
  void write(const std::filesystem::path& path, const std::function<bool(const std::string&)>& likes = {},
             const std::map<std::string, std::string>& metadata = {}) const {
    std::vector<TensorView> list;
    for (const auto& [name, tensor] : tensors) {
      if (!likes || likes(name)) list.push_back(tensor);
    }
    save_safetensors(path, list, metadata);
  }
};

template <class V>
TensorFile official() {
  return open_tensors(golden::folder() / "models" / (std::string(config::Goldens<V>::model) + ".safetensors"));
}

/// What loading says that fails; empty if it does not.
template <class V>
std::string error_of(const std::filesystem::path& path, const LoadOptions& options = {}) {
  try {
    load_checkpoint<Net<V>>(path, options);
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

/// The file at `path` must give a model with the bits of the official one, which is saved with official names. Returns
/// what was said about it.
template <class V>
std::string check_same(const std::filesystem::path& path, const LoadOptions& given = {}) {
  CAPTURE(path.string());
  std::string said;
  LoadOptions options = given;
  options.note = [&](std::string_view note) { said.append(note).append("\n"); };
  const auto want = load_checkpoint<Net<V>>(official<V>());
  const auto got = load_checkpoint<Net<V>>(path, options);
  const auto wanted = want.parameters(), found = got.parameters();
  REQUIRE(wanted.size() == found.size());
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    CAPTURE(wanted[p].name);
    CHECK(wanted[p].name == found[p].name);
    if (wanted[p].unused()) continue;
    const auto a = std::as_bytes(wanted[p].numbers()), b = std::as_bytes(found[p].numbers());
    CHECK(a.size() == b.size());
    CHECK(std::memcmp(a.data(), b.data(), a.size()) == 0);
  }
  const Folder folder;
  save_checkpoint(want, folder / "want");
  save_checkpoint(got, folder / "got");
  const auto a = open_tensors(folder / "want"), b = open_tensors(folder / "got");
  REQUIRE(a.tensors().size() == b.tensors().size());
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    CHECK(a.tensors()[i].name == b.tensors()[i].name);
    CHECK(a.tensors()[i].shape == b.tensors()[i].shape);
  }
  const auto again = load_checkpoint<Net<V>>(b);
  CHECK(again.sizes().head_norm_epsilon == got.sizes().head_norm_epsilon);
  CHECK(again.sizes().norm_epsilon == got.sizes().norm_epsilon);
  return said;
}

}  // namespace

TEST_CASE("prefixes are left off, whatever they are") {
  using Version = config::AnyVersion;
  const Folder folder;
  for (const std::string prefix : {"_orig_mod.", "module.", "model.", "rwkv.", "_orig_mod.module.", "net.inner."}) {
    CAPTURE(prefix);
    const TensorFile file = official<Version>();
    Draft draft(file);
    for (const TensorView& tensor : file.tensors()) draft.rename(tensor.name, prefix + tensor.name);
    draft.write(folder / "m");
    check_says(check_same<Version>(folder / "m"), ": the prefix '" + prefix + "' of its names is left off\n");
    draft.set(prefix + "step", DType::i64, {}, std::vector<std::byte>(8));
    draft.write(folder / "m");
    check_says(error_of<Version>(folder / "m"), "'" + prefix + "step': unexpected");
    CHECK(error_of<Version>(folder / "m", {.ignore = {"**.step"}}) == "");
    draft.tensors.at(prefix + "blocks.1.ln1.bias").shape = {4, 8};
    draft.write(folder / "m");
    check_says(error_of<Version>(folder / "m"), "blocks.1.ln1.bias (in the file '" + prefix +
                                                    "blocks.1.ln1.bias'): file has [4, 8], model expects [32]");
  }
  CHECK(check_same<Version>(official<Version>().path()) == "");
}

TEST_CASE("the names of transformers load, from RWKV-4 to 6") {
  const Folder folder;
  const auto check = [&]<class V>(V) {
    Draft(official<V>(), transformers).write(folder / "m");
    check_says(check_same<V>(folder / "m"), "its names are those of transformers; ");
    CHECK(load_model<Cpu>(folder / "m").sizes().head_norm_epsilon == 0);
  };
  check(V4());
  check(V5());
  check(V6());
}

TEST_CASE("RWKV-7 loads in the forms of flash-linear-attention and of a transformer with linear attention") {
  const Folder folder;
  Draft(official<V7>(), fla()).write(folder / "m");
  const std::string said = check_same<V7>(folder / "m");
  check_says(said, "its names are those of flash-linear-attention; ");
  check_says(said, "of them their axes the other way round\n");
  check_says(said, "its ln_x adds 8e-05 to variances\n");
  {  // Low-rank factors lie as the model has them, so that they need no copy.
    const auto file = open_tensors(folder / "m", {.access = Access::mapped});
    auto net = load_checkpoint<Net<V7>>(file);
    CHECK(static_cast<const void*>(net.parts.body.parts[1].att.params.w1.data) ==
          file.find("model.layers.1.attn.w_lora.lora.0.weight")->bytes.data());
    CHECK(net.parts.body.parts[1].att.epsilon == 8e-5);
  }
  Draft(official<V7>(), linear_attention()).write(folder / "m");
  check_says(check_same<V7>(folder / "m"), "its names are those of a transformer with linear attention; ");
  CHECK(load_model<Cpu>(folder / "m").sizes().head_norm_epsilon == 8e-5);

  // An older form has the six mixes in one tensor.
  Draft draft(official<V7>(), fla());
  for (const std::string layer : {"model.layers.0.attn.x_", "model.layers.1.attn.x_"}) {
    std::vector<std::byte> all;
    for (const char* letter : {"r", "w", "k", "v", "a", "g"}) {
      const TensorView& mix = draft.tensors.at(layer + letter);
      all.insert(all.end(), mix.bytes.begin(), mix.bytes.end());
      draft.tensors.erase(layer + letter);
    }
    draft.set(layer + "x", DType::f32, {6, 32}, all);
  }
  draft.write(folder / "m");
  check_same<V7>(folder / "m");
  draft.tensors.at("model.layers.1.attn.x_x").shape = {3, 64};
  draft.write(folder / "m");
  check_says(error_of<V7>(folder / "m"),
             "'model.layers.1.attn.x_x': unexpected, the model has no such tensor; file has [3, 64]");
  check_says(error_of<V7>(folder / "m"), "blocks.1.att.x_g: missing from the file");
}

TEST_CASE("errors about a tensor name it as the file does, and officially") {
  const Folder folder;
  Draft draft(official<V7>(), fla());
  std::swap(draft.tensors.at("model.layers.1.attn.w_lora.lora.0.weight").shape[0],
            draft.tensors.at("model.layers.1.attn.w_lora.lora.0.weight").shape[1]);
  draft.write(folder / "m");
  check_says(error_of<V7>(folder / "m"),
             "blocks.1.att.w1 (in the file 'model.layers.1.attn.w_lora.lora.0.weight'): file has [32, ");
  draft = Draft(official<V7>(), fla());
  draft.set("model.layers.1.attn.w0", DType::f32, {32}, std::vector<std::byte>(128));
  draft.write(folder / "m");
  check_says(error_of<V7>(folder / "m"),
             "'model.layers.1.attn.w0' and 'model.layers.1.attn.w_lora.lora.2.bias' are both blocks.1.att.w0");
  draft = Draft(official<V7>(), fla());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  auto& bytes = draft.bytes.emplace_back(128);
  std::memcpy(&bytes[20], &nan, 4);
  draft.tensors.at("model.layers.1.attn.k_k").bytes = bytes;
  draft.write(folder / "m");
  check_says(error_of<V7>(folder / "m"),
             "blocks.1.att.k_k (in the file 'model.layers.1.attn.k_k'): element 5 is not a finite number");
  draft = Draft(official<V7>(), fla());
  draft.tensors.erase("lm_head.weight");
  draft.write(folder / "m", {}, {{"lm_head.weight", "model.embeddings.weight"}});
  check_says(error_of<V7>(folder / "m"),
             "head.weight: missing from the file, whose metadata say that it is the same as 'model.embeddings.weight'");
  // Another program with layers of that name.
  draft = Draft(official<V7>(), linear_attention());
  for (const std::string layer : {"0", "1"})
    draft.rename("model.layers." + layer + ".linear_attn.r_proj.weight",
                 "model.layers." + layer + ".self_attn.q_proj.weight");
  draft.write(folder / "m");
  check_says(error_of<V7>(folder / "m"),
             "this is no RWKV checkpoint: it holds no tensor emb.weight; the names are those of a Hugging Face model");
}

TEST_CASE("axes of size one may be missing or added, and the bonus may have its older name") {
  const Folder folder;
  const auto check = [&]<class V>(V) {
    Draft draft(official<V>());
    for (auto& [name, tensor] : draft.tensors) {
      if (tensor.shape.size() == 3 && tensor.shape[1] == 1) tensor.shape = {tensor.shape[2]};
      else if (tensor.shape.size() == 1) tensor.shape = {1, tensor.shape[0], 1};
    }
    draft.write(folder / "m");
    CHECK(check_same<V>(folder / "m") == "");
  };
  check(V4());
  check(V5());
  check(V6());
  check(V7());
  for (const std::string layer : {"0", "1"}) {
    Draft draft(official<V5>());
    for (const std::string each : {"0", "1"}) {
      if (each <= layer) draft.rename("blocks." + each + ".att.time_faaaa", "blocks." + each + ".att.time_first");
    }
    draft.write(folder / "m");
    check_says(check_same<V5>(folder / "m"), "have names of an older version");
  }
  // A matrix has the axes that it has.
  Draft draft(official<V4>());
  draft.tensors.at("blocks.0.att.key.weight").shape = {1, 32, 32};
  draft.write(folder / "m");
  check_says(error_of<V4>(folder / "m"), "blocks.0.att.key.weight: file has [1, 32, 32], model expects [32, 32]");
}

TEST_CASE("what norms add to variances comes from the config.json beside the file") {
  const Folder folder;
  const auto sizes = [&] { return load_checkpoint<Net<V7>>(folder / "m").sizes(); };
  Draft(official<V7>(), fla()).write(folder / "m");
  put(folder / "config.json", R"({"hidden_size": 32, "norm_eps": 2e-5, "heads": [1, {"norm_eps": 3}]})");
  CHECK(sizes().norm_epsilon == 2e-5);
  CHECK(sizes().head_norm_epsilon == 16e-5);
  const auto net = load_checkpoint<Net<V7>>(folder / "m");
  CHECK(net.parts.body.parts[0].att.epsilon == 16e-5);
  CHECK(net.parts.body.parts[1].ln2.epsilon == 2e-5);
  CHECK(net.parts.head.ln_out.epsilon == 2e-5);
  check_says(check_same<V7>(folder / "m"), "its layer norms add 2e-05 to variances, by the config.json beside it\n");
  put(folder / "config.json", R"({"group_norm_epsilon": 0.00064, "layer_norm_epsilon": 1e-5})");
  CHECK(sizes().norm_epsilon == 0);
  CHECK(sizes().head_norm_epsilon == 0);
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"hidden_size": 64})",
       "config.json: this is the configuration of a model of width 64, the model beside it has 32"},
      {R"({"norm_eps": 0})", "config.json: norm_eps is not between 0 and 1"},
      {R"({"norm_eps": 1e999})", "config.json: this has a number that is too large at its byte"},
      {R"({"norm_eps": 1e-5)", "config.json: this is no valid JSON at its byte"},
      {"[1]", "config.json: the JSON text is no object"}};
  for (const auto& [config, words] : wrong) {
    put(folder / "config.json", config);
    check_says(error_of<V7>(folder / "m"), words);
  }
  put(folder / "config.json", "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}");
  check_says(error_of<V7>(folder / "m"), "nested more than 64 deep");

  Draft(official<V6>(), transformers).write(folder / "m");
  put(folder / "config.json", R"({"head_size_divisor": 4, "layer_norm_epsilon": 1e-05})");
  CHECK(load_checkpoint<Net<V6>>(folder / "m").sizes().head_norm_epsilon == 16 * 1e-5);
  // Official names mean what the official code does.
  Draft(official<V7>()).write(folder / "m");
  put(folder / "config.json", "no JSON");
  CHECK(sizes().head_norm_epsilon == 0);
  Draft(official<V7>()).write(folder / "m", {}, {{"rwkv.head_norm_epsilon", "1e-3"}});
  CHECK(sizes().head_norm_epsilon == 1e-3);
  for (const std::string text : {"", "0", "-1", "2", "nan", "1e-3x", " 1e-3"}) {
    Draft(official<V7>()).write(folder / "m", {}, {{"rwkv.head_norm_epsilon", text}});
    check_says(error_of<V7>(folder / "m"), "the metadata rwkv.head_norm_epsilon is not between 0 and 1");
  }
}

TEST_CASE("the shards of an index are one file") {
  const Folder folder;
  const Draft draft(official<V7>(), fla());
  const auto in_first = [](const std::string& name) { return name.starts_with("model.layers.0."); };
  const auto shard_of = [&](const std::string& name) {
    return std::string("model-0000") + (in_first(name) ? "1" : "2") + "-of-00002.safetensors";
  };
  const auto index_with = [&](const std::function<std::string(const std::string&)>& shard,
                              const std::string& more = "") {
    std::string json = R"({"metadata": {"total_size": 3}, "weight_map": {)";
    for (const auto& [name, tensor] : draft.tensors) {
      if (json.back() != '{') json += ", ";
      json += "\"" + name + "\": \"" + shard(name) + "\"";
    }
    put(folder / "model.safetensors.index.json", json + more + "}}");
  };
  const auto whole = [&] {
    draft.write(folder / "model-00001-of-00002.safetensors", in_first);
    draft.write(folder / "model-00002-of-00002.safetensors", [&](const std::string& name) { return !in_first(name); });
    index_with(shard_of);
  };
  whole();
  const auto index = folder / "model.safetensors.index.json";
  put(folder / "config.json", R"({"norm_eps": 1e-5})");
  for (const auto& path : {index, folder.path()}) {
    const std::string said = check_same<V7>(path);
    check_says(said, "model.safetensors.index.json: it has 2 shards\n");
    check_says(said, "flash-linear-attention");
  }
  {
    const TensorFile file = open_tensors(index, {.access = Access::mapped});
    CHECK(file.is_mapped());
    CHECK(file.tensors().size() == draft.tensors.size());
    auto net = load_checkpoint<Net<V7>>(file);
    CHECK(static_cast<const void*>(net.parts.head.params.table.data) == file.find("lm_head.weight")->bytes.data());
  }
  for (const std::string shard : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    check_says(error_of<V7>(folder / shard),
               "this is one shard of several; open the index 'model.safetensors.index.json' beside it");
  }

  const auto says = [&](const std::string& words) {
    check_says(error_of<V7>(index), "model.safetensors.index.json: " + words);
  };
  std::filesystem::remove(folder / "model-00002-of-00002.safetensors");
  says("the shard 'model-00002-of-00002.safetensors' is missing; it belongs into the same folder");
  whole();
  for (const std::string outside :
       {"/etc/passwd", "../m.safetensors", "..", ".", "", "a/b.safetensors", "c:m", "a\\\\b"}) {
    index_with([&](const std::string& name) { return in_first(name) ? shard_of(name) : outside; });
    says("the index leads to '");
    says("");
  }
  index_with(
      [&](const std::string& name) { return name == "lm_head.weight" ? shard_of("model.layers.0.") : shard_of(name); });
  says(
      "the shard 'model-00002-of-00002.safetensors' holds 'lm_head.weight', which the index has in 'model-00001-of-00002.safetensors'");
  index_with(shard_of, R"(, "model.more": "model-00002-of-00002.safetensors")");
  says("the shard 'model-00002-of-00002.safetensors' lacks 'model.more', which the index has in it");
  index_with(shard_of, R"(, "lm_head.weight": "model-00002-of-00002.safetensors")");
  says("the index names the tensor 'lm_head.weight' twice");
  index_with(shard_of);
  Draft more = Draft(official<V7>(), fla());
  more.set("extra", DType::f32, {1}, std::vector<std::byte>(4));
  more.write(folder / "model-00001-of-00002.safetensors",
             [&](const std::string& name) { return in_first(name) || name == "extra"; });
  says("the shard 'model-00001-of-00002.safetensors' holds 'extra', which the index does not name");
  put(folder / "model-00001-of-00002.safetensors", get(index));
  CHECK(error_of<V7>(index).find("index of a model in several shards") != std::string::npos);

  const std::pair<const char*, const char*> wrong[] = {
      {R"({"weight_map": {}})", "the index names no tensors"},
      {R"({"weight_map": [1]})", "'weight_map' is no object"},
      {R"({"weight_map": "x"})", "'weight_map' is no object"},
      {R"({"weight_map": 1})", "'weight_map' is no object"},
      {R"({"weight_map": {"a": "b"}, "weight_map": {"a": "b"}})", "it holds 'weight_map' twice"},
      {R"({"weight_map": {"a": 1}})", "the tensor 'a' has a number in the place of the name of a shard"},
      {R"({"weight_map": {"a": null}})", "the tensor 'a' has null in the place"},
      {R"({"weight_map": {"a": {"b": "c"}}})", "the tensor 'a' has an object in the place"},
      {R"({"weight_map": {"a": ["b"]}})", "the tensor 'a' has an array in the place"},
      {R"({"weight_map": {"a\n": "b"}})", "the tensor name 'a\\x0a' is empty, longer than 1024 bytes"},
      {R"({"weight_map": {"a": "b"})", "this is no valid JSON at its byte"},
      {R"({"a": {"weight_map": {"a": "b"}}})", "the index has no weight_map"}};
  for (const auto& [json, words] : wrong) {
    put(index, json);
    says(words);
  }
  std::filesystem::remove(index);
  CHECK(error_of<V7>(folder.path()).find("this is a folder, not a file") != std::string::npos);
  draft.write(folder / "model.safetensors");
  check_same<V7>(folder.path());
  check_says(error_of<V7>(folder / "model-00002-of-00002.safetensors"),
             "this is one shard of several; open their index, or join");
}

TEST_CASE("the state dict of a model is found in the dictionary of a training script") {
  using build::dict, build::word, build::tensor, build::pth, build::bytes;
  const std::string model =
      build::ordered_dict() + "(" + word("module.emb.weight") + tensor() + word("x") + tensor() + "u";
  const std::string moments = "}(" + word("exp_avg") + tensor() + "u";
  const auto open = [&](const std::string& items) {
    static std::string file;
    file = pth(dict(items)).file();
    return open_tensors(bytes(file), "bad.file");
  };
  for (const std::string& items :
       {word("model") + model + word("optimizer") + moments, word("epoch") + build::number(3) + word("model") + model,
        word("optimizer") + moments + word("model") + model + word("loss") + tensor(), word("model") + model}) {
    const TensorFile file = open(items);
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.find("module.emb.weight") != nullptr);
    REQUIRE(file.notes().size() == 1);
    CHECK(file.notes()[0] == "the state dict is its entry 'model'");
  }
  for (const std::string& items :
       {word("model") + model + word("ema") + model, word("blocks.0.ln1.weight") + tensor() + word("model") + model,
        word("optimizer") + moments,
        word("model") + "}(" + word("emb.weight") + tensor() + word("n") + build::number(3) + "u"}) {
    build::check_refused("nested", pth(dict(items)).file(),
                         {"is a dictionary, not a tensor; if it is the state dict, save it alone"});
  }
  build::check_refused("converted", pth(dict(word("model") + model + word("_strategy") + word("cpu fp32"))).file(),
                       {"rwkv package of Python"});
}
