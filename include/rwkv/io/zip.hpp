#pragma once
/// A reader of zip archives whose entries are stored, not compressed: it hands out views of the archive.
///
/// Every byte of the archive has exactly one meaning: the entries lie back to back from byte 0 to the central
/// directory, both records of an entry agree, and nothing follows the end record. So no second reader can see other
/// entries.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/crc32.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A file inside the archive. Name and data are views of the archive.
struct ZipEntry {
  std::string_view name;
  std::span<const std::byte> data;
};

/// Reads the entries in the order of the central directory; every failed check is an Error that starts with the file.
class ZipReader {
 public:
  ZipReader(std::span<const std::byte> bytes, std::string_view file, bool verify_checksums)
      : bytes_(bytes), file_(file), verify_checksums_(verify_checksums) {}

  std::vector<ZipEntry> read() {
    read_directory(find_directory());
    locate_data();
    return std::move(entries_);
  }

  /// The names in the directory, or none when it cannot be followed. They are not checked: they only tell what the
  /// archive is.
  std::vector<std::string_view> names() {
    const Directory directory = find_directory();
    std::vector<std::string_view> names;
    ByteReader reader(slice(bytes_, directory.begin, Checked(directory.end) - directory.begin, file_), file_);
    while (names.size() < directory.count) {
      if (reader.remaining() < central_size || reader.u32() != central_mark) return {};
      reader.take(24);  // All up to the sizes of what follows the record.
      const std::uint16_t name_size = reader.u16();
      const std::uint32_t rest = std::uint32_t{reader.u16()} + reader.u16();
      reader.take(12);
      if (!(Checked(name_size) + rest).at_most(reader.remaining())) return {};
      names.push_back(reader.text(name_size));
      reader.take(rest);
    }
    return names;
  }

 private:
  static constexpr std::uint32_t local_mark = 0x04034b50;
  static constexpr std::uint32_t central_mark = 0x02014b50;
  static constexpr std::uint32_t descriptor_mark = 0x08074b50;
  static constexpr std::uint32_t end_mark = 0x06054b50;
  static constexpr std::uint32_t end64_mark = 0x06064b50;
  static constexpr std::uint32_t locator64_mark = 0x07064b50;
  static constexpr std::size_t local_size = 30;
  static constexpr std::size_t central_size = 46;
  static constexpr std::size_t end_size = 22;
  static constexpr std::size_t end64_size = 56;
  static constexpr std::size_t locator64_size = 20;
  static constexpr std::uint16_t streamed_flag = 1u << 3;
  static constexpr std::uint16_t utf8_flag = 1u << 11;
  static constexpr std::uint32_t folder_attribute = 1u << 4;
  static constexpr std::uint16_t in_zip64_16 = 0xffff;
  static constexpr std::uint32_t in_zip64_32 = 0xffffffff;
  /// Larger entries are taken as they are: reading them twice would cost more than the check is worth.
  static constexpr std::uint64_t largest_verified = std::uint64_t{1} << 30;

  struct Directory {
    std::uint64_t count;
    std::uint64_t begin;
    std::uint64_t end;
  };

  struct Record {
    std::uint16_t flags;
    std::uint32_t crc;
    std::uint64_t size;
    std::uint64_t offset;
  };

