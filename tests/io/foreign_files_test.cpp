// Files that are no checkpoint of ours, or not quite: each is told by name, with what to do, and a tensor that cannot
// be read stands in nobody's way.
#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "real_pickles.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/text/tokenizer.hpp"

using build::bytes;
using build::check_refused;
using build::dict;
using build::Entry;
using build::pth;
using build::safetensors;
using build::tensor;
using build::word;
using build::Zip;
using rwkv::Index;

namespace {

using Names = std::vector<std::string>;

std::string with_nul(std::string_view text) { return std::string(text) + std::string(300, '\0'); }

/// A .pth whose tensors have these names and six numbers each.
std::string pth_with(const Names& names) {
  std::string items;
  for (const std::string& name : names) items += word(name) + tensor();
  return pth(dict(items)).file();
}

std::string entry(std::string_view name, std::string_view description) {
  return "\"" + std::string(name) + "\":{" + std::string(description) + "}";
}

/// What sizes_of_model says about a file.
std::string said_of(const std::string& file, std::string name = "model.pth") {
  try {
    rwkv::sizes_of_model(rwkv::open_tensors(bytes(file), std::move(name)));
  } catch (const rwkv::Error& error) {
    return error.what();
  }
  return "";
}

void check_says(const std::string& said, const std::vector<std::string>& words) {
  CAPTURE(said);
  for (const std::string& w : words) {
    CAPTURE(w);
    CHECK(said.find(w) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("a file of another kind is told by name, with what to do") {
  struct Case {
    std::string file;
    std::vector<std::string> words;
  };
  const Case cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 2846360\n",
       {"Git LFS pointer", "git lfs pull"}},
      {with_nul("fmgg\x64"), {"rwkv.cpp", "use the .pth"}},
      {with_nul("lmgg"), {"rwkv.cpp", "use the .pth"}},
      {with_nul("tjgg\x03"), {"rwkv.cpp", "use the .pth"}},
      {with_nul("ggmf"), {"rwkv.cpp", "use the .pth"}},
      {with_nul("ggml"), {"rwkv.cpp", "use the .pth"}},
      {"<!DOCTYPE html><html><body>404</body></html>", {"web page", "download the file again"}},
      {"\n<html lang=\"en\">Access denied", {"web page", "download the file again"}},
      {"<!doctype html>", {"web page", "download the file again"}},
      {"\xef\xbb\xbf<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", {"XML text", "download"}},
      {"{\"metadata\": {\"total_size\": 3}, \"weight_map\": {\"emb.weight\": \"model-00001-of-00002.safetensors\"}}",
       {"index of a model in several shards", "join"}},
      {"{\n  \"architectures\": [\"Rwkv5ForCausalLM\"]}", {"config.json", "not its weights"}},
      {"{\"version\":\"1.0\",\"added_tokens\":[]}", {"tokenizer.json"}},
      {"{\"error\":\"Repository not found\"}", {"JSON text"}},
      {"[1, 2, 3]", {"JSON text"}},
      {"# xet version 0\nfilesize = 3\n", {"Xet pointer", "download the file"}},
      {"version https://hawser.github.com/spec/v1\n", {"Git LFS pointer"}},
      {std::string(4096, '\0'), {"begins with zeros", "download the file again"}},
      {"PK\x05\x06" + std::string(18, '\0'), {"an empty zip archive"}},
      {"<HEAD><TITLE>302</TITLE>", {"web page"}},
      {"<notes>", {"a text"}},
      {"[section]\nkey = 1\n", {"a text"}},
      {"Entry not found", {"this is a text, not a model (it begins with 'Entry not found')"}},
      {"404", {"this is a text, not a model (it begins with '404')"}},
      {"import torch\n", {"this is a text, not a model (it begins with 'import torch')"}},
      {"a: 1\r\nb: 2\r\n", {"this is a text, not a model (it begins with 'a: 1')"}},
      {"a,b\n1,2\n", {"this is a text, not a model"}},
      {"(dp0\nVa\np1\nI1\ns.", {"this is a text, not a model"}},
      {std::string(39, 'a') + "\xe4\xb8\xad" + "bcd",
       {"a text, not a model (it begins with '" + std::string(39, 'a') + "')"}},
      {"1 '\\x00' 1\n2 '\\x01' 1\n", {"this is a World vocabulary, not a model; are model and vocabulary exchanged?"}},
      {"1 b'\\x00' 1\r\n", {"this is a World vocabulary"}},
      {"\xef\xbb\xbf"
       "1 \"a\" 1\n",
       {"this is a World vocabulary"}},
      {"1 'ab' 2\n", {"this is a text, not a model"}},
      {"1 '1\n", {"this is a text, not a model"}},
      {"1 b 1\n", {"this is a text, not a model"}},
      {" \r\n<!-- saved -->\n<!DOCTYPE html><html>", {"a web page", "download the file again"}},
      {"<script>window.location</script>", {"a web page", "download the file again"}},
      {std::string(253, 'a') + "bc\xe4\xb8\xad\xe4\xb8\xad", {"a text"}},
      {with_nul("\x1f\x8b\x08"), {"gzip archive", "unpack it"}},
      {with_nul("BZh9"), {"bzip2 archive", "unpack it"}},
      {with_nul("\xfd"
                "7zXZ"),
       {"xz archive", "unpack it"}},
      {with_nul("\x28\xb5\x2f\xfd"), {"zstd archive", "unpack it"}},
      {with_nul("7z\xbc\xaf\x27\x1c"), {"7-zip archive", "unpack it"}},
      {with_nul("Rar!\x1a\x07"), {"RAR archive", "unpack it"}},
      {"emb" + std::string(254, '\0') + "ustar" + std::string(200, '\0'), {"tar archive", "unpack it"}},
      {with_nul("\x93NUMPY\x01"), {"NumPy array"}},
      {with_nul("\x89HDF\r\n\x1a\n"), {"HDF5 file"}},
      {with_nul("\x1c" + std::string(3, '\0') + "TFL3"), {"TensorFlow Lite"}},
      {with_nul("\x08\x07\x12\x07pytorch"), {"ONNX model", "use the .pth"}},
      {with_nul("\x80\x02\x8a\x0a"), {"before PyTorch 1.6"}},
      {with_nul("\x80\x03\x8a\x0a"), {"before PyTorch 1.6", "load and save it"}},
      {with_nul("\x80\x04\x95\x0d" + std::string(7, '\0') + "\x8a\x0al\xfc\x9c\x46"), {"before PyTorch 1.6"}},
      {with_nul("\x80\x05\x95\x0d" + std::string(7, '\0') + "\x8a\x0al\xfc\x9c\x46"), {"before PyTorch 1.6"}},
      {with_nul("\x80\x04\x95\x0d" + std::string(7, '\0') + "\x8a\x0al\xfc\x9c\x47"), {"bare pickle"}},
      {with_nul("\x80\x04\x95"), {"bare pickle", "torch.save"}},
      {build::pickle("}"), {"bare pickle", "torch.save"}},
      {with_nul("%PDF-1.7"), {"PDF document"}},
      {"", {"the file is empty"}},
  };
  for (const Case& c : cases) check_refused(c.file.substr(0, 20), c.file, c.words);

  // The first bytes of a safetensors file are its length: those of another format are no reason to refuse it.
  for (const std::size_t size : {0x8b1fu, 0x5a42u, 0x685a42u, 0x120708u, 0x030480u, 0x3cu, 0x7bu}) {
    std::string json = "{" + entry("w", R"("dtype":"U8","shape":[1],"data_offsets":[0,1])") + "}";
    json.resize(size, ' ');
    CHECK(rwkv::open_tensors(bytes(safetensors(json, "x")), "f").find("w") != nullptr);
  }
}

TEST_CASE("a zip archive of another program is told by name") {
  const auto zip = [](const Names& names, std::uint16_t method = 0) {
    Zip archive{{}};
    for (const std::string& name : names) {
      archive.entries.push_back(Entry{name, "x"});
      archive.entries.back().method = method;
    }
    return archive.file();
  };
  struct Case {
    std::string file;
    std::vector<std::string> words;
  };
  const Case cases[] = {
      {zip({"[Content_Types].xml", "word/document.xml"}, 8), {"office document", "[Content_Types].xml"}},
      {zip({"emb.weight.npy", "head.weight.npy"}), {"NumPy archive", "'emb.weight.npy'", "torch.save"}},
      {zip({"m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"}), {"TorchScript", "state_dict()"}},
      {zip({"m/archive_format", "m/data/weights/w", "m/version"}), {"torch.export", "state_dict()"}},
      {zip({"META-INF/MANIFEST.MF", "a.class"}, 8), {"Java archive"}},
      {zip({"AndroidManifest.xml", "META-INF/MANIFEST.MF"}, 8), {"Android package"}},
      {zip({"weights/rwkv.pth"}), {"model inside", "unpack it", "'weights/rwkv.pth'"}},
      {zip({"rwkv.safetensors", "README.md"}, 8), {"model inside", "unpack it"}},
      {zip({"pytorch_model.bin"}, 8), {"model inside", "unpack it", "'pytorch_model.bin'"}},
      {zip({"a/model.pt"}, 8), {"model inside", "unpack it", "'a/model.pt'"}},
      {zip({"last.ckpt"}), {"model inside", "unpack it", "'last.ckpt'"}},
      {zip({"data.pkl", "version"}),
       {"lacks the folder that torch.save puts around all entries (it holds 'data.pkl' outside of any)"}},
      {zip({"version", "data.pkl"}), {"lacks the folder", "'version'"}},
      {zip({"m/version", "m/data/0"}), {"no data.pkl", "it holds 'm/version'"}},
      {zip({"report.txt"}, 8), {"no data.pkl", "it holds 'report.txt'"}},
      {zip({"metadata.json", "model.weights.h5"}), {"no data.pkl", "it holds 'metadata.json'"}},
  };
  for (const Case& c : cases) check_refused(c.words[0], c.file, c.words);
}

TEST_CASE("checksums that were not computed are not compared") {
  const std::string good = dict(word("w") + tensor());
  const auto opens = [](const Zip& zip) {
    const std::string file = zip.file();
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    return build::text(opened.find("w")->bytes) == build::floats();
  };
  // Data whose right sum is zero.
  const std::string zero_sum = "\x9d\x0a\xd9\x6d";
  REQUIRE(build::crc32(zero_sum) == 0);

  for (const std::uint16_t flags : std::initializer_list<std::uint16_t>{0x0808, 0x0800, 0x0008, 0x0000}) {
    for (const bool zip64 : {true, false}) {
      Zip zip = pth(good);  // as torch.save writes it without checksums: zero in all three places of all entries
      zip.zip64 = zip64;
      for (Entry& e : zip.entries) {
        e.flags = flags;
        e.crc = 0;
        if (flags & 8u)
          e.descriptor = build::u32(0x08074b50) + build::u32(0) + build::u32(e.data.size()) + build::u32(e.data.size());
      }
      CHECK(opens(zip));
    }
  }
  Zip zip = pth(good);
  zip.entries.push_back(Entry{"m/data/1", zero_sum});
  CHECK(opens(zip));

  // One sum of zero beside others is a sum like any other.
  zip = pth(good);
  zip.entry("data/0").crc = 0;
  zip.entry("data/0").descriptor = build::u32(0x08074b50) + build::u32(0) + build::u32(24) + build::u32(24);
  check_refused("one zero", zip.file(), {"'m/data/0'", "CRC-32"});
  zip = pth(good);
  for (Entry& e : zip.entries) e.crc = 0;
  zip.entry("version").crc = build::crc32("3\n");
  check_refused("all but one zero", zip.file(), {"damaged"});
  // Nor may the places disagree.
  zip = pth(good);
  for (Entry& e : zip.entries) {
    e.crc = 0;
    e.flags = 0x800;
    e.local_crc = build::crc32(e.data);
  }
  check_refused("zero in the directory alone", zip.file(), {"another checksum"});
}

TEST_CASE("a dictionary around the state dict is named, with what to do") {
  const std::pair<std::string_view, std::vector<std::string>> cases[] = {
      {build::nested_module, {"'model' is a dictionary, not a tensor; if it is the state dict, save it alone"}},
      {build::epoch_first, {"'model' is a dictionary, not a tensor; if it is the state dict, save it alone"}},
      {build::training_run, {"'state_dict' is a dictionary, not a tensor; if it is the state dict, save it alone"}},
      {build::optimizer_alone, {"'state' is a dictionary"}},
      {build::beside_others, {"'a' is a dictionary"}}};
  for (const auto& [pickle, words] : cases) check_refused(words[0], pth(std::string(pickle)).file(), words);

  const std::string inner = build::ordered_dict() + "(" + word("w") + tensor() + "u";
  const auto wrapped = [&](const std::string& items) { return pth(dict(items)).file(); };
  check_refused("plain", wrapped(word("model") + "}(" + word("w") + tensor() + "u"), {"'model' is a dictionary"});
  check_refused("ordered", wrapped(word("net") + inner + word("step") + build::number(3)), {"'net' is a dictionary"});
  check_refused("beside a list", wrapped(word("log") + "](KKe" + word("ema") + inner), {"'ema' is a dictionary"});
  check_refused("twice", wrapped(word("model") + "}" + word("module") + inner + "s"), {"'model' is a dictionary"});
  check_refused("only a list", wrapped(word("log") + "]"), {"'log' is a list, not a tensor; save the tensors alone"});
  check_refused("only a float", wrapped(word("loss") + "G" + std::string(8, '\0')),
                {"'loss' is a float, not a tensor"});
  check_refused("a module", pth(build::global("__main__", "RWKV") + ")\x81.").file(), {"no pickle"});
  check_refused("a module", pth(build::pickle(build::global("__main__", "RWKV") + ")\x81")).file(),
                {"'__main__' 'RWKV'", "save the state dict of the model alone"});
}

TEST_CASE("a file that the rwkv package of Python converted is refused") {
  for (const std::string& mark : {word("_strategy") + word("cpu fp32"), word("_strategy") + word("cuda fp16i8"),
                                  word("_strategy") + word("cuda fp16 *8 -> cpu fp32") + word("_version") + word("0.7"),
                                  word("_version") + word("0.8") + word("_strategy") + word("cuda bf16"),
                                  word("_rescale_layer") + build::number(6) + word("_strategy") + word("cuda fp16")}) {
    check_refused("converted", pth(dict(word("emb.weight") + tensor() + mark)).file(),
                  {"rwkv package of Python converted this file", "use the original file"});
  }
}

TEST_CASE("names that are not read are told, with what to do") {
  const std::string start = "model.pth: this is no RWKV checkpoint: it holds no tensor emb.weight; ";
  SUBCASE("prefixes, which are left off") {
    for (const std::string prefix : {"_orig_mod.", "module.", "model.", "rwkv.", "state_dict.", "_orig_mod.module.",
                                     "_forward_module.", "net.inner."}) {
      CAPTURE(prefix);
      CHECK(said_of(pth_with({prefix + "emb.weight"})) ==
            "model.pth: this is no RWKV checkpoint: it holds no tensor blocks.0.…; this is a part of a model; if it is "
            "one shard of several, join them into one file");
      check_says(said_of(pth_with({prefix + "blocks.3.att.key.weight", prefix + "ln_out.weight"})),
                 {start + "this is a part of a model"});
    }
  }
  SUBCASE("Hugging Face") {
    for (const Names& names :
         {Names{"lm_head.weight"}, Names{"model.layers.0.input_layernorm.weight"},
          Names{"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj"},
          Names{"model.layers.0.linear_attn.in_proj_qkvz.weight"}}) {
      check_says(said_of(pth_with(names)),
                 {start + "the names are those of a Hugging Face model; if it is an RWKV, use the original .pth"});
    }
    // Parts of models whose names are read.
    for (const Names& names : {Names{"rwkv.blocks.0.pre_ln.weight"}, Names{"rwkv.blocks.1.feed_forward.key.weight"},
                               Names{"model.layers.1.linear_attn.r_proj.weight"}}) {
      check_says(said_of(pth_with(names)), {start + "this is a part of a model"});
    }
  }
  SUBCASE("flash-linear-attention") {
    for (const Names& names :
         {Names{"model.layers.0.attn.x_r"}, Names{"lm_head.weight", "model.layers.0.attn.x_k"},
          Names{"model.embeddings.weight", "model.layers.0.attn.r_proj.linear.weight", "model.layers.0.attn.x_bias"}}) {
      check_says(said_of(pth_with(names)), {start + "the names are those of flash-linear-attention; use the original"});
    }
    for (const Names& names :
         {Names{"model.layers.3.attn.w_lora.lora.0.weight"}, Names{"model.layers.0.attn.a_lora.lora.2.bias"}}) {
      check_says(said_of(pth_with(names)), {start + "this is a part of a model"});
    }
  }
  SUBCASE("adapters") {
    for (const std::string name :
         {"base_model.model.blocks.0.att.key.lora_A.weight", "blocks.0.att.key.lora_A", "blocks.0.ffn.value.lora_B",
          "base_model.model.rwkv.blocks.0.attention.key.lora_B.weight", "blocks.0.att.receptance.bone",
          "blocks.0.att.output.miss", "blocks.0.ffn.key.disha"}) {
      check_says(said_of(pth_with({name})), {start + "this holds an adapter; load_adapter() reads it", name});
    }
  }
  SUBCASE("an initial state") {
    check_says(said_of(pth_with({"blocks.0.att.time_state", "blocks.1.att.time_state"})),
               {start + "this holds an initial state, not a model; load_initial_state() reads it"});
  }
  SUBCASE("shards") {
    const std::string some = pth_with({"blocks.0.ln1.weight"});
    for (const std::string name : {"model-00001-of-00002.safetensors", "a/model-00002-of-00002.safetensors",
                                   "pytorch_model-00001-of-00003.bin", "rwkv-3-of-7.pth", "x_1-of-2"}) {
      check_says(said_of(some, name), {name, "this is one shard of several; open their index, or join the shards"});
    }
    for (const Names& names : {Names{"emb.weight"}, Names{"head.weight"}, Names{"emb.weight", "head.weight"},
                               Names{"emb.weight", "ln_out.weight"}, Names{"blocks.0.ln1.weight", "head.weight"},
                               Names{"blocks.7.att.key.weight"}}) {
      check_says(said_of(pth_with(names)), {"this is a part of a model; if it is one shard of several, join them"});
    }
  }
  SUBCASE("the last shard of a sorted model") {
    Names names{"emb.weight", "head.weight", "ln_out.weight"};
    for (int i = 0; i < 19; ++i) names.push_back("blocks.9.part" + std::to_string(i) + ".weight");
    check_says(said_of(pth_with(names), "model-00005-of-00005.pth"),
               {"'blocks.9.part0.weight' cannot be right in a file of 22 tensors; this is one shard of several; open"});
    check_says(said_of(pth_with(names)), {"in a file of 22 tensors; this is a part of a model; if it is one shard"});
  }
  SUBCASE("the run file of a training") {
    check_says(said_of(pth_with({"blocks.0.att.key.weight.adamw_m", "blocks.0.att.key.lora_A"})),
               {start + "this is the run file of a training; use the model beside it"});
    const auto opened = [](const Names& names) {
      static std::string file;
      file = pth_with(names);
      return rwkv::detail::kind_by_names(rwkv::open_tensors(bytes(file), "m.pth"));
    };
    CHECK(
        opened({"emb.weight", "emb.weight.adamw_v"}).starts_with("this is the run file of a training; use the model"));
    CHECK(!opened({"emb.weight", "emb.weight.average"}).starts_with("this is the run file"));
    const std::string checked = safetensors(
        R"({"__metadata__":{"crc32.texts":"1"},"w":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}})", "x");
    check_says(said_of(checked), {start + "this is the run file of a training"});
  }
  SUBCASE("a shared embedding") {
    const std::string file = safetensors(R"({"__metadata__":{"emb.weight":"head.weight"},)"
                                         R"("head.weight":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}})",
                                         "x");
    check_says(said_of(file), {"no tensor emb.weight", "metadata say that it is the same as 'head.weight'", "clone()"});
  }
  SUBCASE("nothing known") {
    CHECK(said_of(pth_with({"w"})) == "model.pth: this is no RWKV checkpoint: it holds no tensor emb.weight");
  }
}

TEST_CASE("safetensors: a tensor of an unknown type is listed, and refused only when it is asked for") {
  for (const std::string type :
       {"U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "f32", "", "Q4_K"}) {
    CAPTURE(type);
    const std::string file =
        safetensors("{" + entry("x", R"("dtype":")" + type + R"(","shape":[3,1],"data_offsets":[0,3])") + "," +
                        entry("w", R"("dtype":"U8","shape":[2],"data_offsets":[3,5])") + "}",
                    "xxxww");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    REQUIRE(opened.tensors().size() == 1);
    CHECK(build::text(opened.find("w")->bytes) == "ww");
    REQUIRE(opened.unreadable().size() == 1);
    CHECK(opened.unreadable()[0].name == "x");
    CHECK(opened.unreadable()[0].shape == std::vector<Index>{3, 1});
    CHECK(opened.find_unreadable("x") == &opened.unreadable()[0]);
    CHECK(opened.find_unreadable("w") == nullptr);
    const std::string said = "f: tensor 'x' cannot be read: its numbers are of the unknown type '" + type + "'";
    CHECK_THROWS_WITH_AS(opened.find("x"), doctest::Contains(said.c_str()), rwkv::Error);
  }
}

TEST_CASE("safetensors: what a header says beyond the format is skipped") {
  const std::string whole = R"("dtype":"U8","shape":[1],"data_offsets":[0,1])";
  for (const std::string value : {"1", "-1", "1.5e300", "true", "null", "\"text\"", "[]", "{}",
                                  "[[1,{\"a\":[null]}],2]", R"({"dtype":"F64","shape":[9],"data_offsets":[0,72]})"}) {
    CAPTURE(value);
    for (const std::string& fields : {"\"more\":" + value + "," + whole, whole + ",\"more\":" + value,
                                      "\"a\":" + value + "," + whole + ",\"a\":" + value}) {
      const std::string file = safetensors("{" + entry("w", fields) + "}", "x");
      const auto opened = rwkv::open_tensors(bytes(file), "f");
      REQUIRE(opened.find("w") != nullptr);
      CHECK(build::text(opened.find("w")->bytes) == "x");
    }
  }
  const std::string deep = std::string(64, '[') + std::string(64, ']');
  CHECK(rwkv::open_tensors(bytes(safetensors("{" + entry("w", "\"d\":" + deep + "," + whole) + "}", "x")), "f")
            .find("w"));
  check_refused("too deep", safetensors("{" + entry("w", "\"d\":[" + deep + "]," + whole) + "}", "x"),
                {"'w'", "64 deep"});
  const std::string none = safetensors("{\"__metadata__\":null," + entry("w", whole) + "}", "x");
  CHECK(rwkv::open_tensors(bytes(none), "f").metadata().empty());
  check_refused("twice", safetensors("{\"__metadata__\":null,\"__metadata__\":{}}", ""), {"appears twice"});
}

TEST_CASE("pth: a tensor that cannot be read is listed, and refused only when it is asked for") {
  struct Case {
    std::string_view pickle;
    std::optional<std::vector<Index>> shape;
    std::string reason;
  };
  const Case cases[] = {{build::uint16, std::vector<Index>{2}, "its numbers are of the type 'uint16'; convert it"},
                        {build::float8, std::vector<Index>{2, 4}, "its numbers are of the type 'float8_e5m2'"},
                        {build::complex64, std::vector<Index>{2}, "its numbers are of the type 'ComplexFloatStorage'"},
                        {build::quantised, std::vector<Index>{2}, "PyTorch makes it by '_rebuild_qtensor'; save it as"},
                        {build::sparse, std::nullopt, "PyTorch makes it by '_rebuild_sparse_tensor'"},
                        {build::meta, std::nullopt, "PyTorch makes it by '_rebuild_meta_tensor_no_storage'"},
                        {build::transposed, std::vector<Index>{3, 2},
                         "its strides [1, 3] are not row-major; call contiguous() on it before saving"}};
  for (const Case& c : cases) {
    CAPTURE(c.reason);
    const std::string file = pth(std::string(c.pickle)).file();
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    REQUIRE(opened.tensors().size() == 1);
    CHECK(build::text(opened.find("w")->bytes) == build::floats());
    REQUIRE(opened.unreadable().size() == 1);
    CHECK(opened.unreadable()[0].name == "x");
    CHECK(opened.unreadable()[0].shape == c.shape);
    CHECK(opened.unreadable()[0].reason.find(c.reason) != std::string::npos);
    CHECK_THROWS_WITH_AS(opened.find("x"),
                         doctest::Contains(("f: tensor 'x' cannot be read: " + opened.unreadable()[0].reason).c_str()),
                         rwkv::Error);
  }

  const std::string shape = build::tuple({2, 3}), strides = build::tuple({3, 1});
  for (const std::string type : {"QInt8Storage", "QUInt8Storage", "QInt32Storage", "ComplexDoubleStorage",
                                 "ComplexFloatStorage", "QUInt4x2Storage"}) {
    const std::string file =
        pth(dict(word("x") + build::tensor_of(build::storage(type, "9"), 0, shape, strides))).file();
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    REQUIRE(opened.unreadable().size() == 1);
    CHECK(opened.unreadable()[0].shape == std::vector<Index>{2, 3});
    CHECK(opened.unreadable()[0].reason.find(type) != std::string::npos);
  }
  for (const auto& broadcast :
       {std::pair(build::tuple({2, 3}), build::tuple({0, 1})), std::pair(build::tuple({3}), build::tuple({2})),
        std::pair(build::tuple({3, 2}), build::tuple({1, 3})),
        std::pair(build::tuple({1, 2, 3}), build::tuple({1, 1, 2})), std::pair(build::tuple({6}), build::tuple({0}))}) {
    const std::string file =
        pth(dict(word("x") + build::tensor_of(build::storage(), 0, broadcast.first, broadcast.second))).file();
    CHECK(rwkv::open_tensors(bytes(file), "f").unreadable()[0].reason.find("row-major") != std::string::npos);
  }
  // A name is one name, readable or not.
  check_refused(
      "twice",
      pth(dict(word("w") + tensor() + word("w") + build::tensor_of(build::storage("QInt8Storage"), 0, shape, strides)))
          .file(),
      {"the tensor name 'w' occurs twice"});
}

TEST_CASE("pth: tensors with attributes are read, those of other classes and marked views are not") {
  const std::string plain = build::storage("FloatStorage", "0") + build::number(0) + build::tuple({2, 3}) +
                            build::tuple({3, 1}) + "\x89" + build::ordered_dict();
  const std::string v2 = build::global("torch._utils", "_rebuild_tensor_v2");
  const std::string state = "}" + word("tensor_model_parallel") + "\x88s";
  const auto typed = [&](const std::string& type, const std::string& attributes, const std::string& function,
                         const std::string& arguments) {
    return build::global("torch._tensor", "_rebuild_from_type_v2") + "(" + function + type + "(" + arguments + "t" +
           attributes + "tR";
  };
  const std::string tensor_type = build::global("torch", "Tensor"), sub = build::global("__main__", "Sub");
  const std::string parameter =
      build::global("torch._utils", "_rebuild_parameter_with_state") + "(" + tensor() + "\x88" + build::ordered_dict();

  // A buffer, a tensor with attributes, a parameter with attributes, also with slots.
  for (const std::string& value :
       {typed(tensor_type, state, v2, plain), typed(tensor_type, "N", v2, plain), parameter + state + "tR",
        parameter + "N" + state + "\x86tR", typed(tensor_type, "(" + state + state + "t", v2, plain)}) {
    const std::string file = pth(dict(word("x") + value)).file();
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    REQUIRE(opened.find("x") != nullptr);
    CHECK(opened.find("x")->shape == std::vector<Index>{2, 3});
    CHECK(build::text(opened.find("x")->bytes) == build::floats());
  }
  {
    const std::string file = pth(std::string(build::parameter_with_state)).file();  // has no storage 1
    check_refused("its storage", file, {"tensor 'x': its storage '1' is not in the archive"});
    Zip zip = pth(std::string(build::parameter_with_state));
    zip.entries.push_back(Entry{"m/data/1", build::floats().substr(4, 8)});
    const std::string whole = zip.file();
    const auto opened = rwkv::open_tensors(bytes(whole), "f");
    CHECK(opened.unreadable().empty());
    CHECK(build::text(opened.find("x")->bytes) == build::floats().substr(4, 8));
  }

  struct Case {
    std::string value;
    std::optional<std::vector<Index>> shape;
    std::string reason;
  };
  const std::vector<Index> shape{2, 3};
  const std::string nine = build::tuple({1, 1, 1, 1, 1, 1, 1, 2, 3});
  const std::string too_many = "it has 9 dimensions, more than 8; reshape it before saving";
  const std::string view =
      "it is a view of negated or conjugate numbers; save what resolve_neg() and resolve_conj() "
      "make of it";
  const std::string of_class = "it is of the class 'Sub'; save it as a plain tensor, by as_subclass(torch.Tensor)";
  const std::string marked = v2 + "(" + plain + "}" + word("neg") + "\x88stR";
  const Case cases[] = {
      {typed(sub, "N", v2, plain), shape, of_class},
      {typed(sub, state, v2, plain), shape, of_class},
      {typed(sub, state, v2, plain + "}" + word("neg") + "\x88s"), shape, of_class},
      {typed(tensor_type, "N", v2, plain + "}" + word("neg") + "\x88s"), shape, view},
      {typed(tensor_type, "N", build::global("torch._utils", "_rebuild_qtensor"), plain), shape,
       "it is no plain tensor, PyTorch makes it by '_rebuild_qtensor'; save it as a dense, contiguous one"},
      {marked, shape, view},
      {parameter.substr(0, parameter.find(tensor())) + marked + "\x88" + build::ordered_dict() + state + "tR", shape,
       view},
      {build::tensor_of(build::storage(), 0, nine, nine), std::nullopt, too_many},
      {typed(sub, "N", v2, build::storage() + build::number(0) + nine + nine + "\x89" + build::ordered_dict()),
       std::nullopt, of_class},
      {build::global("torch._utils", "_rebuild_qtensor") + "(" + build::storage() + build::number(0) + nine + "tR",
       std::nullopt, "it is no plain tensor, PyTorch makes it by '_rebuild_qtensor'"}};
  for (const Case& c : cases) {
    CAPTURE(c.reason);
    const std::string file = pth(dict(word("w") + tensor() + word("x") + c.value)).file();
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    CHECK(build::text(opened.find("w")->bytes) == build::floats());
    REQUIRE(opened.unreadable().size() == 1);
    CHECK(opened.unreadable()[0].name == "x");
    CHECK(opened.unreadable()[0].shape == c.shape);
    CHECK(opened.unreadable()[0].reason.starts_with(c.reason));
  }
}

TEST_CASE("pth: of many names on one storage, those are read that fit into twice the file") {
  const std::string numbers(4000, 'x');
  const auto of = [](const Names& names) {
    std::string items;
    for (const std::string& name : names)
      items += word(name) +
               build::tensor_of(build::storage("FloatStorage", "0", 1000), 0, build::tuple({1000}), build::tuple({1}));
    return dict(items);
  };
  Zip zip = pth(of({"emb.weight", "head.weight", "alias.weight", "again.weight"}));
  zip.entry("data/0").data = numbers;
  const std::string file = zip.file();
  const auto opened = rwkv::open_tensors(bytes(file), "f");
  REQUIRE(opened.tensors().size() == 2);
  CHECK(opened.tensors()[0].name == "emb.weight");
  CHECK(opened.tensors()[1].name == "head.weight");
  REQUIRE(opened.unreadable().size() == 2);
  for (const auto& tensor : opened.unreadable()) {
    CHECK(tensor.shape == std::vector<Index>{1000});
    CHECK(tensor.reason ==
          "with the tensors before it, which share their storages, it describes more than twice the "
          "file; save it as a clone(), or remove it");
  }
}

TEST_CASE("pth: what stands beside a state dict does not hide it") {
  const std::string inner = word("model") + build::ordered_dict() + "(" + word("w") + tensor() + "u";
  for (const std::string& beside :
       {"\x8a\x09" + std::string(9, '\xff'), "\x8a\xff" + std::string(255, '\1'), word(std::string(70'000, 'x'))}) {
    for (const std::string& items : {word("seed") + beside + inner, inner + word("seed") + beside}) {
      check_refused("beside", pth(dict(items)).file(),
                    {"'model' is a dictionary, not a tensor; if it is the state dict, save it alone"});
    }
  }
  check_refused("no tensor", pth(dict(word("args") + build::global("argparse", "Namespace") + ")R" + inner)).file(),
                {"bad.file, entry 'args': the pickle asks for 'argparse' 'Namespace'"});
}

TEST_CASE(
    "safetensors: odd and surplus metadata are left out, and too many dimensions are no reason to refuse a file") {
  std::string metadata;
  for (int i = 1000; i < 2500; ++i) metadata += (i == 1000 ? "\"k" : ",\"k") + std::to_string(i) + "\":\"v\"";
  const auto opened_with = [](const std::string& texts) {
    static std::string file;
    file = safetensors(
        "{\"__metadata__\":{" + texts + "}," + entry("w", R"("dtype":"U8","shape":[1],"data_offsets":[0,1])") + "}",
        "x");
    return rwkv::open_tensors(bytes(file), "f");
  };
  const auto many = opened_with(metadata);
  CHECK(many.metadata().size() == 1000);
  CHECK(many.metadata().contains("k1999"));
  CHECK(build::text(many.find("w")->bytes) == "x");
  const auto odd = opened_with(R"("a\nb":"1","":"2","good":"c\nd","nul":"e\u0000f","\u007f":"3")");
  CHECK(odd.metadata() == std::map<std::string, std::string>{{"good", "c\nd"}});

  for (const std::string type : {"U8", "F8_E4M3"}) {
    const std::string file =
        safetensors("{" + entry("x", R"("dtype":")" + type + R"(","data_offsets":[0,2],"shape":[1,1,1,1,1,1,1,1,2])") +
                        "," + entry("w", R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1],"data_offsets":[2,3])") + "}",
                    "xxw");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    CHECK(build::text(opened.find("w")->bytes) == "w");
    REQUIRE(opened.unreadable().size() == 1);
    CHECK(!opened.unreadable()[0].shape);
    CHECK(opened.unreadable()[0].reason.starts_with(type == "U8" ? "it has 9 dimensions, more than 8; reshape it"
                                                                 : "its numbers are of the unknown type 'F8_E4M3'"));
  }
}

TEST_CASE("a model's sizes come from unreadable tensors too, and its version") {
  const std::string f8 = R"("dtype":"F8_E4M3","shape":[5,4],"data_offsets":[0,20])";
  std::string json = "{" + entry("emb.weight", f8);
  int at = 20;
  for (const std::string name : {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "att.time_decay"}) {
    json += "," + entry("blocks.0." + name, R"("dtype":"U16","shape":[4],"data_offsets":[)" + std::to_string(at) + "," +
                                                std::to_string(at + 8) + "]");
    at += 8;
  }
  const std::string file = safetensors(json + "}", std::string(60, 'x'));
  const auto opened = rwkv::open_tensors(bytes(file), "f");
  const rwkv::ModelSizes sizes = rwkv::sizes_of_model(opened);
  CHECK(sizes.vocab == 5);
  CHECK(sizes.width == 4);
  CHECK(sizes.depth == 1);
  CHECK(rwkv::version_named_by(opened) == &rwkv::V4::official);
  const std::string sparse =
      pth(dict(word("emb.weight") + build::global("torch._utils", "_rebuild_sparse_tensor") + ")R")).file();
  check_says(said_of(sparse), {"tensor 'emb.weight' cannot be read: it is no plain tensor"});
}

TEST_CASE("sizes that no model has are refused, whatever an unreadable tensor claims") {
  const std::string huge = "9223372036854775807";
  const auto f8 = [](const std::string& shape) { return R"("dtype":"F8_E4M3","data_offsets":[0,0],"shape":)" + shape; };
  const auto with = [&](const std::string& emb, const std::string& key, const std::string& r_k) {
    std::string json = "{" + entry("emb.weight", f8(emb));
    for (const std::string name : {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"})
      json += "," + entry("blocks.0." + name, f8("[4]"));
    json += "," + entry("blocks.0.ffn.key.weight", f8(key)) + "," + entry("blocks.0.att.r_k", f8(r_k));
    return said_of(safetensors(json + "}", ""), "m.safetensors");
  };
  CHECK(with("[5,4]", "[16,4]", "[2,2]") == "");
  CHECK(with("[" + huge + "," + huge + "]", "[16,4]", "[2,2]") ==
        "m.safetensors: tensor 'emb.weight': the shape [" + huge + ", " + huge + "] is too large");
  CHECK(with("[0," + huge + ",2]", "[16,4]", "[2,2]") ==
        "m.safetensors: tensor 'emb.weight': the shape [0, " + huge + ", 2] is too large");
  CHECK(with("[" + huge + ",1]", "[16,4]", "[2,2]") ==
        "m.safetensors: a vocabulary of " + huge + " is not between 1 and 1048576");
  CHECK(with("[1," + huge + "]", "[16,4]", "[2,2]") ==
        "m.safetensors: a width of " + huge + " is not between 1 and 1048576");
  CHECK(with("[5,4]", "[1048577,4]", "[2,2]") == "m.safetensors: an ffn of 1048577 is not between 1 and 1048576");
  CHECK(with("[5,4]", "[0,4]", "[2,2]") == "m.safetensors: an ffn of 0 is not between 1 and 1048576");
  CHECK(with("[5,4]", "[16,4]", "[1," + huge + "]") ==
        "m.safetensors: a head size of " + huge + " is not between 1 and 1048576");
  CHECK(with("[5,4]", "[16,4]", "[2,0]") == "m.safetensors: a head size of 0 is not between 1 and 1048576");
  CHECK(with("[5,4]", "[16,4]", "[2,3]") == "m.safetensors: a width of 4 does not divide into heads of 3");

  // The same in a .pth.
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const std::vector<std::int64_t>& shape : {std::vector{most, most}, std::vector{most, std::int64_t{2}}}) {
    check_refused("pth",
                  pth(dict(word("x") + build::tensor_of(build::storage("QInt8Storage"), 0, build::tuple(shape),
                                                        build::tuple({1, 1}))))
                      .file(),
                  {"tensor 'x': the shape [9223372036854775807", "is too large"});
  }
}

TEST_CASE("a file that is no vocabulary is told by name") {
  const std::pair<std::string, std::string> cases[] = {
      {"{\n  \"version\": \"1.0\", \"added_tokens\": []}", "tokenizer.json of another tokenizer"},
      {"{\"<|endoftext|>\": 0, \"!\": 2}", "a JSON text"},
      {"#version: 0.2\nt h\n", "merges.txt of a byte-pair tokenizer"},
      {"\x0a\x0e\x0a\x05<unk>\x15" + std::string(3, '\0'), "a SentencePiece tokenizer"},
      {"IQ== 0\nIg== 1\n", "vocabulary of tiktoken"},
      {"<unk>\t0\n<s>\t0\n", "vocabulary of a SentencePiece tokenizer"},
      {"\x0a\x0e\x0a\x05<pad>\x15" + std::string(3, '\0'), "a SentencePiece tokenizer"},
      {"[PAD]\n[unused1]\n", "vocabulary of a WordPiece tokenizer"},
      {"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"},
      {"<!DOCTYPE html>", "a web page"},
      {with_nul("GGUF"), "GGUF file"},
      {build::good_pth(), "a model file"},
      {safetensors("{}", ""), "a model file"},
  };
  for (const auto& vocabulary : cases) {
    CAPTURE(vocabulary.second);
    std::string said;
    try {
      rwkv::Tokenizer::world(vocabulary.first, "vocab.txt");
    } catch (const rwkv::Error& error) {
      said = error.what();
    }
    CAPTURE(said);
    CHECK(said.starts_with("vocab.txt: this is "));
    CHECK(said.find(vocabulary.second) != std::string::npos);
  }
}
