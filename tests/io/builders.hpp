#pragma once
/// Builds small .safetensors and .pth files in memory, well-formed unless told otherwise.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace build {

inline std::string little(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xffu);
  return text;
}
inline std::string u16(std::uint64_t value) { return little(value, 2); }
inline std::string u32(std::uint64_t value) { return little(value, 4); }
inline std::string u64(std::uint64_t value) { return little(value, 8); }

inline std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string text(std::span<const std::byte> b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

/// `file` with the bytes from `at` on replaced; a negative `at` counts from the end.
inline std::string patched(std::string file, std::ptrdiff_t at, std::string_view with) {
  const std::size_t begin = at < 0 ? file.size() - static_cast<std::size_t>(-at) : static_cast<std::size_t>(at);
  return file.replace(begin, with.size(), with);
}

inline std::string safetensors(std::string_view json, std::string_view data) {
  return u64(json.size()) + std::string(json) + std::string(data);
}

// ---- zip -----------------------------------------------------------------------------------------------------------

/// The CRC-32 bit by bit: slow, and independent of the tables under test.
inline std::uint32_t crc32(std::string_view data) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

/// One entry; what is not set takes the right value. Streamed entries (flag 8) get a data descriptor.
struct Entry {
  std::string name;
  std::string data;
  std::uint16_t flags = 0x0808;
  std::uint16_t method = 0;
  std::optional<std::uint32_t> crc{};
  std::optional<std::uint32_t> size{};
  std::optional<std::uint32_t> packed{};
  std::optional<std::uint32_t> offset{};
  std::string extra{};
  std::string comment{};
  std::uint16_t disk = 0;
  std::uint32_t attributes = 0;
  std::optional<std::string> local_name{};
  std::optional<std::uint16_t> local_flags{};
  std::optional<std::uint16_t> local_method{};
  std::optional<std::uint32_t> local_crc{};
  std::optional<std::uint32_t> local_size{};
  std::optional<std::uint32_t> local_packed{};
  std::string local_extra{};
  std::optional<std::string> descriptor{};
  std::uint32_t local_mark = 0x04034b50;
  std::uint32_t mark = 0x02014b50;
};

struct Zip {
  std::vector<Entry> entries;
  bool zip64 = true;
  std::string prefix{};
  std::string before_directory{};
  std::string in_directory{};
  bool reversed_directory = false;

  Entry& entry(std::string_view name) {
    for (Entry& e : entries) {
      if (e.name.ends_with(name)) return e;
    }
    throw std::logic_error("no such entry");
  }

  std::string file() const {
    std::string out = prefix;
    std::vector<std::string> records;
    for (const Entry& e : entries) {
      const bool streamed = (e.flags & 8u) != 0;
      const std::uint32_t crc = e.crc ? *e.crc : crc32(e.data);
      const auto size = static_cast<std::uint32_t>(e.data.size());
      const std::string& local_name = e.local_name ? *e.local_name : e.name;
      records.push_back(u32(e.mark) + u16(0) + u16(0) + u16(e.flags) + u16(e.method) + u32(0) + u32(crc) +
                        u32(e.packed.value_or(size)) + u32(e.size.value_or(size)) + u16(e.name.size()) +
                        u16(e.extra.size()) + u16(e.comment.size()) + u16(e.disk) + u16(0) + u32(e.attributes) +
                        u32(e.offset.value_or(static_cast<std::uint32_t>(out.size()))) + e.name + e.extra + e.comment);
      out += u32(e.local_mark) + u16(0) + u16(e.local_flags.value_or(e.flags)) +
             u16(e.local_method.value_or(e.method)) + u32(0) + u32(e.local_crc.value_or(streamed ? 0 : crc)) +
             u32(e.local_packed.value_or(streamed ? 0 : size)) + u32(e.local_size.value_or(streamed ? 0 : size)) +
             u16(local_name.size()) + u16(e.local_extra.size()) + local_name + e.local_extra + e.data;
      if (streamed) out += e.descriptor.value_or(u32(0x08074b50) + u32(crc) + u32(size) + u32(size));
    }
    out += before_directory;
    const std::size_t begin = out.size();
    if (reversed_directory) std::reverse(records.begin(), records.end());
    std::string directory;
    for (const std::string& record : records) directory += record;
    directory += in_directory;
    out += directory;
    const std::size_t count = entries.size();
    if (zip64) {
      const std::size_t end64 = out.size();
      out += u32(0x06064b50) + u64(44) + u16(0) + u16(0x2d) + u32(0) + u32(0) + u64(count) + u64(count) +
             u64(directory.size()) + u64(begin);
      out += u32(0x07064b50) + u32(0) + u64(end64) + u32(1);
    }
    const std::string short_count = u16(std::min<std::size_t>(count, 0xffff));
    return out + u32(0x06054b50) + u16(0) + u16(0) + short_count + short_count + u32(directory.size()) + u32(begin) +
           u16(0);
  }
};

// ---- pickle --------------------------------------------------------------------------------------------------------

inline std::string word(std::string_view w) { return "X" + u32(w.size()) + std::string(w); }
inline std::string number(std::int64_t n) {
  if (n >= 0 && n < 256) return "K" + little(static_cast<std::uint64_t>(n), 1);
  if (n >= 0 && n < 65536) return "M" + u16(static_cast<std::uint64_t>(n));
  if (n == static_cast<std::int32_t>(n)) return "J" + u32(static_cast<std::uint32_t>(n));
  return "\x8a\x08" + u64(static_cast<std::uint64_t>(n));
}
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string tuple(const std::vector<std::int64_t>& numbers) {
  std::string out = "(";
  for (const std::int64_t n : numbers) out += number(n);
  return out + "t";
}
inline std::string ordered_dict() { return global("collections", "OrderedDict") + ")R"; }
inline std::string storage(std::string_view type = "FloatStorage", std::string_view key = "0", std::int64_t size = 6) {
  return "(" + word("storage") + global("torch", type) + word(key) + word("cpu") + number(size) + "tQ";
}
inline std::string tensor_of(std::string_view storage, std::int64_t offset, const std::string& shape,
                             const std::string& strides, std::string_view hooks = "") {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + std::string(storage) + number(offset) + shape + strides +
         "\x89" + (hooks.empty() ? ordered_dict() : std::string(hooks)) + "tR";
}
inline std::string tensor(std::int64_t offset = 0, const std::vector<std::int64_t>& shape = {2, 3},
                          const std::vector<std::int64_t>& strides = {3, 1}) {
  return tensor_of(storage(), offset, tuple(shape), tuple(strides));
}
/// A pickle of protocol 2 with that program between its frame opcodes.
inline std::string pickle(const std::string& program) { return "\x80\x02" + program + "."; }
/// The pickle of a dictionary; `items` are keys and values.
inline std::string dict(const std::string& items) { return pickle("}(" + items + "u"); }

/// Six floats 0 to 5.
inline std::string floats() {
  std::string out;
  for (int i = 0; i < 6; ++i) {
    const auto value = static_cast<float>(i);
    out.append(reinterpret_cast<const char*>(&value), 4);
  }
  return out;
}

inline Zip pth(const std::string& pickle) {
  return Zip{{Entry{"m/data.pkl", pickle}, Entry{"m/byteorder", "little"}, Entry{"m/data/0", floats()},
              Entry{"m/version", "3\n"}}};
}

inline std::string good_pth() { return pth(dict(word("w") + tensor())).file(); }

}  // namespace build