  /// Finds the central directory from the end of the file, which holds [end64, locator64,] end.
  Directory find_directory() {
    const Checked end_at = Checked(bytes_.size()) - end_size;
    expects(end_at.valid(), file_, ": ", bytes_.size(), " bytes are too few for a zip archive");
    ByteReader end(slice(bytes_, end_at, end_size, file_), file_);
    if (end.u32() != end_mark) {
      fail(file_, has_comment()
                      ? ": the zip archive ends with a comment, which no PyTorch file does; pack it without one"
                      : ": the zip archive does not end with its end record (the file is cut short, or something was "
                        "appended)");
    }
    const std::uint16_t disk = end.u16();
    const std::uint16_t directory_disk = end.u16();
    const std::uint16_t count_here = end.u16();
    const std::uint16_t count = end.u16();
    const std::uint32_t size = end.u32();
    const std::uint32_t begin = end.u32();
    expects(disk == 0 && directory_disk == 0 && count_here == count, file_, ": the zip archive has several parts");
    expects(end.u16() == 0, file_, ": the zip archive carries a comment, which no PyTorch file does");

    directory_end_ = end_at.to<std::uint64_t>();
    const Checked locator_at = end_at - locator64_size;
    if (locator_at.valid() && ByteReader(slice(bytes_, locator_at, 4, file_), file_).u32() == locator64_mark) {
      const Directory directory = read_end64(locator_at);
      const bool agree = (count == in_zip64_16 || directory.count == count) &&
                         (begin == in_zip64_32 || directory.begin == begin) &&
                         (size == in_zip64_32 || directory.end - directory.begin == size);
      expects(agree, file_, ": the two end records of the zip archive disagree");
      return directory;
    }
    return checked_directory(count, begin, size);
  }

  /// Whether an end record stands further up whose comment is all that follows it.
  bool has_comment() const {
    const std::string_view all = as_text(bytes_);
    const std::size_t first = all.size() - std::min(all.size(), end_size + 0xffff);
    for (std::size_t at = all.find("PK\x05\x06", first); at < all.size(); at = all.find("PK\x05\x06", at + 1)) {
      const std::size_t behind = all.size() - at;
      if (behind < end_size) return false;
      ByteReader size(bytes_.subspan(at + end_size - 2, 2), file_);
      if (size.u16() == behind - end_size) return true;
    }
    return false;
  }

  Directory read_end64(Checked locator_at) {
    ByteReader locator(slice(bytes_, locator_at, locator64_size, file_), file_);
    locator.take(4);
    const std::uint32_t disk = locator.u32();
    const std::uint64_t end64_at = locator.u64();
    const std::uint32_t disks = locator.u32();
    expects((locator_at - end64_size).equals(end64_at), file_, ": the zip64 end record is not where it should be");
    ByteReader end(slice(bytes_, end64_at, end64_size, file_), file_);
    expects(end.u32() == end64_mark && end.u64() == end64_size - 12, file_, ": the zip64 end record is malformed");
    end.take(4);  // The versions of the zip specification.
    const std::uint32_t this_disk = end.u32();
    const std::uint32_t directory_disk = end.u32();
    const std::uint64_t count_here = end.u64();
    const std::uint64_t count = end.u64();
    expects(disk == 0 && disks <= 1 && this_disk == 0 && directory_disk == 0 && count_here == count, file_,
            ": the zip archive has several parts");
    const std::uint64_t size = end.u64();
    const std::uint64_t begin = end.u64();
    directory_end_ = end64_at;
    return checked_directory(count, begin, size);
  }

  Directory checked_directory(std::uint64_t count, std::uint64_t begin, std::uint64_t size) const {
    expects((Checked(begin) + size).equals(directory_end_), file_, ": the zip directory of ", size, " bytes at ", begin,
            " does not end at the end record (", directory_end_,
            "); the file is cut short, or something was put before it");
    expects((Checked(count) * central_size).at_most(size), file_, ": ", count, " zip entries do not fit into ", size,
            " bytes of directory");
    return {count, begin, directory_end_};
  }

  void read_directory(const Directory& directory) {
    directory_begin_ = directory.begin;
    const std::string where = join(file_, ": the zip directory");
    ByteReader reader(slice(bytes_, directory.begin, Checked(directory.end) - directory.begin, file_), where);
    entries_.reserve(directory.count);
    records_.reserve(directory.count);
    for (std::uint64_t i = 0; i < directory.count; ++i) read_central(reader);
    expects(reader.remaining() == 0, file_, ": ", reader.remaining(), " bytes of the zip directory belong to no entry");

    std::vector<std::string_view> names;
    for (const ZipEntry& entry : entries_) names.push_back(entry.name);
    std::sort(names.begin(), names.end());
    const auto same = std::adjacent_find(names.begin(), names.end());
    if (same != names.end()) fail(file_, ": two zip entries are named ", in_quotes(*same));
  }

