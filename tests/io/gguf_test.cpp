// The GGUF reader: what is refused and in which words, every truncation, and the bits of quantised numbers.
// Oracle: gguf_blocks.gguf, written by the Python package gguf; tests/tools/gguf_blocks.py makes it.
#include "rwkv/io/gguf.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "checks.hpp"
#include "gguf_builder.hpp"
#include "rwkv/core/block_formats.hpp"

using build::bytes;
using build::Gguf;
using build::gguf_text;
using build::gguf_value;
using build::u32;
using build::u64;
using rwkv::DType;
using rwkv::Index;

namespace {

std::filesystem::path blocks_file() { return std::filesystem::path(__FILE__).parent_path() / "gguf_blocks.gguf"; }

/// Two tensors, and metadata of some types.
Gguf good() {
  return {{{"general.architecture", gguf_value("test")},
           {"list", u32(9) + u32(8) + u64(2) + gguf_text("one") + gguf_text("")},
           {"lists", u32(9) + u32(9) + u64(2) + u32(4) + u64(1) + u32(7) + u32(0) + u64(3) + "abc"},
           {"number", gguf_value(7u)}},
          {{"v", {3}, 0, std::string(12, 'v')}, {"w", {2, 3}, 1, std::string(12, 'w')}}};
}

}  // namespace

TEST_CASE("GGUF: tensors and metadata") {
  const std::string file = good().file();
  const auto opened = rwkv::open_tensors(bytes(file), "f");
  REQUIRE(opened.tensors().size() == 2);
  CHECK(opened.find("w")->shape == std::vector<Index>{3, 2});
  CHECK(opened.find("w")->dtype == DType::f16);
  CHECK(build::text(opened.find("w")->bytes) == std::string(12, 'w'));
  CHECK(opened.find("v")->bytes.data() == bytes(file).data() + file.size() - 64);
  CHECK(opened.metadata() == std::map<std::string, std::string>{{"general.architecture", "test"}, {"number", "7"}});

  Gguf other = good();
  other.padded = false;
  other.alignment = 64;
  other.metadata.emplace_back("general.alignment", gguf_value(64u));
  other.metadata.emplace_back("odd", gguf_value("a\xff"));
  other.metadata.emplace_back("", gguf_value("no name"));
  std::swap(other.tensors[0].name, other.tensors[1].name);
  other.tensors.push_back({"empty", {0, 4}, 12, ""});
  other.tensors.push_back({"one", {}, 0, "1234"});
  const std::string aligned = other.file();
  const auto again = rwkv::open_tensors(bytes(aligned), "f");
  CHECK(again.find("v")->dtype == DType::f16);
  CHECK(again.find("empty")->bytes.empty());
  CHECK(again.find("one")->shape.empty());
  CHECK(build::text(again.find("one")->bytes) == "1234");
  CHECK(again.metadata() == opened.metadata());

  const std::string nothing = Gguf().file();
  CHECK(rwkv::open_tensors(bytes(nothing), "f").tensors().empty());
}

TEST_CASE("GGUF: what the Python package writes has the types and the bits that it says") {
  const auto file = rwkv::open_tensors(blocks_file());
  const std::map<std::string, std::string> metadata{{"general.architecture", "blocks"},
                                                    {"u8", "255"},
                                                    {"i8", "-128"},
                                                    {"u16", "65535"},
                                                    {"i16", "-32768"},
                                                    {"u32", "4294967295"},
                                                    {"i32", "-2147483648"},
                                                    {"f32", "1e-05"},
                                                    {"u64", "18446744073709551615"},
                                                    {"i64", "-9223372036854775808"},
                                                    {"f64", "1e-05"},
                                                    {"bool", "true"},
                                                    {"text", "na\xc3\xafve"}};
  CHECK(file.metadata() == metadata);
  CHECK(file.unreadable().empty());
  for (const DType type : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    CHECK(file.find(rwkv::name_of(type))->dtype == type);
    CHECK(file.find(rwkv::name_of(type))->shape == std::vector<Index>{3, 5});
  }
  CHECK(build::text(file.find("I8")->bytes) == std::string("\xfd\xfe\xff\0\1\2", 6));

  int formats = 0;
  for (const auto& facts : rwkv::detail::dtype_facts) {
    const std::string name(facts.name);
    CAPTURE(name);
    const bool is_block = rwkv::with_block(facts.dtype, [&]<class Block>(Block block) {
      ++formats;
      const auto& blocks = *file.find(name);
      const auto& numbers = *file.find(name + ".numbers");
      CHECK(blocks.dtype == facts.dtype);
      CHECK(blocks.shape == numbers.shape);
      REQUIRE(blocks.bytes.size() / sizeof(Block) * sizeof(float[Block::length]) == numbers.bytes.size());
      for (std::size_t i = 0; i < blocks.bytes.size() / sizeof(Block); ++i) {
        float found[Block::length];
        std::memcpy(&block, blocks.bytes.data() + i * sizeof(Block), sizeof(Block));
        rwkv::dequantise(block, found);
        REQUIRE(std::memcmp(found, numbers.bytes.data() + i * sizeof(found), sizeof(found)) == 0);
      }
    });
    CHECK(is_block == rwkv::is_quantised(facts.dtype));
  }
  CHECK(formats == 8);
}

