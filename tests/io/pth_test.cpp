// The .pth reader: what is refused in the zip and in the pickle and in which words, every truncation, every single
// changed byte, and the forms that PyTorch writes.
#include "rwkv/io/pth.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "rwkv/io/pickle.hpp"
#include "rwkv/system/crc32.hpp"

using build::bytes;
using build::check_refused;
using build::dict;
using build::Entry;
using build::global;
using build::number;
using build::ordered_dict;
using build::pickle;
using build::pth;
using build::storage;
using build::tensor;
using build::tensor_of;
using build::tuple;
using build::u16;
using build::u32;
using build::u64;
using build::word;
using build::Zip;
using rwkv::DType;
using rwkv::Index;

namespace {

const std::string good = dict(word("w") + tensor());

}  // namespace

TEST_CASE("pth: malformed zip archives are refused by name") {
  struct Case {
    std::string what;
    std::string file;
    std::vector<std::string> words;
  };
  const auto with = [](const std::function<void(Zip&)>& change) {
    Zip zip = pth(good);
    change(zip);
    return zip.file();
  };
  const auto with_data = [](const std::function<void(Entry&)>& change) {
    Zip zip = pth(good);
    change(zip.entry("data/0"));
    return zip.file();
  };
  const std::vector<std::string> data{"'m/data/0'"};
  const auto about_data = [](const std::string& phrase) { return std::vector<std::string>{"'m/data/0'", phrase}; };
  const std::string whole = build::good_pth();
  const std::string short_end = with([](Zip& z) { z.zip64 = false; });

  const std::vector<Case> cases{
      {"only the magic number", "PK\x03\x04", {"too few"}},
      {"no end record", whole.substr(0, whole.size() - 22), {"end record"}},
      {"bytes behind the end", whole + "x", {"end record"}},
      {"an archive comment",
       build::patched(whole, -2, u16(4)) + "note",
       {"ends with a comment", "pack it without one"}},
      {"the longest comment",
       build::patched(whole, -2, u16(0xffff)) + std::string(0xffff, 'x'),
       {"ends with a comment"}},
      {"a comment with an end record inside",
       build::patched(whole, -2, u16(8)) + "PK\x05\x06note",
       {"ends with a comment"}},
      {"a comment that is longer than it says", build::patched(whole, -2, u16(4)) + "notes", {"cut short"}},
      {"a comment that is shorter than it says", build::patched(whole, -2, u16(4)) + "not", {"cut short"}},
      {"a comment that is cut short", build::patched(whole, -2, u16(4)), {"carries a comment"}},
      {"a comment that is not there", build::patched(whole, -2, u16(1)), {"comment"}},
      {"several disks", build::patched(whole, -18, u16(1)), {"several parts"}},
      {"directory on another disk", build::patched(whole, -16, u16(1)), {"several parts"}},
      {"counts that differ", build::patched(whole, -14, u16(3)), {"several parts"}},
      {"both counts wrong", build::patched(whole, -14, u16(3) + u16(3)), {"disagree"}},
      {"directory size differs from zip64", build::patched(whole, -10, u32(7)), {"disagree"}},
      {"directory offset differs from zip64", build::patched(whole, -6, u32(7)), {"disagree"}},
      {"zip64 locator on another disk", build::patched(whole, -38, u32(1)), {"several parts"}},
      {"zip64 locator of two disks", build::patched(whole, -26, u32(2)), {"several parts"}},
      {"zip64 locator points elsewhere", build::patched(whole, -34, u64(0)), {"zip64 end record is not where"}},
      {"zip64 locator points past 2^63",
       build::patched(whole, -34, u64(~std::uint64_t{0})),
       {"zip64 end record is not where"}},
      {"zip64 end record without its mark", build::patched(whole, -98, u32(0)), {"zip64 end record is malformed"}},
      {"zip64 end record of another size", build::patched(whole, -94, u64(45)), {"zip64 end record is malformed"}},
      {"zip64 disks", build::patched(whole, -82, u32(1)), {"several parts"}},
      {"zip64 counts that differ", build::patched(whole, -74, u64(3)), {"several parts"}},
      {"zip64 count of 2^64-1",
       build::patched(whole, -74, u64(~std::uint64_t{0}) + u64(~std::uint64_t{0})),
       {"do not fit"}},
      {"zip64 directory of 2^64-1 bytes", build::patched(whole, -58, u64(~std::uint64_t{0})), {"does not end at"}},
      {"zip64 directory at 2^64-1", build::patched(whole, -50, u64(~std::uint64_t{0})), {"does not end at"}},
      {"more entries than the directory", build::patched(short_end, -14, u16(500) + u16(500)), {"do not fit"}},
      {"one entry more than there is", build::patched(short_end, -14, u16(5) + u16(5)), {"do not fit"}},
      {"one entry that is none",
       build::patched(with([](Zip& z) { z.in_directory = std::string(60, 'x'); }), -74, u64(5) + u64(5)),
       {"disagree"}},
      {"one entry that is none in both end records",
       build::patched(build::patched(with([](Zip& z) { z.in_directory = std::string(60, 'x'); }), -74, u64(5) + u64(5)),
                      -14, u16(5) + u16(5)),
       {"directory is malformed at entry 4"}},
      {"an entry whose name is cut by the end of the directory",
       build::patched(build::patched(with([](Zip& z) { z.in_directory = u32(0x02014b50) + std::string(42, '\1'); }),
                                     -74, u64(5) + u64(5)),
                      -14, u16(5) + u16(5)),
       {"the zip directory is cut short"}},
      {"one entry less than there is", build::patched(short_end, -14, u16(3) + u16(3)), {"belong to no entry"}},
      {"saturated count without zip64", build::patched(short_end, -14, u16(0xffff) + u16(0xffff)), {"do not fit"}},
      {"bytes before the archive", with([](Zip& z) { z.prefix = "PK\x03\x04 hidden"; }), {"does not start where"}},
      {"bytes between data and directory",
       with([](Zip& z) { z.before_directory = "hidden"; }),
       {"'m/version'", "descriptor"}},
      {"an entry between data and directory",
       with([](Zip& z) {
         z.before_directory = Zip{{Entry{"m/x", "y"}}, false}.file();
       }),
       {"'m/version'", "descriptor"}},
      {"bytes in the directory", with([](Zip& z) { z.in_directory = "hidden"; }), {"belong to no entry"}},
      {"no entries", Zip{{}}.file().insert(0, "PK\x03\x04"), {"bad.file"}},
      {"directory entry without its mark",
       with_data([](Entry& e) { e.mark = 0; }),
       {"directory is malformed at entry 2"}},
      {"local record without its mark", with_data([](Entry& e) { e.local_mark = 0; }), about_data("no local record")},
      {"compressed", with_data([](Entry& e) { e.method = 8; }), about_data("compressed")},
      {"compressed in the local record only", with_data([](Entry& e) { e.local_method = 8; }),
       about_data("other flags")},
      {"encrypted", with_data([](Entry& e) { e.flags |= 1u; }), about_data("encrypted")},
      {"encrypted in the local record only", with_data([](Entry& e) { e.local_flags = 0x0809; }),
       about_data("other flags")},
      {"strongly encrypted", with_data([](Entry& e) { e.flags |= 0x40u; }), about_data("flags")},
      {"patch data", with_data([](Entry& e) { e.flags |= 0x20u; }), about_data("flags")},
      {"masked directory", with_data([](Entry& e) { e.flags |= 0x2000u; }), about_data("flags")},
      {"an entry comment", with_data([](Entry& e) { e.comment = "c"; }), about_data("comment")},
      {"an entry on another disk", with_data([](Entry& e) { e.disk = 1; }), about_data("disk")},
      {"a folder by its attributes", with_data([](Entry& e) { e.attributes = 0x10; }), about_data("folder")},
      {"another name in the local record", with_data([](Entry& e) { e.local_name = "m/data/1"; }),
       about_data("another name")},
      {"a longer name in the local record", with_data([](Entry& e) { e.local_name = "m/data/00"; }), data},
      {"a huge name in the local record", with_data([](Entry& e) { e.local_name = std::string(60000, 'n'); }), data},
      {"wrong checksum everywhere", with_data([](Entry& e) { e.crc = 7; }), about_data("CRC-32")},
      {"changed data", with_data([](Entry& e) {
         e.crc = build::crc32(e.data);
         e.data[3] ^= 1;
       }),
       about_data("CRC-32")},
      {"another checksum in the local record", with_data([](Entry& e) { e.local_crc = 7; }),
       about_data("another checksum in its local")},
      {"no checksum in an unstreamed local record", with_data([](Entry& e) {
         e.flags = 0x800;
         e.local_crc = 0;
       }),
       about_data("another checksum in its local")},
      {"another size in the local record", with_data([](Entry& e) { e.local_size = 23; }), about_data("another size")},
      {"another packed size in the local record", with_data([](Entry& e) { e.local_packed = 23; }),
       about_data("another size")},
      {"no size in an unstreamed local record", with_data([](Entry& e) {
         e.flags = 0x800;
         e.local_size = 0;
       }),
       about_data("another size")},
      {"saturated local size without zip64", with_data([](Entry& e) { e.local_size = 0xffffffff; }),
       about_data("another size")},
      {"another size in the local zip64 field", with_data([](Entry& e) {
         e.local_size = 0xffffffff;
         e.local_extra = u16(1) + u16(8) + u64(25);
       }),
       about_data("another size")},
      {"sizes that differ", with_data([](Entry& e) { e.packed = 23; }), about_data("two sizes differ")},
      {"size too small", with_data([](Entry& e) { e.packed = e.size = 8; }), about_data("descriptor")},
      {"size too large", with_data([](Entry& e) { e.packed = e.size = 100'000; }), about_data("overlaps")},
      {"size of 2^64-1", with_data([](Entry& e) {
         e.packed = e.size = 0xffffffff;
         e.extra = u16(1) + u16(16) + u64(~std::uint64_t{0}) + u64(~std::uint64_t{0});
       }),
       about_data("overlaps")},
      {"saturated size without zip64", with_data([](Entry& e) { e.size = 0xffffffff; }), about_data("zip64")},
      {"zip64 field too short", with_data([](Entry& e) {
         e.size = 0xffffffff;
         e.extra = u16(1) + u16(7) + std::string(7, 'x');
       }),
       about_data("zip64")},
      {"zip64 field nobody asked for", with_data([](Entry& e) { e.extra = u16(1) + u16(8) + u64(24); }),
       about_data("zip64")},
      {"two zip64 fields", with_data([](Entry& e) { e.extra = u16(1) + u16(0) + u16(1) + u16(0); }),
       about_data("two zip64")},
      {"extra field cut", with_data([](Entry& e) { e.extra = u16(7); }), about_data("extra field")},
      {"extra field too long", with_data([](Entry& e) { e.extra = u16(7) + u16(9) + "x"; }), about_data("extra field")},
      {"local extra field too long", with_data([](Entry& e) { e.local_extra = u16(7) + u16(9) + "x"; }),
       about_data("extra field")},
      {"no descriptor", with_data([](Entry& e) { e.descriptor = ""; }), about_data("descriptor of 16 or 24")},
      {"descriptor without its mark",
       with_data([](Entry& e) { e.descriptor = u32(build::crc32(e.data)) + u32(24) + u32(24); }),
       about_data("descriptor of 16 or 24")},
      {"another mark in the descriptor",
       with_data([](Entry& e) { e.descriptor = u32(1) + u32(build::crc32(e.data)) + u32(24) + u32(24); }),
       about_data("data descriptor")},
      {"another checksum in the descriptor",
       with_data([](Entry& e) { e.descriptor = u32(0x08074b50) + u32(1) + u32(24) + u32(24); }),
       about_data("data descriptor")},
      {"another size in the descriptor",
       with_data([](Entry& e) { e.descriptor = u32(0x08074b50) + u32(build::crc32(e.data)) + u32(24) + u32(25); }),
       about_data("data descriptor")},
      {"another size in a wide descriptor", with_data([](Entry& e) {
         e.descriptor = u32(0x08074b50) + u32(build::crc32(e.data)) + u64(24) + u64(1ull << 32 | 24);
       }),
       about_data("data descriptor")},
      {"bytes behind an unstreamed entry", with_data([](Entry& e) {
         e.flags = 0x800;
         e.packed = e.size = e.local_size = e.local_packed = 20;
       }),
       about_data("belong to no entry")},
      {"two entries of one name",
       with([](Zip& z) { z.entries.push_back(z.entries[2]); }),
       {"two zip entries are named 'm/data/0'"}},
      {"two names for one place", with([](Zip& z) { z.entry("version").offset = 0; }), {"overlaps"}},
      {"an entry inside another",
       with([](Zip& z) { z.entry("data.pkl").offset = 10; }),
       {"'m/data.pkl'", "does not start where"}},
      {"an entry past the directory", with([](Zip& z) { z.entry("version").offset = 100'000; }), {"'m/version'"}},
      {"an entry at 2^64-1",
       with(
           [](Zip& z) {
             z.entry("version").offset = 0xffffffff;
             z.entry("version").extra = u16(1) + u16(8) + u64(~std::uint64_t{0});
           }),
       {"'m/version'"}},
      {"a name that climbs up",
       with([](Zip& z) { z.entries[2].name = "m/../data/0"; }),
       {"'m/../data/0'", "unsafe path"}},
      {"an absolute name", with([](Zip& z) { z.entries[2].name = "/m/data/0"; }), {"unsafe path"}},
      {"a dot in the path", with([](Zip& z) { z.entries[2].name = "m/./data/0"; }), {"unsafe path"}},
      {"a folder",
       with(
           [](Zip& z) {
             z.entries.push_back(Entry{"m/code/", ""});
           }),
       {"'m/code/'", "folder"}},
      {"a backslash", with([](Zip& z) { z.entries[2].name = "m\\data\\0"; }), {"backslash"}},
      {"no name", with([](Zip& z) { z.entries[2].name = ""; }), {"name ''"}},
      {"a name with a NUL",
       with([](Zip& z) { z.entries[2].name = std::string("m/data/0\0", 9); }),
       {"'m/data/0\\x00'"}},
      {"a name that is no UTF-8", with([](Zip& z) { z.entries[2].name = "m/data/\xff"; }), {"\\xff"}},
      {"two root folders",
       with(
           [](Zip& z) {
             z.entries.push_back(Entry{"n/data.pkl", good});
           }),
       {"'n/data.pkl'", "outside"}},
      {"a root that is a prefix",
       with(
           [](Zip& z) {
             z.entries.push_back(Entry{"mm/data.pkl", good});
           }),
       {"'mm/data.pkl'", "outside"}},
      {"no pickle", with([](Zip& z) { z.entries.erase(z.entries.begin()); }), {"no data.pkl"}},
      {"big-endian", with([](Zip& z) { z.entry("byteorder").data = "big"; }), {"little-endian"}},
      {"unknown byte order", with([](Zip& z) { z.entry("byteorder").data = ""; }), {"little-endian"}},
      {"missing storage",
       with([](Zip& z) { z.entry("data/0").name = "m/data/1"; }),
       {"tensor 'w'", "storage '0' is not in the archive"}},
      {"storage too short",
       with_data([](Entry& e) { e.data.pop_back(); }),
       {"tensor 'w'", "23 bytes, which is not 6 x F32"}},
      {"storage too long", with_data([](Entry& e) { e.data += "x"; }), {"tensor 'w'", "25 bytes"}},
  };
  CHECK(cases.size() >= 60);
  for (const Case& c : cases) check_refused(c.what, c.file, c.words);
}

TEST_CASE("pth: malformed pickles are refused by name") {
  struct Case {
    std::string what;
    std::string pickle;
    std::vector<std::string> words;
  };
  const auto item = [](const std::string& value) { return dict(word("w") + value); };
  const auto about_w = [](const std::string& phrase) { return std::vector<std::string>{"entry 'w'", phrase}; };
  const auto of_w = [](const std::string& phrase) { return std::vector<std::string>{"tensor 'w'", phrase}; };
  const auto id = [](const std::string& content) { return "(" + content + "tQ"; };
  const std::string shape = tuple({2, 3});
  const std::string strides = tuple({3, 1});
  const std::string rebuild = global("torch._utils", "_rebuild_tensor_v2");
  const std::string parameter = global("torch._utils", "_rebuild_parameter");
  const std::string with_state = global("torch._utils", "_rebuild_parameter_with_state");
  const std::string from_type = global("torch._tensor", "_rebuild_from_type_v2");
  const std::string sub = global("__main__", "Sub");
  const std::string plain = storage() + number(0) + shape + strides + "\x89" + ordered_dict();
  const auto two = [&](const std::string& a, const std::string& b) { return dict(word("v") + a + word("w") + b); };
  const auto of_storage = [&](const std::string& s) { return tensor_of(s, 0, shape, strides); };

  const std::vector<Case> cases{
      {"nothing", "", {"no pickle"}},
      {"one byte", "\x80", {"no pickle"}},
      {"no frame", "}.", {"no pickle"}},
      {"protocol 4", "\x80\x04}.", {"protocol 4"}},
      {"protocol 1", "\x80\x01}.", {"protocol 1"}},
      {"a second protocol opcode", pickle("\x80\x02}"), {"opcode 128"}},
      {"no end", "\x80\x02}", {"cut short"}},
      {"bytes behind the end", pickle("}") + "x", {"goes on after its end"}},
      {"a second pickle behind the end", pickle("}") + pickle("}"), {"goes on after its end"}},
      {"empty stack at the end", pickle(""), {"lacks a dictionary at the end"}},
      {"a number at the end", pickle(number(7)), {"holds an integer, not a dictionary of tensors"}},
      {"a tensor at the end", pickle(tensor()), {"holds a tensor, not a dictionary of tensors"}},
      {"a list at the end", pickle("]"), {"holds a list, not a dictionary of tensors"}},
      {"a mark at the end alone", pickle("("), {"holds a mark, not a dictionary of tensors"}},
      {"two values at the end", pickle("}}"), {"leaves values"}},
      {"a mark at the end", pickle("(}"), {"leaves values"}},
      {"os.system", item(global("os", "system") + "(" + word("id") + "tR"), about_w("'os' 'system'")},
      {"posix.system", item(global("posix", "system") + "(" + word("id") + "tR"), about_w("'posix' 'system'")},
      {"builtins.eval", item(global("builtins", "eval") + "(" + word("1") + "tR"), about_w("'builtins' 'eval'")},
      {"__builtin__.exec", item(global("__builtin__", "exec") + ")R"), about_w("'__builtin__' 'exec'")},
      {"torch.load", item(global("torch", "load") + ")R"), about_w("'torch' 'load'")},
      {"torch.hub", item(global("torch.hub", "load") + ")R"), about_w("'torch.hub'")},
      {"another call of torch", item(global("torch", "compile") + ")R"), about_w("'torch' 'compile'")},
      {"a name that begins like a rebuild", item(global("os", "_rebuild_tensor_v2") + ")R"), about_w("'os'")},
      {"a name that ends like a storage", item(of_storage("(" + word("storage") + global("os", "Storage") + "tQ")),
       about_w("'os' 'Storage'")},
      {"a name with an escape sequence", item(global("os\x1b[2J", "system")), about_w("\\x1b[2J")},
      {"a name with a dot", item(global("collections", "OrderedDict.fromkeys")), about_w("OrderedDict.fromkeys")},
      {"a name without an end", item("cos"), about_w("without an end")},
      {"an instance", item("(ios\nsystem\n"), about_w("opcode 105")},
      {"an object", item(")\x81"), about_w("opcode 129")},
      {"an object with arguments", item("(" + global("collections", "OrderedDict") + "o"), about_w("opcode 111")},
      {"a global from the stack", item(word("os") + word("system") + "\x93"), {"opcode 147"}},
      {"an extension", item("\x82\x01"), about_w("opcode 130")},
      {"a persistent id as text", item("Pos\n"), about_w("opcode 80")},
      {"a list", item("]"), {"'w' is a list, not a tensor"}},
      {"a float", item("G" + std::string(8, 'x')), {"'w' is a float, not a tensor"}},
      {"half a float", pickle("}" + word("w") + "G\x3f"), {"cut short"}},
      {"an object of torch", item(global("torch", "device") + word("cpu") + "\x85R"), {"'w' is an object"}},
      {"a type of torch", item(global("torch", "float16")), {"'w' is a function or type"}},
      {"a value appended to nothing", pickle("Na"), {"lacks a list"}},
      {"a mark appended", pickle("](a"), {"lacks a value for a list"}},
      {"a value appended to a tuple", pickle(")Na"), {"lacks a list"}},
      {"values appended to a tuple", pickle(")(NNe"), {"lacks a list"}},
      {"values appended without a mark", pickle("]NNe"), {"lacks a mark"}},
      {"bytes", item("C\x01x"), about_w("opcode 67")},
      {"a short text", item("\x8c\x01x"), about_w("opcode 140")},
      {"a number as text", item("I7\n"), about_w("opcode 73")},
      {"a long number as text", item("L7L\n"), about_w("opcode 76")},
      {"a huge number", item("\x8b" + u32(0x7fffffff)), about_w("opcode 139")},
      {"a pop", item("0"), about_w("opcode 48")},
      {"a copy", item("2"), about_w("opcode 50")},
      {"opcode 0", item(std::string(1, '\0')), about_w("opcode 0")},
      {"opcode 255", item("\xff"), about_w("opcode 255")},
      {"an integer of 9 bytes", item("\x8a\x09" + std::string(9, '\1')), {"'w' is an object, not a tensor"}},
      {"an integer of 255 bytes", item("\x8a\xff" + std::string(255, '\1')), {"'w' is an object, not a tensor"}},
      {"a text longer than the pickle", item("X" + u32(1000)), {"cut short"}},
      {"a text of 4 GB", item("X" + u32(0xffffffff)), {"cut short"}},
      {"a text of 65537 bytes", item(word(std::string(65537, 'a'))), {"'w' is an object, not a tensor"}},
      {"a key of 65537 bytes", dict(word(std::string(65537, 'a')) + tensor()), {"key that is an object"}},
      {"a key of 9 bytes", dict("\x8a\x09" + std::string(9, '\1') + tensor()), {"key that is an object"}},
      {"a text that is no UTF-8", item(word("\xff")), about_w("UTF-8")},
      {"a long text that is no UTF-8", item(word(std::string(65537, '\xff'))), about_w("UTF-8")},
      {"memo index 2^32-1", item(number(1) + "r" + u32(0xffffffff)), about_w("number 4294967295 after 0")},
      {"memo index out of order", item(number(1) + "q\x01"), about_w("number 1 after 0")},
      {"memo index used twice", item(number(1) + std::string("q\0q\0", 4)), about_w("number 0 after 1")},
      {"memo of nothing", pickle("q" + std::string(1, '\0')), {"lacks a value to remember"}},
      {"memo of a mark", pickle("(q" + std::string(1, '\0')), {"lacks a value to remember"}},
      {"recall of nothing", item("h\x05"), about_w("recalls value 5 of 0")},
      {"long recall of nothing", item("j" + u32(0xffffffff)), about_w("recalls value 4294967295 of 0")},
      {"tuple of an empty stack", pickle("\x85"), {"lacks 1 values"}},
      {"tuple of three with two", pickle("NN\x87"), {"lacks 3 values"}},
      {"tuple with a mark", pickle("N(\x86"), {"puts a mark into a tuple"}},
      {"tuple without a mark", pickle("Nt"), {"lacks a mark"}},
      {"item on an empty stack", pickle("s"), {"lacks a dictionary, a key and a value"}},
      {"item on a tuple", pickle(")" + word("w") + "Ns"), {"lacks a dictionary"}},
      {"item with a mark as value", pickle("}" + word("w") + "(s"), {"puts a mark"}},
      {"items without a mark", pickle("}" + word("w") + "Nu"), {"lacks a mark"}},
      {"items without a dictionary", pickle("(" + word("w") + "Nu"), {"lacks a dictionary below"}},
      {"items on a tuple", pickle(")(" + word("w") + "Nu"), {"lacks a dictionary below"}},
      {"items on a mark", pickle("((" + word("w") + "Nu"), {"lacks a dictionary below"}},
      {"a key without a value", dict(word("w")), about_w("without a value")},
      {"a key that is a number", dict(number(1) + tensor()), {"key that is an integer"}},
      {"a key that is a tensor", dict(tensor() + tensor()), {"key that is a tensor"}},
      {"a key that is a list", dict("]" + tensor()), {"key that is a list"}},
      {"a key that is a number beside a text",
       dict(word("w") + tensor() + number(1) + tensor()),
       {"key that is an integer"}},
      {"a call of nothing", pickle("R"), {"lacks a tuple of arguments"}},
      {"a call without arguments", pickle(global("collections", "OrderedDict") + "R"), {"lacks a tuple of arguments"}},
      {"a call of a text", pickle(word("f") + ")R"), {"lacks a function"}},
      {"a call of a tensor", item(tensor() + ")R"), about_w("lacks a function")},
      {"a call of a storage type", item(global("torch", "FloatStorage") + ")R"), about_w("calls a storage type")},
      {"a call of a foreign storage type", item(global("torch", "QInt8Storage") + ")R"),
       about_w("calls a storage type")},
      {"a call of a number type", item(global("torch", "uint16") + ")R"), about_w("calls a number type")},
      {"a storage as the number type of a tensor",
       item(global("torch._utils", "_rebuild_tensor_v3") + "(" + storage() + number(0) + shape + strides + "\x89" +
            ordered_dict() + global("torch", "FloatStorage") + "tR"),
       about_w("'FloatStorage' in place of a number type")},
      {"a foreign tensor of a negative size",
       item(global("torch._utils", "_rebuild_qtensor") + "(" + storage() + number(0) + tuple({-1}) + "tR"),
       about_w("has -1 as a size")},
      {"a dictionary with arguments", item(global("collections", "OrderedDict") + ")\x85R"),
       about_w("from 1 arguments")},
      {"a tensor from 5 arguments", item(rebuild + "(" + storage() + number(0) + shape + strides + "\x89tR"),
       about_w("5 arguments")},
      {"a tensor with marks that are no dictionary",
       item(rebuild + "(" + storage() + number(0) + shape + strides + "\x89" + ordered_dict() + "NtR"),
       about_w("None in place of a dictionary of marks")},
      {"a tensor from 8 arguments",
       item(rebuild + "(" + storage() + number(0) + shape + strides + "\x89" + ordered_dict() + "}NtR"),
       about_w("8 arguments")},
      {"a tensor from a text", item(tensor_of(word("0"), 0, shape, strides)), about_w("a text in place of a storage")},
      {"a tensor from a storage type", item(tensor_of(global("torch", "FloatStorage"), 0, shape, strides)),
       about_w("a function or type in place of a storage")},
      {"an offset that is a text",
       item(rebuild + "(" + storage() + word("0") + shape + strides + "\x89" + ordered_dict() + "tR"),
       about_w("a text in place of an offset")},
      {"an offset that is a boolean",
       item(rebuild + "(" + storage() + "\x89" + shape + strides + "\x89" + ordered_dict() + "tR"),
       about_w("a boolean in place of an offset")},
      {"a negative offset", item(tensor_of(storage(), -1, shape, strides)), about_w("has -1 as an offset")},
      {"a shape that is a number", item(tensor_of(storage(), 0, number(6), strides)),
       about_w("an integer in place of a shape")},
      {"a shape of texts", item(tensor_of(storage(), 0, word("6") + "\x85", number(1) + "\x85")),
       about_w("a text in place of a size")},
      {"a negative size", item(tensor(0, {-2, -3})), about_w("has -2 as a size")},
      {"a negative stride", item(tensor(0, {2, 3}, {-3, 1})), about_w("has -3 as a stride")},
      {"strides of another rank", item(tensor(0, {6}, {6, 1})), about_w("2 strides for 1 dimensions")},
      {"hooks that are None", item(tensor_of(storage(), 0, shape, strides, "N")),
       about_w("None in place of a dictionary of hooks")},
      {"hooks with content", item(tensor_of(storage(), 0, shape, strides, "}" + word("h") + "Ns")),
       about_w("has backward hooks")},
      {"requires_grad that is a number",
       item(rebuild + "(" + storage() + number(0) + shape + strides + number(0) + ordered_dict() + "tR"),
       about_w("in place of requires_grad")},
      {"a parameter of a number", item(parameter + "(" + number(1) + "\x89" + ordered_dict() + "tR"),
       about_w("in place of a tensor")},
      {"a parameter from 2 arguments", item(parameter + "(" + tensor() + "\x89tR"), about_w("2 arguments")},
      {"a parameter with the state of another kind",
       item(with_state + "(" + tensor() + "\x89" + ordered_dict() + "]tR"),
       about_w("a list in place of the attributes")},
      {"a parameter with a state of three", item(with_state + "(" + tensor() + "\x89" + ordered_dict() + "NNN\x87tR"),
       about_w("a tuple in place of the attributes")},
      {"a parameter without its state", item(with_state + "(" + tensor() + "\x89" + ordered_dict() + "tR"),
       about_w("from 3 arguments instead of 4")},
      {"a parameter with hooks and a state", item(with_state + "(" + tensor() + "\x89}" + word("h") + "Ns}tR"),
       about_w("has backward hooks")},
      {"a parameter with a state, of a number", item(with_state + "(" + number(1) + "\x89" + ordered_dict() + "}tR"),
       about_w("an integer in place of a tensor")},
      {"a class elsewhere", item(global("__main__", "Sub")), about_w("'__main__' 'Sub'")},
      {"a class in place of the function", item(from_type + "(" + global("__main__", "Sub")),
       about_w("'__main__' 'Sub'")},
      {"a class behind the class", item(from_type + "(" + rebuild + sub + sub), about_w("'__main__' 'Sub'")},
      {"a class that is called", item(from_type + "(" + rebuild + sub + ")R"), about_w("calls the type 'Sub'")},
      {"the class of tensors, called", item(global("torch", "Tensor") + ")R"), about_w("calls the type 'Tensor'")},
      {"a class made by itself", item(from_type + "(" + from_type + sub + "(" + plain + "t}tR"),
       about_w("makes a tensor by '_rebuild_from_type_v2'")},
      {"a class made by a dictionary", item(from_type + "(" + global("collections", "OrderedDict") + sub + ")}tR"),
       about_w("makes a tensor by 'OrderedDict'")},
      {"a function as class", item(from_type + "(" + rebuild + rebuild + "(" + plain + "t}tR"),
       about_w("'_rebuild_tensor_v2' in place of the class")},
      {"a class from 3 arguments", item(from_type + "(" + rebuild + sub + "(" + plain + "ttR"),
       about_w("3 arguments instead")},
      {"a class without arguments", item(from_type + "(" + rebuild + sub + ")}tR"), about_w("from 0 arguments")},
      {"a class with a number as state", item(from_type + "(" + rebuild + sub + "(" + plain + "t" + number(1) + "tR"),
       about_w("an integer in place of the attributes")},
      {"an id that is a text", pickle(word("0") + "Q"), {"lacks a tuple"}},
      {"an id of 4 parts", item(id(word("storage") + global("torch", "FloatStorage") + word("0") + word("cpu"))),
       about_w("no storage")},
      {"an id of another kind",
       item(id(word("module") + global("torch", "FloatStorage") + word("0") + word("cpu") + number(6))),
       about_w("no storage")},
      {"an id with a text as type",
       item(id(word("storage") + word("FloatStorage") + word("0") + word("cpu") + number(6))),
       about_w("a text in place of a storage type")},
      {"an id with a function as type",
       item(id(word("storage") + global("collections", "OrderedDict") + word("0") + word("cpu") + number(6))),
       about_w("a function in place of a storage type")},
      {"an id with a number as key",
       item(id(word("storage") + global("torch", "FloatStorage") + number(0) + word("cpu") + number(6))),
       about_w("in place of the name of a storage")},
      {"an id without a device",
       item(id(word("storage") + global("torch", "FloatStorage") + word("0") + "N" + number(6))),
       about_w("in place of a device")},
      {"a negative storage size", item(of_storage(storage("FloatStorage", "0", -6))),
       about_w("-6 as the size of a storage")},
      {"a storage key that climbs up", item(of_storage(storage("FloatStorage", "../data/0"))),
       of_w("storage '../data/0' is not in the archive")},
      {"a storage size of 2^62", item(of_storage(storage("FloatStorage", "0", std::int64_t{1} << 62))),
       of_w("which is not 4611686018427387904 x F32")},
      {"a storage size that wraps", item(of_storage(storage("FloatStorage", "0", (std::int64_t{1} << 62) + 6))),
       of_w("which is not")},
      {"a storage of another type", item(of_storage(storage("DoubleStorage"))), of_w("which is not 6 x F64")},
      {"one storage as two types", two(tensor(), tensor_of(storage("HalfStorage", "0", 12), 0, shape, strides)),
       of_w("described in two ways")},
      {"one storage in two sizes", two(tensor(), of_storage(storage("FloatStorage", "0", 5))),
       of_w("described in two ways")},
      {"past the storage", item(tensor(1)), {"tensor 'w' of shape [2, 3] at element 1", "6 elements"}},
      {"far past the storage", item(tensor(std::int64_t{1} << 62)), {"tensor 'w'", "reaches past"}},
      {"an offset that wraps", item(tensor((std::int64_t{1} << 62) - 1, {1}, {1})), {"tensor 'w'", "reaches past"}},
      {"an empty tensor past the storage", item(tensor(7, {0}, {1})), {"tensor 'w'", "reaches past"}},
      {"larger than the storage", item(tensor(0, {7}, {1})), {"tensor 'w'", "reaches past"}},
      {"a shape that multiplies to 2^64",
       item(tensor(0, {std::int64_t{1} << 32, std::int64_t{1} << 32}, {std::int64_t{1} << 32, 1})),
       {"tensor 'w'", "too large"}},
      {"a shape that wraps to 6", item(tensor(0, {6148914691236517206, 3}, {3, 1})), {"tensor 'w'", "too large"}},
      {"a name twice", dict(word("w") + tensor() + word("w") + tensor()), {"the tensor name 'w' occurs twice"}},
      {"an empty name", dict(word("") + tensor()), {"tensor name ''"}},
      {"a name with a newline", dict(word("a\n") + tensor()), {"tensor name 'a\\x0a'"}},
      {"a name of 1025 bytes", dict(word(std::string(1025, 'a')) + tensor()), {"1024"}},
      {"a number among the tensors", dict(word("epoch") + number(3)), {"'epoch' is an integer, not a tensor"}},
      {"a text among the tensors", dict(word("version") + word("7")), {"'version' is a text, not a tensor"}},
      {"None among the tensors", dict(word("best") + "N"), {"'best' is None, not a tensor"}},
      {"a boolean among the tensors", dict(word("done") + "\x88"), {"'done' is a boolean, not a tensor"}},
      {"a storage among the tensors", dict(word("raw") + storage()), {"'raw' is a storage, not a tensor"}},
      {"a nested dictionary",
       dict(word("state_dict") + "}(" + word("w") + tensor() + "u"),
       {"'state_dict' is a dictionary", "save it alone"}},
      {"a dictionary that holds itself",
       pickle("}q" + std::string(1, '\0') + word("me") + "h" + std::string(1, '\0') + "s"),
       {"'me' is a dictionary"}},
      {"a state inside the dictionary",
       item(ordered_dict() + "}" + word("_metadata") + ordered_dict() + "sb"),
       {"'w' is a dictionary, not a tensor"}},
      {"a state of another name", pickle("}}" + word("__class__") + ordered_dict() + "sb"), {"not just '_metadata'"}},
      {"two states",
       pickle("}}" + word("_metadata") + ordered_dict() + "s" + word("x") + "Nsb"),
       {"not just '_metadata'"}},
      {"an empty state", pickle("}}b"), {"not just '_metadata'"}},
      {"a state that holds a number", pickle("}}" + word("_metadata") + number(1) + "sb"), {"not just '_metadata'"}},
      {"a state that is a tuple", pickle("})b"), {"lacks a dictionary with a state"}},
      {"a state of a tensor",
       pickle(tensor() + "}" + word("_metadata") + ordered_dict() + "sb"),
       {"state to something that is no dictionary"}},
      {"a deep stack", pickle(std::string(300'000, 'N')), {"stacks more than"}},
      {"many marks", pickle(std::string(300'000, '(')), {"stacks more than"}},
  };
  CHECK(cases.size() >= 60);
  for (const Case& c : cases) check_refused(c.what, pth(c.pickle).file(), c.words);

  const std::string huge((std::size_t{32} << 20) + 1, 'N');
  CHECK_THROWS_WITH_AS(rwkv::detail::StateDictPickle(bytes(huge), "f"),
                       "f: 33554433 bytes of pickle exceed the limit of 33554432", rwkv::Error);
}

TEST_CASE("pth: every opcode on every short stack is read or refused, never worse") {
  const std::vector<std::string> values{"(",
                                        "N",
                                        "\x89",
                                        number(1),
                                        word("storage"),
                                        ")",
                                        "}",
                                        ordered_dict(),
                                        global("torch", "FloatStorage"),
                                        global("torch._utils", "_rebuild_tensor_v2"),
                                        storage(),
                                        tensor()};
  std::vector<std::string> stacks{""};
  for (std::size_t begin = 0, depth = 0; depth < 3; ++depth) {
    const std::size_t end = stacks.size();
    for (; begin < end; ++begin) {
      for (const std::string& value : values) stacks.push_back(stacks[begin] + value);
    }
  }
  std::size_t read = 0;
  for (const std::string& stack : stacks) {
    for (int opcode = 0; opcode < 256; ++opcode) {
      const std::string program = pickle(stack + static_cast<char>(opcode) + std::string(4, '\0'));
      try {
        rwkv::detail::StateDictPickle(bytes(program), "pickle").read();
        ++read;
      } catch (const rwkv::Error&) {
      }
    }
  }
  // Only LONG_BINPUT, which takes the four bytes behind it, leaves a dictionary alone on the stack, and there are two
  // kinds.
  CHECK(read == 2);
}

TEST_CASE("pth: a file cut anywhere is refused") {
  const std::string file = build::good_pth();
  CHECK(rwkv::open_tensors(bytes(file), "whole").tensors().size() == 1);
  for (std::size_t size = 0; size < file.size(); ++size) check_refused("cut", file.substr(0, size), {});
  for (std::size_t size = 1; size < good.size(); ++size) {
    check_refused("cut pickle", pth(good.substr(0, size)).file(), {});
  }
}

TEST_CASE("pth: any single changed byte is refused or changes nothing") {
  const std::string file = build::good_pth();
  std::size_t refused = 0;
  std::size_t read = 0;
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (unsigned value = 0; value < 256; value += 3) {
      std::string changed = file;
      changed[at] = static_cast<char>(static_cast<unsigned char>(changed[at]) + value);
      try {
        const auto opened = rwkv::open_tensors(bytes(changed), "changed");
        ++read;
        REQUIRE(opened.tensors().size() == 1);
        CHECK(opened.tensors()[0].name == "w");
        CHECK(opened.tensors()[0].shape == std::vector<Index>{2, 3});
        CHECK(build::text(opened.tensors()[0].bytes) == build::floats());
      } catch (const rwkv::Error&) {
        ++refused;
      }
    }
  }
  CHECK(read > file.size());
  CHECK(refused > read);
}

TEST_CASE("pth: the forms that PyTorch writes are read") {
  std::string file;  // What was read last: the tensors are views of it.
  const auto read = [&](std::string content) {
    file = std::move(content);
    return rwkv::open_tensors(bytes(file), "f");
  };
  const auto check_good = [&](std::string content) {
    const auto opened = read(std::move(content));
    REQUIRE(opened.tensors().size() == 1);
    const auto& w = opened.tensors()[0];
    CHECK(w.name == "w");
    CHECK(w.dtype == DType::f32);
    CHECK(w.shape == std::vector<Index>{2, 3});
    CHECK(build::text(w.bytes) == build::floats());
    CHECK(opened.metadata().empty());
  };
  const std::string pair = word("w") + tensor();
  const std::string metadata =
      "}" + word("_metadata") + ordered_dict() + "(" + word("") + "}" + word("version") + number(1) + "sus";

  SUBCASE("a plain dictionary") { check_good(build::good_pth()); }
  SUBCASE("single items") { check_good(pth(pickle("}" + pair + "s")).file()); }
  SUBCASE("an ordered dictionary with module versions") {
    check_good(pth(pickle(ordered_dict() + "(" + pair + "u" + metadata + "b")).file());
  }
  SUBCASE("a parameter") {
    const std::string parameter =
        global("torch._utils", "_rebuild_parameter") + "(" + tensor() + "\x88" + ordered_dict() + "tR";
    check_good(pth(dict(word("w") + parameter)).file());
  }
  SUBCASE("without zip64 records") {
    Zip zip = pth(good);
    zip.zip64 = false;
    check_good(zip.file());
  }
  SUBCASE("zip64 end with a saturated short end") {
    check_good(build::patched(pth(good).file(), -14, u16(0xffff) + u16(0xffff) + u32(0xffffffff) + u32(0xffffffff)));
  }
  SUBCASE("zip64 fields in the records") {
    Zip zip = pth(good);
    Entry& e = zip.entry("data/0");
    e.size = e.packed = 0xffffffff;
    e.extra = u16(7) + u16(1) + "x" + u16(1) + u16(16) + u64(24) + u64(24);
    e.local_size = e.local_packed = 0xffffffff;
    e.local_extra = u16(1) + u16(16) + u64(24) + u64(24);
    e.descriptor = u32(0x08074b50) + u32(build::crc32(e.data)) + u64(24) + u64(24);
    check_good(zip.file());
  }
  SUBCASE("an offset in zip64, as behind the first 4 GB") {
    Zip zip = pth(good);
    const std::size_t offset = Zip{{zip.entries[0]}, false}.file().size() - 22 - 46 - std::string("m/data.pkl").size();
    Entry& e = zip.entries[1];
    e.offset = 0xffffffff;
    e.extra = u16(1) + u16(8) + u64(offset);
    e.local_extra = e.extra;
    e.descriptor = u32(0x08074b50) + u32(build::crc32(e.data)) + u64(e.data.size()) + u64(e.data.size());
    check_good(zip.file());
  }
  SUBCASE("entries that are not streamed, and padding") {
    Zip zip = pth(good);
    for (Entry& e : zip.entries) {
      e.flags = 0;
      e.local_extra = "FB" + u16(5) + "ZZZZZ";
    }
    check_good(zip.file());
  }
  SUBCASE("entries that nothing refers to") {
    Zip zip = pth(good);
    zip.entries.push_back(Entry{"m/.data/serialization_id", "0123"});
    zip.entries.push_back(Entry{"m/data/1", "unused"});
    check_good(zip.file());
  }
  SUBCASE("entries in another order, also than in the directory") {
    Zip zip = pth(good);
    zip.entries = {zip.entries[2], zip.entries[0], zip.entries[3], zip.entries[1]};
    check_good(zip.file());
    zip.reversed_directory = true;
    check_good(zip.file());
  }
  SUBCASE("more entries than 16 bits count") {
    Zip zip = pth("");
    std::string items;
    for (int i = 0; i < 70'000; ++i) {
      const std::string key = "t" + std::to_string(i);
      zip.entries.push_back(Entry{"m/data/" + key, "abcd"});
      items += word(key) + tensor_of(storage("FloatStorage", key, 1), 0, tuple({1}), tuple({1}));
    }
    zip.entries[0].data = dict(items);
    const auto opened = read(zip.file());
    CHECK(opened.tensors().size() == 70'000);
    CHECK(opened.tensors().back().name == "t69999");
    CHECK(opened.find("t69999") == &opened.tensors().back());
  }
  SUBCASE("views of one storage") {
    const auto opened = read(pth(dict(word("a") + tensor(0, {2}, {1}) + word("b") + tensor(2, {4, 1}, {1, 77}) +
                                      word("c") + tensor(5, {}, {}) + word("d") + tensor(6, {0, 3}, {9, 9})))
                                 .file());
    REQUIRE(opened.tensors().size() == 4);
    CHECK(build::text(opened.find("a")->bytes) == build::floats().substr(0, 8));
    CHECK(build::text(opened.find("b")->bytes) == build::floats().substr(8));
    CHECK(opened.find("b")->shape == std::vector<Index>{4, 1});
    CHECK(build::text(opened.find("c")->bytes) == build::floats().substr(20));
    CHECK(opened.find("c")->shape.empty());
    CHECK(opened.find("d")->bytes.empty());
  }
  SUBCASE("remembered values") {
    const std::string zero(1, '\0');
    const std::string program = "}q" + zero + word("a") + global("torch._utils", "_rebuild_tensor_v2") + "q\x01(" +
                                storage() + "q\x02" + number(0) + tuple({6}) + "q\x03" + tuple({1}) + "q\x04\x89" +
                                ordered_dict() + "tRs" + word("b") + "h\x01(h\x02" + number(0) + "h\x03h\x04\x89" +
                                ordered_dict() + "tRr" + u32(5) + "s" + word("c") + "j" + u32(5) + "s";
    const auto opened = read(pth(pickle(program)).file());
    REQUIRE(opened.tensors().size() == 3);
    for (const auto& tensor : opened.tensors()) CHECK(build::text(tensor.bytes) == build::floats());
  }
  SUBCASE("long integers") {
    const auto with = [&](const std::string& offset, const std::string& size, const std::string& stride) {
      return read(pth(dict(word("w") + global("torch._utils", "_rebuild_tensor_v2") + "(" + storage() + offset + size +
                           "\x85" + stride + "\x85\x89" + ordered_dict() + "tR"))
                      .file());
    };
    const std::string zero = "\x8a" + std::string(1, '\0');
    const auto opened = with(zero, "\x8a\x02\x06" + std::string(1, '\0'), "\x8a\x01\x01");
    CHECK(opened.tensors()[0].shape == std::vector<Index>{6});
    CHECK_THROWS_WITH_AS(with("\x8a\x01\xff", number(6), number(1)), doctest::Contains("has -1 as an offset"),
                         rwkv::Error);
    CHECK_THROWS_WITH_AS(with(zero, "\x8a\x08" + u64(std::uint64_t{1} << 63), number(1)),
                         doctest::Contains("has -9223372036854775808 as a size"), rwkv::Error);
  }
  SUBCASE("every storage type") {
    const std::vector<std::pair<std::string, DType>> types{
        {"DoubleStorage", DType::f64},    {"FloatStorage", DType::f32}, {"HalfStorage", DType::f16},
        {"BFloat16Storage", DType::bf16}, {"LongStorage", DType::i64},  {"IntStorage", DType::i32},
        {"ShortStorage", DType::i16},     {"CharStorage", DType::i8},   {"ByteStorage", DType::u8},
        {"BoolStorage", DType::boolean}};
    for (const auto& [name, dtype] : types) {
      const auto count = static_cast<std::int64_t>(24 / rwkv::size_of(dtype));
      const auto opened =
          read(pth(dict(word("w") + tensor_of(storage(name, "0", count), 0, tuple({count}), tuple({1})))).file());
      CHECK(opened.tensors()[0].dtype == dtype);
    }
  }
  SUBCASE("checksums left out on request") {
    Zip zip = pth(good);
    for (Entry& e : zip.entries) e.crc = 7;
    CHECK_THROWS_AS(read(zip.file()), rwkv::Error);
    CHECK(rwkv::open_tensors(bytes(zip.file()), "f", {.verify_checksums = false}).tensors().size() == 1);
  }
}

TEST_CASE("the checksum of zip files for every length and start") {
  std::string data;
  for (int i = 0; i < 100; ++i) data += static_cast<char>(i * 37 + 11);
  for (std::size_t begin = 0; begin < 9; ++begin) {
    for (std::size_t size = 0; size < 40; ++size) {
      const std::string part = data.substr(begin, size);
      CHECK(rwkv::detail::crc32(bytes(data).subspan(begin, size)) == build::crc32(part));
    }
  }
  CHECK(rwkv::detail::crc32(bytes("123456789")) == 0xcbf43926u);
}