  void read_central(ByteReader& reader) {
    expects(reader.u32() == central_mark, file_, ": the zip directory is malformed at entry ", entries_.size());
    reader.take(4);  // The versions of the zip specification.
    Record record{};
    record.flags = reader.u16();
    const std::uint16_t method = reader.u16();
    reader.take(4);  // Time and date.
    record.crc = reader.u32();
    const std::uint32_t packed = reader.u32();
    const std::uint32_t size = reader.u32();
    const std::uint16_t name_size = reader.u16();
    const std::uint16_t extra_size = reader.u16();
    const std::uint16_t comment_size = reader.u16();
    const std::uint16_t disk = reader.u16();
    reader.take(2);  // Attributes of the content.
    const std::uint32_t attributes = reader.u32();
    const std::uint32_t offset = reader.u32();
    const std::string_view name = reader.text(name_size);
    const std::span<const std::byte> extra = reader.take(extra_size);

    check_name(name);
    require(name, (record.flags & 1u) == 0, "is encrypted");
    require(name, (record.flags & ~(streamed_flag | utf8_flag)) == 0, "has flags that a stored entry cannot have");
    require(name, method == 0, "is compressed; save it with torch.save, which stores entries as they are");
    // Some readers, PyTorch among them, go by this bit and take the entry to have no content.
    require(name, (attributes & folder_attribute) == 0, "is a folder by its attributes");
    require(name, comment_size == 0 && disk == 0, "has a comment or lies on another disk");

    // The zip64 field holds, in this order, the numbers that are too large for the record, and only those.
    const bool has_size = size == in_zip64_32;
    const bool has_packed = packed == in_zip64_32;
    const bool has_offset = offset == in_zip64_32;
    const std::span<const std::byte> large = find_zip64(name, extra);
    const std::size_t wanted = 8 * (std::size_t{has_size} + std::size_t{has_packed} + std::size_t{has_offset});
    require(name, large.size() == wanted, "has a malformed zip64 field");
    ByteReader numbers(large, file_);
    record.size = has_size ? numbers.u64() : size;
    const std::uint64_t packed_size = has_packed ? numbers.u64() : packed;
    record.offset = has_offset ? numbers.u64() : offset;
    require(name, packed_size == record.size, "is stored, but its two sizes differ");
    require(name, record.offset < directory_begin_, "lies behind the start of the zip directory");
    entries_.push_back({name, {}});
    records_.push_back(record);
  }

  /// The content of the zip64 field; empty without one.
  std::span<const std::byte> find_zip64(std::string_view name, std::span<const std::byte> extra) const {
    std::span<const std::byte> found;
    bool seen = false;
    for (ByteReader fields(extra, file_); fields.remaining() > 0;) {
      require(name, fields.remaining() >= 4, "has a malformed extra field");
      const std::uint16_t id = fields.u16();
      const std::uint16_t size = fields.u16();
      require(name, size <= fields.remaining(), "has a malformed extra field");
      const auto content = fields.take(size);
      if (id != 1) continue;
      require(name, !seen, "has two zip64 fields");
      seen = true;
      found = content;
    }
    return found;
  }

  void check_name(std::string_view name) const {
    if (!is_clean_name(name)) fail(file_, ": the zip entry name ", in_quotes(name), not_clean);
    require(name, name.find('\\') == std::string_view::npos, "has a backslash in its name");
    for (std::string_view rest = name;;) {
      const std::size_t slash = rest.find('/');
      const std::string_view part = rest.substr(0, slash);
      require(name, !part.empty() && part != "." && part != "..", "is a folder or has an unsafe path");
      if (slash == std::string_view::npos) return;
      rest.remove_prefix(slash + 1);
    }
  }