TEST_CASE("GGUF: every truncation is refused") {
  const auto check = [](std::string_view file, std::size_t padding) {  // behind the last tensor, which may be missing
    for (std::size_t size = 0; size < file.size() - padding; ++size) {
      bool refused = false;
      try {
        rwkv::open_tensors(bytes(file.substr(0, size)), "bad.file");
      } catch (const rwkv::Error& error) {
        refused = std::string_view(error.what()).starts_with("bad.file: ");
      }
      CAPTURE(size);
      REQUIRE(refused);
    }
    for (std::size_t size = file.size() - padding; size <= file.size(); ++size) {
      CHECK_NOTHROW(rwkv::open_tensors(bytes(file.substr(0, size)), "f"));
    }
  };
  check(good().file(), 20);
  check(build::get(blocks_file()), 26);
}

TEST_CASE("GGUF: malformed files are refused by name") {
  struct Case {
    std::string what;
    std::string file;
    std::vector<std::string> words;
  };
  const auto with = [](auto change) {
    Gguf file = good();
    change(file);
    return file.file();
  };
  const auto tensor = [&](Gguf::Tensor changed) { return with([&](Gguf& f) { f.tensors[1] = changed; }); };
  const auto value = [&](const std::string& bytes_of_value) {
    return with([&](Gguf& f) { f.metadata[1] = {"key", bytes_of_value}; });
  };
  const auto alignment = [&](const std::string& bytes_of_value) {
    return with([&](Gguf& f) { f.metadata[1] = {"general.alignment", bytes_of_value}; });
  };
  const std::uint64_t huge = std::uint64_t{1} << 62, most = ~std::uint64_t{0};
  const std::string twelve(12, 'w');
  std::string nested = u32(9) + u64(1);
  for (int i = 0; i < 100'000; ++i) nested += u32(9) + u64(1);
  const Case cases[] = {
      {"only the magic", "GGUF", {"the GGUF header is cut short at its byte 4"}},
      {"version 2", with([](Gguf& f) { f.version = 2; }), {"a GGUF file of version 2; only version 3 is read"}},
      {"big-endian", with([](Gguf& f) { f.version = 3u << 24; }), {"a big-endian GGUF file"}},
      {"many tensors", with([](Gguf& f) { f.tensor_count = 100'001; }), {"more than 100000 tensors"}},
      {"2^64 tensors", with([&](Gguf& f) { f.tensor_count = most; }), {"more than 100000 tensors"}},
      {"2^64 metadata", with([&](Gguf& f) { f.key_count = most; }), {"more than 100000 metadata keys"}},
      {"more tensors than there are", with([](Gguf& f) { f.tensor_count = 1000; }), {"bad.file: "}},
      {"more metadata than there are", with([](Gguf& f) { f.key_count = 1000; }), {"bad.file: "}},
      {"fewer tensors than there are", with([](Gguf& f) { f.tensor_count = 1; }), {"belong to no tensor"}},
      {"a key twice",
       with([](Gguf& f) { f.metadata[1].first = "number"; }),
       {"the metadata key 'number' occurs twice"}},
      {"a key of 2^64-1 bytes", "GGUF" + u32(3) + u64(0) + u64(1) + u64(most), {"is cut short at its byte 32"}},
      {"a text of 2^63 bytes", value(u32(8) + u64(huge * 2)), {"is cut short"}},
      {"an unknown type", value(u32(13) + u64(0)), {"the metadata 'key' has the unknown type 13"}},
      {"an array of an unknown type", value(u32(9) + u32(77) + u64(0)), {"'key' has the unknown type 77"}},
      {"2^62 numbers", value(u32(9) + u32(10) + u64(huge)), {"is cut short"}},
      {"2^64-1 bytes", value(u32(9) + u32(0) + u64(most)), {"is cut short"}},
      {"2^64-1 texts", value(u32(9) + u32(8) + u64(most)), {"is cut short"}},
      {"2^64-1 arrays", value(u32(9) + u32(9) + u64(most)), {"bad.file: "}},
      {"arrays without end", value(u32(9) + nested), {"the metadata array 'key' is nested more than 4 deep"}},
      {"an alignment of 0", alignment(gguf_value(0u)), {"the alignment 0 is no power of two up to 1048576"}},
      {"an alignment of 48", alignment(gguf_value(48u)), {"the alignment 48 is no power of two"}},
      {"an alignment of 2^31", alignment(gguf_value(1u << 31)), {"the alignment 2147483648 is no power of two"}},
      {"an alignment in 64 bits", alignment(u32(10) + u64(32)), {"'general.alignment' is no 32-bit number"}},
      {"another alignment", alignment(gguf_value(64u)), {"tensor 'w': it starts at 32, which is no multiple of the"}},
      {"a name twice", tensor({"v", {2, 3}, 1, twelve}), {"the tensor name 'v' occurs twice"}},
      {"no name", tensor({"", {2, 3}, 1, twelve}), {"the tensor name ''"}},
      {"a newline in a name", tensor({"a\n", {2, 3}, 1, twelve}), {"the tensor name 'a\\x0a'"}},
      {"a long name", tensor({std::string(1025, 'n'), {2, 3}, 1, twelve}), {"longer than 1024 bytes"}},
      {"no UTF-8", tensor({"\xff", {2, 3}, 1, twelve}), {"the tensor name '\\xff'"}},
      {"five dimensions", tensor({"w", {1, 1, 1, 1, 6}, 1, twelve}), {"'w': it has 5 dimensions, where GGUF allows 4"}},
      {"2^63 numbers", tensor({"w", {huge * 2}, 1, twelve}), {"'w': the size 9223372036854775808 is too large"}},
      {"a product that wraps", tensor({"w", {huge, 4}, 1, twelve}), {"'w': the shape [4, 4611686018427387904] is too"}},
      {"bytes that wrap", tensor({"w", {huge}, 0, twelve}), {"'w': the shape [4611686018427387904] is too large"}},
      {"a zero that hides a product", tensor({"w", {0, huge, 4}, 1, ""}), {"is too large"}},
      {"half a block", tensor({"w", {48}, 8, twelve}), {"'w': rows of 48 numbers are no whole blocks of Q8_0"}},
      {"rows of half blocks", tensor({"w", {128, 2}, 12, twelve}), {"'w': rows of 128 numbers are no whole blocks"}},
      {"a quantised number", tensor({"w", {}, 8, twelve}), {"'w': rows of 1 numbers are no whole blocks of Q8_0"}},
      {"past the end", tensor({"w", {2, 300}, 1, twelve}), {"'w' reaches past the end of the file"}},
      {"far past the end",
       tensor({"w", {2, 3}, 1, twelve, huge}),
       {"'w' leaves a gap: it starts at 4611686018427387904"}},
      {"an odd place", tensor({"w", {2, 3}, 1, twelve, 33}), {"'w': it starts at 33, which is no multiple of the"}},
      {"a gap",
       tensor({"w", {2, 3}, 1, twelve, 64}),
       {"'w' leaves a gap: it starts at 64, but the data before it end at 32"}},
      {"an overlap", tensor({"w", {2, 3}, 1, twelve, 0}), {"overlaps another: it starts at 0, but the data before it"}},
      {"data behind the end",
       good().file() + std::string(32, 'x'),
       {"the data end at 64 of 96 bytes; the others belong"}},
      {"a byte behind the end", good().file() + "x", {"the data end at 64 of 65 bytes"}},
      {"data without tensors", Gguf().file() + "x", {"the data end at 0 of 1 bytes"}}};
  for (const Case& each : cases) build::check_refused(each.what, each.file, each.words);
}

TEST_CASE("GGUF: tensors of other number types stand in nobody's way") {
  Gguf file = good();
  file.tensors[0] = {"v", {256}, 10, std::string(84, 'v')};
  file.tensors.push_back({"x", {1}, 1000, std::string(50, 'x')});
  const std::string text = file.file();
  const auto opened = rwkv::open_tensors(bytes(text), "f");
  CHECK(build::text(opened.find("w")->bytes) == std::string(12, 'w'));
  REQUIRE(opened.unreadable().size() == 2);
  CHECK(opened.find_unreadable("v")->shape == std::vector<Index>{256});
  CHECK(opened.find_unreadable("v")->reason.starts_with("its numbers are of the type Q2_K of ggml; "));
  CHECK(opened.find_unreadable("x")->reason.starts_with("its numbers are of the type 1000 of ggml; "));
}
