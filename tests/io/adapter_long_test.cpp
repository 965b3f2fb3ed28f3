/// Adapters as the public tools write them, and files that are none.
#include <doctest/doctest.h>
#include <rwkv/check/live_weights.hpp>
#include <rwkv/rwkv.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

using namespace rwkv;

namespace {

/// A folder of its own, removed at the end.
struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / "rwkv_adapter_test";
  Folder() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const char* name, const std::string& text) const { std::ofstream(path / name) << text; }
};

using Tensors = std::vector<std::pair<std::string, std::pair<std::vector<Index>, std::vector<float>>>>;

std::filesystem::path save(const Folder& folder, const Tensors& tensors, const char* name = "a.safetensors",
                           const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorView> views;
  for (const auto& [key, tensor] : tensors) {
    views.push_back({key, DType::f32, tensor.first, std::as_bytes(std::span(tensor.second))});
  }
  save_safetensors(folder.path / name, views, metadata);
  return folder.path / name;
}

const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{1, 0, 0, 1, 2, 2, 3, -1};  // [2, 3] and [4, 2]
const std::vector<float> d{1, 0, 2, 3, 0, 1, 2, -1};                       // b as [2, 4], its axes the other way round

std::string sentence_of(const std::filesystem::path& path, const AdapterOptions& options = {}) {
  try {
    load_adapter(path, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("the files of RWKV-PEFT, PEFT and rwkv_lightning_cuda are read") {
  const Folder folder;
  const auto check = [](const Adapter& adapter, bool is_miss, double scale) {
    REQUIRE(adapter.matrices.size() == 1);
    const MatrixChange& change = adapter.matrices[0];
    CHECK(change.matrix == "blocks.0.att.key.weight");
    CHECK(change.is_miss() == is_miss);
    CHECK(change.b == b);
    CHECK(change.out == 4);
    CHECK(change.rank == 2);
    CHECK(change.scale == doctest::Approx(scale).epsilon(1e-15));
    if (!is_miss) CHECK((change.a == a && change.in == 3));
  };
  SUBCASE("RWKV-PEFT, low rank: alpha comes from outside") {
    const auto path =
        save(folder, {{"blocks.0.att.key.lora_A", {{2, 3}, a}}, {"blocks.0.att.key.lora_B", {{4, 2}, b}}});
    check(load_adapter(path, {.alpha = 32.0}), false, 16);
    CHECK(sentence_of(path) == path.string() +
                                   ": the file does not tell alpha, the scale of its factors; AdapterOptions::alpha "
                                   "gives it");
  }
  SUBCASE("PEFT, low rank") {
    const Tensors tensors{{"base_model.model.blocks.0.att.key.lora_A.weight", {{2, 3}, a}},
                          {"base_model.model.blocks.0.att.key.lora_B.weight", {{4, 2}, b}}};
    save(folder, tensors, "adapter_model.safetensors");
    const auto with = [&](const char* json) { folder.write("adapter_config.json", json); };
    with(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 3, "use_rslora": false, "init_lora_weights": true})");
    check(load_adapter(folder.path), false, 1.5);
    with(R"({"r": 2, "lora_alpha": 3, "use_rslora": true})");
    check(load_adapter(folder.path), false, 3 / std::sqrt(2.0));
    const std::string config = (folder.path / "adapter_config.json").string();
    with(R"({"lora_alpha": 3, "use_dora": true})");
    CHECK(sentence_of(folder.path) == config + ": DoRA changes the lengths of rows, which is no low-rank change");
    with(R"({"lora_alpha": 3, "init_lora_weights": "pissa_niter_4"})");
    CHECK(sentence_of(folder.path)
              .starts_with(config + ": factors that started by 'pissa_niter_4' may belong to weights"));
    with(R"({"lora_alpha": 3, "init_lora_weights": "PiSSA"})");
    CHECK(sentence_of(folder.path).starts_with(config + ": factors that started by 'PiSSA' may belong to weights"));
    with(R"({"lora_alpha": 3, "init_lora_weights": "gaussian", "rank_pattern": {}, "r": 2, "use_dora": null})");
    check(load_adapter(folder.path), false, 1.5);
    with(R"({"lora_alpha": 3, "r": 64})");
    CHECK(sentence_of(folder.path) ==
          config + ": r is 64, the factors have a rank of 2; is it that of another adapter?");
    with(R"({"lora_alpha": "3"})");
    CHECK(sentence_of(folder.path) == config + ": lora_alpha is not a number");
    with(R"({"lora_alpha": 3, "use_dora": 1})");
    CHECK(sentence_of(folder.path) == config + ": use_dora is not true or false");
    with(R"({"lora_alpha": 3, "alpha": [5, 6], "lora_alpha": 4})");
    CHECK(sentence_of(folder.path) == config + ": it holds 'lora_alpha' twice");
    std::string many = R"({"lora_alpha": 3)";
    for (int i = 0; i < 1000; ++i) many += join(", \"", i, "\": 0");
    with((many + "}").c_str());
    CHECK(sentence_of(folder.path) == config + ": it holds more than 1000 values");
    with(R"({"lora_alpha": 3, "alpha_pattern": {"key": 4}})");
    CHECK(sentence_of(folder.path) == config + ": alpha_pattern is not read");
    with(R"({"lora_alpha": -1})");
    CHECK(sentence_of(folder.path) == config + ": lora_alpha must be above zero, not -1");
    with("[");
    CHECK(sentence_of(folder.path) == config + ": the JSON text is no object");
  }
  SUBCASE("MiSS of PEFT and of RWKV-PEFT, under all its names") {
    for (const char* name : {"base_model.model.blocks.0.att.key.miss_block", "blocks.0.att.key.miss",
                             "blocks.0.att.key.disha", "blocks.0.att.key.bone"}) {
      check(load_adapter(save(folder, {{name, {{2, 4}, d}}})), true, 1);
    }
  }
  SUBCASE("rwkv_lightning_cuda") {
    const auto path = save(folder, {{"blocks.0.att.key.weight.D", {{4, 2}, b}}});
    CHECK(sentence_of(path).find("does not tell alpha") != std::string::npos);
    folder.write("adapter.json",
                 R"({"method": "miss", "rank": 2, "alpha": 8, "scale": 4.0, "targets": [{"layer": 0}]})");
    check(load_adapter(path), true, 4);
    folder.write("adapter_config.json", R"({"lora_alpha": 8})");
    CHECK(sentence_of(path) == path.string() + ": both " + (folder.path / "adapter_config.json").string() +
                                   " and adapter.json lie beside it; which of them is its own?");
  }
}

TEST_CASE("files that are no adapter, or hold what does not fit, are one sentence") {
  const Folder folder;
  const auto said = [&](const Tensors& tensors, const AdapterOptions& options = {.alpha = 2.0}) {
    const auto path = save(folder, tensors);
    const std::string sentence = sentence_of(path, options);
    const std::string name = path.string() + ": ";
    REQUIRE(sentence.starts_with(name));
    return sentence.substr(name.size());
  };
  const std::string key = "blocks.0.att.key";
  CHECK(
      said({{"emb.weight", {{2, 3}, a}}}) ==
      "'emb.weight' is no factor of an adapter, as blocks.0.att.key.lora_A and lora_B or blocks.0.att.key.weight.D are");
  CHECK(said({{key + ".lora_A", {{2, 3}, a}}}) == key + ".weight has no factor lora_B to the other");
  CHECK(said({{key + ".lora_B", {{4, 2}, b}}}) == key + ".weight has no factor lora_A to the other");
  CHECK(said({{key + ".lora_A", {{3, 2}, a}}, {key + ".lora_B", {{4, 2}, b}}}) ==
        key + ".weight: lora_A has [3, 2] and lora_B [4, 2], of different ranks");
  CHECK(said({{key + ".disha", {{2, 2, 2}, b}}}) ==
        key + ".disha: file has [2, 2, 2], a factor has two axes, neither of them empty");
  CHECK(said({{key + ".lora_A", {{2, 3}, a}}, {key + ".weight.D", {{4, 2}, b}}}) ==
        key + ".weight has factors of low rank and of MiSS");
  CHECK(said({{"overhead.lora_B", {{4, 2}, b}}}).starts_with("'overhead.lora_B' is no factor of an adapter"));
  CHECK(said({{"model.lm_head.lora_B", {{4, 2}, b}}}) == "head.weight has no factor lora_A to the other");
  CHECK(said({{key + ".disha", {{2, 4}, b}}, {key + ".bone", {{2, 4}, b}}}) ==
        key + ".weight has two factors of one kind, the second of them '" + key + ".bone'");
  CHECK(said({{key + ".weight.D", {{4, 2}, b}}}, {.alpha = -1.0}) == "alpha must be above zero, not -1");
  CHECK(said({{key + ".weight.D", {{4, 2}, b}}}, {.alpha = std::numeric_limits<double>::quiet_NaN()}) ==
        "alpha must be above zero, not nan");
  std::vector<float> wrong = b;
  wrong[5] = std::numeric_limits<float>::infinity();
  CHECK(said({{key + ".weight.D", {{4, 2}, wrong}}}) == key + ".weight.D: element 5 is not a finite number");
  CHECK(said({}) == "the file holds no factor of an adapter");
}

TEST_CASE("an adapter made by hand is held to its sizes, and to what its file can name") {
  const Folder folder;
  const auto path = folder.path / "own.safetensors";
  Adapter adapter{"own", {{.matrix = "blocks.0.att.key.weight", .out = 4, .in = 3, .rank = 2, .a = a, .b = b}}, {}};
  save_adapter(adapter, path);
  folder.write("adapter.json", "not JSON, and not asked for");  // the file tells its alpha
  CHECK(load_adapter(path).matrices[0].b == b);
  adapter.matrices[0].scale = -1;
  CHECK_THROWS_WITH_AS(
      save_adapter(adapter, path),
      (path.string() + ": the change of blocks.0.att.key.weight has the scale -1, which must be above zero").c_str(),
      Error);
  adapter.matrices[0].scale = 1;
  adapter.matrices[0].matrix = "blocks.0.att.w1";
  CHECK_THROWS_WITH_AS(
      save_adapter(adapter, path),
      (path.string() + ": blocks.0.att.w1 has no place in the file of an adapter, which holds changes of "
                       "blocks.*.weight and head.weight")
          .c_str(),
      Error);

  using Net = LanguageModel<V7, float, Cpu>;
  const Net net({.vocab = 5, .width = 4, .depth = 1, .head_size = 2});
  const auto change = [](std::size_t numbers) {
    return MatrixChange{.matrix = "blocks.0.att.key.weight",
                        .out = 4,
                        .in = 4,
                        .rank = 2,
                        .a = std::vector<float>(8),
                        .b = std::vector<float>(numbers)};
  };
  CHECK_NOTHROW(adapted(net, Adapter{"fits", {change(8)}, {}}));
  CHECK_THROWS_WITH_AS(adapted(net, Adapter{"short", {change(3)}, {}}),
                       "short: blocks.0.att.key.weight: its factors have 8 and 3 numbers, which is no rank of 2",
                       Error);
  CHECK_THROWS_WITH_AS(adapted(net, Adapter{"twice", {change(8), change(8)}, {}}),
                       "twice: blocks.0.att.key.weight is changed twice", Error);
  CHECK_THROWS_WITH_AS(adapted(Net::unbound(net.sizes(), Cpu()), Adapter{"any", {change(8)}, {}}),
                       "rwkv: the model has no weights: it is unbound, or was moved from", Error);
}

TEST_CASE("an adapter of another model is refused, and changes nothing") {
  using Net = LanguageModel<V4, float, Cpu>;
  Net net({.vocab = 5, .width = 4, .depth = 1});
  initialize(net, Seed{1});
  const auto fails = [&](const MatrixChange& change, const std::string& sentence,
                         std::optional<std::uint64_t> base = std::nullopt) {
    CHECK_THROWS_WITH_AS(adapted(net, Adapter{"a.pth", {change}, base}), sentence.c_str(), Error);
  };
  const std::string key = "blocks.0.att.key.weight";
  const MatrixChange fits{.matrix = key, .out = 4, .rank = 2, .b = b};
  fails({.matrix = "blocks.1.att.key.weight", .out = 4, .rank = 2, .b = b},
        "a.pth: the model has no blocks.1.att.key.weight, which the adapter changes; it was made for another");
  fails({.matrix = key, .out = 4, .in = 3, .rank = 2, .a = a, .b = b},
        "a.pth: " + key + ": the adapter is for [4, 3], the model has [4, 4]");
  fails({.matrix = key, .out = 8, .rank = 1, .b = b},
        "a.pth: " + key + ": the adapter is for [8, 4], the model has [4, 4]");
  fails({.matrix = key, .out = 4, .rank = 5, .b = std::vector<float>(20)},
        "a.pth: " + key + ": a rank of 5 does not fit the shape [4, 4]");
  fails({.matrix = "ln_out.weight", .out = 4, .rank = 2, .b = b},
        "a.pth: ln_out.weight of shape [4] is no matrix of two axes");
  fails(fits,
        "a.pth: the adapter was made for a model with other weights; AdapterOptions::other_base uses it all the same",
        net.context().fingerprint() + 1);
  MatrixChange endless = fits;
  endless.scale = std::numeric_limits<double>::infinity();
  fails(endless, "a.pth: " + key + ": the scale inf is not a finite number");
  endless.scale = 1e39;
  fails(endless, key + ": with a.pth element 0 is not a finite number");

  // Of any stored type; a file that is loaded with the adapter is the model that is adapted.
  const Adapter adapter{"a.pth", {fits}, net.context().fingerprint()};
  const auto want = adapted(net, adapter);
  const Folder folder;
  save_checkpoint<bf16>(net, folder.path / "bf16.safetensors");
  const auto half = load_checkpoint<LanguageModel<V4, AsStored<float>, Cpu>>(folder.path / "bf16.safetensors",
                                                                             {.adapters = {{"b", {fits}, {}}}});
  save_checkpoint(want, folder.path / "merged.safetensors");
  const auto merged = load_checkpoint<Net>(folder.path / "merged.safetensors");
  for (const StoredParameter& parameter : half.stored_parameters()) {
    CHECK(parameter.dtype == (parameter.name == key || parameter.role == Role::vector ? DType::f32 : DType::bf16));
  }
  for (std::size_t i = 0; i < 16; ++i) {
    const auto at = [&](const auto& model) {
      for (const StoredParameter& p : model.stored_parameters()) {
        if (p.name == key) return static_cast<const float*>(p.data)[i];
      }
      fail("no key");
    };
    CHECK(at(want) == at(merged));
    CHECK(at(want) == doctest::Approx(at(net) + b[i / 4 * 2 + i % 2]));
    CHECK(at(half) == doctest::Approx(at(want)).epsilon(0.01));
  }
}

TEST_CASE("initial states: matrices [head, value, key] of RWKV-PEFT, and states of save_state") {
  using Net = LanguageModel<V7, float, Cpu>;
  Net net({.vocab = 5, .width = 4, .depth = 1, .head_size = 2});
  live_weights(net, 3);
  const Folder folder;
  const std::vector<float> numbers{1, 2, 3, 4, 5, 6, 7, 8};
  const std::string name = "blocks.0.att.time_state";
  auto context = net.context();
  load_initial_state(context, 0, save(folder, {{name, {{2, 2, 2}, numbers}}}));
  CHECK(context.position(0) == 0);
  for (const auto& array : official_state(context, 0)) {
    if (array.name == "blocks.0.att.wkv") CHECK(array.numbers == numbers);  // also [head, value, key]
    else CHECK(array.numbers == std::vector<float>(4));
  }
  const auto state = context.state(0);
  save_state(context, 0, folder.path / "state.safetensors");
  auto other = net.context();
  load_initial_state(other, 0, folder.path / "state.safetensors");
  CHECK(other.state(0) == state);

  const auto refuses = [&](const Tensors& tensors, const std::string& sentence) {
    const auto path = save(folder, tensors);
    CHECK_THROWS_WITH_AS(load_initial_state(other, 0, path), (path.string() + ": " + sentence).c_str(), Error);
    CHECK(other.state(0) == state);
  };
  refuses({{"blocks.0.att.key.lora_A", {{2, 3}, a}}},
          "this is no file of a state: it has neither the metadata of one nor a blocks.0.att.time_state");
  refuses({{"blocks.1.att.time_state", {{2, 2, 2}, numbers}}}, name + " is missing from the file");
  refuses({{name, {{1, 2, 4}, numbers}}}, name + ": file has [1, 2, 4], the model expects [2, 2, 2]");
  auto wrong = numbers;
  wrong[3] = std::numeric_limits<float>::quiet_NaN();
  refuses({{name, {{2, 2, 2}, wrong}}}, name + ": element 3 is not a finite number");
  refuses({{name, {{2, 2, 2}, numbers}}, {"blocks.1.att.time_state", {{2, 2, 2}, numbers}}},
          "it holds the states of 2 layers, the model has 1");
  refuses({{name, {{2, 2, 2}, numbers}}, {"x." + name, {{2, 2, 2}, numbers}}},
          "it holds " + name + " twice, as " + name + " and as x." + name);
  const std::vector<double> large{1, 2, 1e300, 4, 5, 6, 7, 8};
  const std::vector<Index> shape{2, 2, 2};
  const std::vector<TensorView> views{{name, DType::f64, shape, std::as_bytes(std::span(large))}};
  save_safetensors(folder.path / "large.safetensors", views, {});
  CHECK_THROWS_WITH_AS(
      load_initial_state(other, 0, folder.path / "large.safetensors"),
      ((folder.path / "large.safetensors").string() + ": " + name + ": element 2 is too large for a float").c_str(),
      Error);
  CHECK(other.state(0) == state);
  LanguageModel<V4, float, Cpu> old({.vocab = 5, .width = 4, .depth = 1});
  auto scalar = old.context();
  const auto path = save(folder, {{name, {{2, 2, 2}, numbers}}});
  CHECK_THROWS_WITH_AS(
      load_initial_state(scalar, 0, path),
      (path.string() + ": the file holds the matrices of heads, which the state of RWKV-4 does not have").c_str(),
      Error);
}