  /// Walks the local records from byte 0 on. An entry ends where the next one starts, which decides whether and in
  /// which width a data descriptor follows the data.
  void locate_data() {
    std::vector<std::size_t> order(entries_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return records_[a].offset < records_[b].offset; });
    // Where torch.save was told not to compute checksums, all of them are 0.
    if (std::all_of(records_.begin(), records_.end(), [](const Record& record) { return record.crc == 0; })) {
      verify_checksums_ = false;
    }
    std::uint64_t filled = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const Record& record = records_[order[i]];
      const std::string_view name = entries_[order[i]].name;
      const std::uint64_t end = i + 1 < order.size() ? records_[order[i + 1]].offset : directory_begin_;
      require(name, record.offset == filled, "does not start where the entry before it ends");
      entries_[order[i]].data =
          read_local(record, name, slice(bytes_, record.offset, Checked(end) - record.offset, file_));
      filled = end;
    }
    expects(filled == directory_begin_, file_, ": ", directory_begin_ - filled, " bytes belong to no zip entry");
  }

  std::span<const std::byte> read_local(const Record& record, std::string_view name,
                                        std::span<const std::byte> all) const {
    require(name, all.size() >= local_size, "overlaps another entry");
    ByteReader local(all, file_);
    require(name, local.u32() == local_mark, "has no local record where the directory says");
    local.take(2);  // The version of the zip specification.
    const std::uint16_t flags = local.u16();
    const std::uint16_t method = local.u16();
    local.take(4);  // Time and date.
    const std::uint32_t crc = local.u32();
    const std::uint32_t packed = local.u32();
    const std::uint32_t size = local.u32();
    const std::uint16_t name_size = local.u16();
    const std::uint16_t extra_size = local.u16();
    require(name, (Checked(record.size) + name_size + extra_size).at_most(local.remaining()), "overlaps another entry");
    require(name, local.text(name_size) == name, "has another name in its local record");
    require(name, flags == record.flags && method == 0, "has other flags in its local record");
    ByteReader large(find_zip64(name, local.take(extra_size)), file_);
    const std::span<const std::byte> data = local.take(record.size);

    // A streamed entry is written before its checksum and sizes are known: they are 0 here and follow behind the data.
    const bool streamed = (record.flags & streamed_flag) != 0;
    const auto agrees = [&](std::uint32_t here) {
      if (here != in_zip64_32) return here == record.size || (streamed && here == 0);
      if (large.remaining() < 8) return false;
      const std::uint64_t number = large.u64();
      return number == record.size || (streamed && number == 0);
    };
    require(name, agrees(size) && agrees(packed), "has another size in its local record");
    require(name, crc == record.crc || (streamed && crc == 0), "has another checksum in its local record");
    if (streamed) {
      read_descriptor(record, name, local);
    } else {
      require(name, local.remaining() == 0, "is followed by bytes that belong to no entry");
    }
    const bool verify = verify_checksums_ && data.size() <= largest_verified;
    require(name, !verify || crc32(data) == record.crc, "is damaged: its CRC-32 checksum is wrong");
    return data;
  }

  void read_descriptor(const Record& record, std::string_view name, ByteReader& reader) const {
    const bool wide = reader.remaining() == 24;
    require(name, wide || reader.remaining() == 16, "has no data descriptor of 16 or 24 bytes");
    bool agrees = reader.u32() == descriptor_mark && reader.u32() == record.crc;
    for (int i = 0; i < 2; ++i) agrees &= (wide ? reader.u64() : reader.u32()) == record.size;
    require(name, agrees, "has another checksum or size in its data descriptor");
  }

  void require(std::string_view name, bool holds, std::string_view otherwise) const {
    if (!holds) fail(file_, ": the zip entry ", in_quotes(name), " ", otherwise);
  }

  std::span<const std::byte> bytes_;
  std::string_view file_;
  bool verify_checksums_;
  std::uint64_t directory_begin_ = 0;
  std::uint64_t directory_end_ = 0;
  std::vector<ZipEntry> entries_;
  std::vector<Record> records_;
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
