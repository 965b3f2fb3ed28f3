// The .safetensors reader and writer: what is refused and in which words, every truncation, and the round trip.
#include "rwkv/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checks.hpp"

using build::bytes;
using build::check_refused;
using build::safetensors;
using rwkv::DType;
using rwkv::Index;
using rwkv::TensorView;

namespace {

/// A header with one tensor 'w' of that description.
std::string one(const std::string& description) { return "{\"w\":" + description + "}"; }

std::string described(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

const std::string good = described("F32", "[2]", "[0,8]");

}  // namespace

TEST_CASE("safetensors: malformed files are refused by name") {
  struct Case {
    std::string what;
    std::string file;
    std::vector<std::string> words;
  };
  const std::string data(8, 'd');
  const std::vector<std::string> w{"tensor 'w'"};
  const auto about_w = [&](const std::string& phrase) { return std::vector<std::string>{"tensor 'w'", phrase}; };
  std::string many = "{";
  for (int i = 0; i <= 100'000; ++i)
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":" + described("U8", "[0]", "[0,0]");
  many += "}";

  const std::vector<Case> cases{
      {"nothing", "", {"the file is empty"}},
      {"seven bytes", std::string(7, '\0'), {"7 bytes are too few"}},
      {"a text", "once upon a time", {"a text, not a model"}},
      {"a GGUF", "GGUF" + std::string(60, '\0'), {"GGUF"}},
      {"an old .pth", "\x80\x02\x8a\x0a" + std::string(60, '\0'), {"before PyTorch 1.6"}},
      {"header of 2^63 bytes", build::u64(std::uint64_t{1} << 63) + "{}", {"9223372036854775808", "exceeds the limit"}},
      {"header of 2^64-1 bytes", build::u64(~std::uint64_t{0}) + "{}", {"exceeds the limit"}},
      {"header of 2^64-8 bytes", build::u64(~std::uint64_t{0} - 7) + "{}", {"exceeds the limit"}},
      {"header of 100000001 bytes", build::u64(100'000'001) + "{}", {"exceeds the limit"}},
      {"header longer than the file", build::u64(3) + "{}", {"past the end"}},
      {"header of 0 bytes", build::u64(0), {"'{'"}},
      {"header starts with a blank", safetensors(" {}", ""), {"'{'"}},
      {"header starts with a byte-order mark", safetensors("\xef\xbb\xbf{}", ""), {"'{'"}},
      {"header is an array", safetensors("[]", ""), {"'{'"}},
      {"header is not closed", safetensors("{", ""), {"'}'"}},
      {"newline behind the header", safetensors("{}\n", ""), {"'}' and spaces"}},
      {"tab between the header and spaces", safetensors("{}\t  ", ""), {"'}' and spaces"}},
      {"text behind the header", safetensors("{} x", ""), {"'}' and spaces"}},
      {"two objects", safetensors("{}{}", ""), {"no valid JSON"}},
      {"second object behind a NUL", safetensors(one(good) + std::string(1, '\0') + one(good), data), {"NUL"}},
      {"NUL in a name", safetensors("{\"a" + std::string(1, '\0') + "\":" + good + "}", data), {"NUL"}},
      {"escaped NUL in a name", safetensors("{\"a\\u0000\":" + good + "}", data), {"tensor name 'a\\x00'"}},
      {"escaped newline in a name", safetensors("{\"a\\n\":" + good + "}", data), {"tensor name 'a\\x0a'"}},
      {"delete in a name", safetensors("{\"a\x7f\":" + good + "}", data), {"tensor name 'a\\x7f'"}},
      {"empty name", safetensors("{\"\":" + good + "}", data), {"tensor name ''"}},
      {"name of 1025 bytes", safetensors("{\"" + std::string(1025, 'n') + "\":" + good + "}", data), {"1024"}},
      {"name with invalid UTF-8", safetensors("{\"\xc3(\":" + good + "}", data), {"no valid JSON"}},
      {"name with an overlong NUL", safetensors("{\"\xc0\x80\":" + good + "}", data), {"no valid JSON"}},
      {"name with half a surrogate pair", safetensors("{\"\\ud800\":" + good + "}", data), {"no valid JSON"}},
      {"raw control character in a name", safetensors("{\"a\x01\":" + good + "}", data), {"no valid JSON"}},
      {"unquoted key", safetensors("{w:" + good + "}", data), {"no valid JSON"}},
      {"single quotes", safetensors("{'w':" + good + "}", data), {"no valid JSON"}},
      {"comma at the end", safetensors("{\"w\":" + good + ",}", data), {"no valid JSON"}},
      {"a comment", safetensors("{/**/\"w\":" + good + "}", data), {"no valid JSON"}},
      {"a name twice",
       safetensors("{\"w\":" + good + ",\"w\":" + described("F32", "[2]", "[8,16]") + "}", data + data),
       {"the tensor name 'w' occurs twice"}},
      {"a name twice, once escaped",
       safetensors("{\"w\":" + good + ",\"\\u0077\":" + described("F32", "[2]", "[8,16]") + "}", data + data),
       {"the tensor name 'w' occurs twice"}},
      {"tensor is a number", safetensors(one("7"), data), about_w("a number")},
      {"tensor is a string", safetensors(one("\"F32\""), data), about_w("a string")},
      {"tensor is null", safetensors(one("null"), data), about_w("null")},
      {"tensor is a boolean", safetensors(one("true"), data), about_w("a boolean")},
      {"tensor is an array", safetensors(one("[]"), data), about_w("an array")},
      {"no dtype", safetensors(one("{\"shape\":[2],\"data_offsets\":[0,8]}"), data), about_w("lacks dtype")},
      {"no shape", safetensors(one("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), data), about_w("lacks shape")},
      {"no data_offsets", safetensors(one("{\"dtype\":\"F32\",\"shape\":[2]}"), data), about_w("lacks data_offsets")},
      {"dtype twice",
       safetensors(one("{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"), data),
       about_w("'dtype' appears twice")},
      {"shape twice", safetensors(one("{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]}"), data),
       about_w("'shape' appears twice")},
      {"data_offsets twice", safetensors(one("{\"data_offsets\":[0,8],\"data_offsets\":[0,8]}"), data),
       about_w("'data_offsets' appears twice")},
      {"an unknown key in place of the shape",
       safetensors(one("{\"dtype\":\"F32\",\"size\":[2],\"data_offsets\":[0,8]}"), data), about_w("lacks shape")},
      {"an unknown field that is nested without end",
       safetensors(one("{\"more\":" + std::string(100'000, '[') + "}"), ""), about_w("nested more than 64 deep")},
      {"an unknown field that holds no JSON", safetensors(one("{\"more\":[,]}"), data), about_w("no valid JSON")},
      {"an unknown dtype that overlaps another",
       safetensors("{\"v\":" + good + ",\"w\":" + described("F4", "[2]", "[4,12]") + "}", data + "dddd"),
       about_w("overlaps")},
      {"an unknown dtype past the end", safetensors(one(described("F4", "[2]", "[0,9]")), data),
       about_w("past the end")},
      {"an unknown dtype that leaves a gap", safetensors(one(described("F4", "[2]", "[1,8]")), data),
       about_w("leaves a gap")},
      {"an unknown dtype whose offsets run backwards", safetensors(one(described("F4", "[2]", "[8,0]")), data),
       about_w("run backwards")},
      {"an unknown dtype with a negative shape", safetensors(one(described("F4", "[-2]", "[0,8]")), data),
       about_w("negative")},
      {"a name twice, once of an unknown dtype",
       safetensors("{\"w\":" + good + ",\"w\":" + described("F4", "[2]", "[0,8]") + "}", data),
       {"the tensor name 'w' occurs twice"}},
      {"dtype is a number", safetensors(one("{\"dtype\":32}"), data), about_w("a number")},
      {"shape is a number", safetensors(one("{\"shape\":2}"), data), about_w("a number")},
      {"shape is an object", safetensors(one("{\"shape\":{}}"), data), about_w("an object")},
      {"shape holds a string", safetensors(one(described("F32", "[\"2\"]", "[0,8]")), data), about_w("a string")},
      {"shape holds an array", safetensors(one(described("F32", "[[2]]", "[0,8]")), data), about_w("an array")},
      {"shape is negative", safetensors(one(described("F32", "[-2]", "[0,8]")), data), about_w("negative")},
      {"shape of -0", safetensors(one(described("F32", "[-0]", "[0,0]")), ""), about_w("negative")},
      {"shape of 2.0", safetensors(one(described("F32", "[2.0]", "[0,8]")), data), about_w("no plain integer")},
      {"shape of 2e0", safetensors(one(described("F32", "[2e0]", "[0,8]")), data), about_w("no plain integer")},
      {"shape of 2^63", safetensors(one(described("U8", "[9223372036854775808]", "[0,8]")), data),
       about_w("too large")},
      {"shape of 2^64", safetensors(one(described("U8", "[18446744073709551616]", "[0,8]")), data),
       about_w("no plain integer")},
      {"shape of 2^64 + 2", safetensors(one(described("F32", "[18446744073709551618]", "[0,8]")), data),
       about_w("no plain integer")},
      {"shape that multiplies to 2^64", safetensors(one(described("U8", "[4294967296,4294967296]", "[0,0]")), ""),
       about_w("[4294967296, 4294967296] is too large")},
      {"shape that wraps to the right size",
       safetensors(one(described("U8", "[6148914691236517208,3]", "[0,8]")), data), about_w("too large")},
      {"elements that fit in bytes that do not",
       safetensors(one(described("F64", "[2305843009213693953]", "[0,8]")), data), about_w("too large")},
      {"empty shape with a huge rest", safetensors(one(described("U8", "[0,4294967296,4294967296]", "[0,0]")), ""),
       about_w("too large")},
      {"nine dimensions past the end", safetensors(one(described("F32", "[1,1,1,1,1,1,1,1,2]", "[0,9]")), data),
       about_w("past the end")},
      {"one offset", safetensors(one(described("F32", "[2]", "[8]")), data), about_w("1 numbers instead of 2")},
      {"no offset", safetensors(one(described("F32", "[2]", "[]")), data), about_w("0 numbers instead of 2")},
      {"three offsets", safetensors(one(described("F32", "[2]", "[0,8,8]")), data), about_w("more than 2 numbers")},
      {"offsets run backwards", safetensors(one(described("F32", "[2]", "[8,0]")), data), about_w("run backwards")},
      {"offset of 2^63", safetensors(one(described("F32", "[2]", "[0,9223372036854775808]")), data),
       about_w("too large")},
      {"offset of 0.0", safetensors(one(described("F32", "[2]", "[0.0,8]")), data), about_w("no plain integer")},
      {"fewer bytes than the shape",
       safetensors(one(described("F32", "[2]", "[0,4]")), "dddd"),
       {"tensor 'w'", "F32 [2] takes 8 bytes", "hold 4"}},
      {"more bytes than the shape", safetensors(one(described("F32", "[1]", "[0,8]")), data), about_w("takes 4 bytes")},
      {"an empty tensor with bytes", safetensors(one(described("F32", "[0]", "[0,8]")), data),
       about_w("takes 0 bytes")},
      {"data starts late", safetensors(one(described("F32", "[1]", "[4,8]")), data), about_w("leaves a gap")},
      {"data ends early", safetensors(one(described("F32", "[1]", "[0,4]")), data), {"4 bytes at the end"}},
      {"data without tensors", safetensors("{}", data), {"8 bytes at the end"}},
      {"data past the end", safetensors(one(good), "dddd"), about_w("past the end")},
      {"far past the end", safetensors(one(described("U8", "[9223372036854775807]", "[0,9223372036854775807]")), data),
       about_w("past the end")},
      {"two tensors on the same bytes", safetensors("{\"v\":" + good + ",\"w\":" + good + "}", data),
       about_w("overlaps")},
      {"two tensors that overlap by 4",
       safetensors("{\"v\":" + good + ",\"w\":" + described("F32", "[2]", "[4,12]") + "}", data + "dddd"),
       about_w("overlaps")},
      {"a gap of 4 between tensors",
       safetensors("{\"v\":" + good + ",\"w\":" + described("F32", "[1]", "[12,16]") + "}", data + data),
       about_w("leaves a gap")},
      {"an empty tensor inside another",
       safetensors("{\"v\":" + good + ",\"w\":" + described("F32", "[0]", "[4,4]") + "}", data), about_w("overlaps")},
      {"an empty tensor behind the end",
       safetensors("{\"v\":" + good + ",\"w\":" + described("F32", "[0]", "[9,9]") + "}", data),
       about_w("leaves a gap")},
      {"metadata is a string", safetensors("{\"__metadata__\":\"x\"}", ""), {"'__metadata__'", "a string"}},
      {"metadata holds a number", safetensors("{\"__metadata__\":{\"a\":1}}", ""), {"'__metadata__'", "a number"}},
      {"metadata holds an object", safetensors("{\"__metadata__\":{\"a\":{}}}", ""), {"'__metadata__'", "an object"}},
      {"metadata holds null", safetensors("{\"__metadata__\":{\"a\":null}}", ""), {"'__metadata__'", "null"}},
      {"metadata twice",
       safetensors("{\"__metadata__\":{},\"__metadata__\":{}}", ""),
       {"'__metadata__' appears twice"}},
      {"metadata key twice", safetensors("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", ""), {"metadata key 'a'"}},
      {"deep nesting", safetensors(std::string(1'000'000, '[').replace(0, 5, "{\"w\":") + "}", ""), w},
      {"deeper objects", safetensors("{\"w\":{\"shape\":[{\"a\":1}]}}", ""), about_w("an object")},
      {"100001 tensors", safetensors(many, ""), {"more than 100000 tensors"}},
  };
  CHECK(cases.size() >= 60);
  for (const Case& c : cases) check_refused(c.what, c.file, c.words);
}

TEST_CASE("safetensors: a file cut anywhere is refused") {
  const std::string file = safetensors("{\"__metadata__\":{\"a\":\"b\"},\"v\":" + described("BF16", "[2,2]", "[0,8]") +
                                           ",\"w\":" + described("F32", "[2]", "[8,16]") + "}  ",
                                       std::string(16, 'd'));
  CHECK(rwkv::open_tensors(bytes(file), "whole").tensors().size() == 2);
  for (std::size_t size = 0; size < file.size(); ++size) check_refused("cut", file.substr(0, size), {});
  for (std::size_t more = 1; more < 20; ++more)
    check_refused("longer", file + std::string(more, ' '), {"belong to no tensor"});
}

TEST_CASE("safetensors: any single changed byte is read or refused, never worse") {
  const std::string file = safetensors(one(good), std::string(8, 'd'));
  std::size_t refused = 0;
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (unsigned value = 0; value < 256; ++value) {
      std::string changed = file;
      changed[at] = static_cast<char>(value);
      try {
        const auto opened = rwkv::open_tensors(bytes(changed), "changed");
        REQUIRE(opened.tensors().size() + opened.unreadable().size() == 1);
        if (!opened.tensors().empty()) CHECK(opened.tensors()[0].bytes.size() == 8);
      } catch (const rwkv::Error&) {
        ++refused;
      }
    }
  }
  CHECK(refused > file.size() * 100);
}

TEST_CASE("safetensors: what is unusual but right is read") {
  SUBCASE("no tensors") { CHECK(rwkv::open_tensors(bytes(safetensors("{}", "")), "f").tensors().empty()); }
  SUBCASE("a number without dimensions") {
    const std::string file = safetensors(one(described("F64", "[]", "[0,8]")), "12345678");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    CHECK(opened.tensors()[0].shape.empty());
    CHECK(build::text(opened.tensors()[0].bytes) == "12345678");
  }
  SUBCASE("empty tensors share their offset with a neighbour") {
    const std::string file = safetensors("{\"b\":" + good + ",\"c\":" + described("F32", "[3,0]", "[8,8]") +
                                             ",\"a\":" + described("I64", "[0]", "[0,0]") + "}",
                                         "12345678");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    REQUIRE(opened.tensors().size() == 3);
    CHECK(opened.find("a")->bytes.empty());
    CHECK(opened.find("c")->shape == std::vector<Index>{3, 0});
    CHECK(build::text(opened.find("b")->bytes) == "12345678");
    CHECK(opened.find("d") == nullptr);
    CHECK(opened.find("") == nullptr);
  }
  SUBCASE("the data decides the order") {
    const std::string file = safetensors(
        "{\"a\":" + described("U8", "[1]", "[1,2]") + ",\"b\":" + described("U8", "[1]", "[0,1]") + "}", "xy");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    CHECK(opened.tensors()[0].name == "b");
    CHECK(build::text(opened.tensors()[0].bytes) == "x");
    CHECK(build::text(opened.tensors()[1].bytes) == "y");
  }
  SUBCASE("blanks inside, spaces behind, escapes and metadata") {
    const std::string file = safetensors(
        "{ \"__metadata__\" : {\"k\":\"a\\n\\\"\\u4e2d\"} ,\n\t\"\\u0077\" : " + good + " }    ", "12345678");
    const auto opened = rwkv::open_tensors(bytes(file), "f");
    CHECK(opened.metadata().at("k") == "a\n\"\xe4\xb8\xad");
    CHECK(opened.find("w") != nullptr);
  }
  SUBCASE("every number type") {
    for (const auto& facts : rwkv::detail::dtype_facts) {
      CHECK(rwkv::dtype_named(facts.name).has_value() == !rwkv::is_quantised(facts.dtype));
      if (rwkv::is_quantised(facts.dtype)) continue;
      const std::string n = std::to_string(3 * facts.size);
      const std::string file = safetensors(one(described(std::string(facts.name), "[3]", "[0," + n + "]")),
                                           std::string(3 * facts.size, 'x'));
      CHECK(rwkv::open_tensors(bytes(file), "f").tensors()[0].dtype == facts.dtype);
      CHECK(rwkv::size_of(facts.dtype) == facts.size);
      CHECK(rwkv::name_of(facts.dtype) == facts.name);
    }
  }
  SUBCASE("header lengths that look like other formats") {
    for (const std::size_t size : {std::size_t{0x4b50}, std::size_t{0x0280}, std::size_t{0x04034b50}}) {
      std::string json = one(good);
      json.resize(size, ' ');
      CHECK(rwkv::open_tensors(bytes(safetensors(json, "12345678")), "f").find("w") != nullptr);
    }
  }
}

TEST_CASE("safetensors: writing and reading is the identity") {
  const build::Folder folder;
  const auto path = folder / "model.safetensors";
  const std::string doubles(24, 'a'), floats(20, 'b'), halves(6, 'c'), flags(3, 'd');
  const std::vector<TensorView> tensors{
      {"flags", DType::boolean, {3}, bytes(flags)},
      {"half \"quoted\" \\ \xe4\xb8\xad", DType::bf16, {3, 1}, bytes(halves)},
      {"floats", DType::f32, {5}, bytes(floats)},
      {"nothing", DType::f16, {4, 0}, {}},
      {"doubles", DType::f64, {1, 3}, bytes(doubles)},
      {"one", DType::i64, {}, bytes(doubles).first(8)},
  };
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"note", "tab\t, newline\n, quote \", \x01"}};
  rwkv::save_safetensors(path, tensors, metadata);
  const rwkv::TensorFile opened = rwkv::open_tensors(path);
  CHECK(opened.metadata() == metadata);
  REQUIRE(opened.tensors().size() == tensors.size());
  for (const TensorView& tensor : tensors) {
    CAPTURE(tensor.name);
    const TensorView* found = opened.find(tensor.name);
    REQUIRE(found != nullptr);
    CHECK(found->dtype == tensor.dtype);
    CHECK(found->shape == tensor.shape);
    CHECK(build::text(found->bytes) == build::text(tensor.bytes));
  }
  const std::string first = build::get(path);
  const std::size_t header = *reinterpret_cast<const std::uint64_t*>(first.data());
  CHECK((8 + header) % 64 == 0);
  const auto* data = opened.tensors()[0].bytes.data();
  for (const TensorView& tensor : opened.tensors()) {
    if (!tensor.bytes.empty())
      CHECK(static_cast<std::size_t>(tensor.bytes.data() - data) % rwkv::size_of(tensor.dtype) == 0);
  }
  // What was read writes the same bytes again.
  rwkv::save_safetensors(path, opened.tensors(), opened.metadata());
  CHECK(build::get(path) == first);
}

TEST_CASE("safetensors: what says that tensors are quantised leaves room for all metadata") {
  const build::Folder folder;
  const auto path = folder / "model.safetensors";
  const std::string block(rwkv::size_of(DType::q8_0), '\0');
  std::vector<TensorView> tensors;
  for (int i = 0; i < 3000; ++i) tensors.push_back({rwkv::join("w", i), DType::q8_0, {1, 32}, bytes(block)});
  std::map<std::string, std::string> metadata;
  for (int i = 0; i < 1000; ++i) metadata.emplace(rwkv::join("zz", i), "a note");
  rwkv::save_safetensors(path, tensors, metadata);
  const rwkv::TensorFile opened = rwkv::open_tensors(path);
  CHECK(opened.metadata() == metadata);
  REQUIRE(opened.tensors().size() == tensors.size());
  for (const TensorView& tensor : opened.tensors()) {
    REQUIRE(tensor.dtype == DType::q8_0);
    REQUIRE(tensor.shape == std::vector<Index>{1, 32});
  }
}

TEST_CASE("safetensors: what cannot be read back is not written") {
  const build::Folder folder;
  const auto path = folder / "model.safetensors";
  const std::string data(8, 'x');
  const auto refuse = [&](const std::vector<TensorView>& tensors, const std::map<std::string, std::string>& metadata,
                          const std::string& phrase) {
    std::string said;
    try {
      rwkv::save_safetensors(path, tensors, metadata);
    } catch (const rwkv::Error& error) {
      said = error.what();
    }
    CAPTURE(said);
    CHECK(said.find("model.safetensors") != std::string::npos);
    CHECK(said.find(phrase) != std::string::npos);
    CHECK(folder.count() == 0);
  };
  const TensorView w{"w", DType::f32, {2}, bytes(data)};
  refuse({w, w}, {}, "the tensor name 'w' occurs twice");
  refuse({{"", DType::f32, {2}, bytes(data)}}, {}, "named ''");
  refuse({{"__metadata__", DType::f32, {2}, bytes(data)}}, {}, "named '__metadata__'");
  refuse({{"\xff", DType::f32, {2}, bytes(data)}}, {}, "named '\\xff'");
  refuse({{"w", DType::f32, {3}, bytes(data)}}, {}, "tensor 'w' cannot be written: 8 bytes as F32 [3]");
  refuse({{"w", DType::f32, {-2}, bytes(data)}}, {}, "[-2]");
  refuse({{"w", DType::f32, {-1, -2}, bytes(data)}}, {}, "[-1, -2]");
  refuse({{"w", DType::f32, {1, 1, 1, 1, 1, 1, 1, 1, 2}, bytes(data)}}, {}, "tensor 'w'");
  refuse({{"w", DType::u8, {Index{1} << 62, 4}, {}}}, {}, "tensor 'w'");
  refuse({w}, {{"", "x"}}, "metadata key");
  refuse({w}, {{"a", "\xff"}}, "value of 'a'");
  refuse({w}, {{"a", std::string(1, '\0')}}, "value of 'a'");
}
