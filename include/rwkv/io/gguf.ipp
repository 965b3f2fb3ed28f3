#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/io/gguf.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr std::uint32_t gguf_version = 3;
inline constexpr std::uint32_t gguf_rank = 4;  // the most dimensions of a tensor
inline constexpr std::uint32_t max_gguf_alignment = std::uint32_t{1} << 20;
inline constexpr std::size_t max_gguf_keys = 100'000;
inline constexpr int max_gguf_depth = 4;  // of arrays in arrays

/// The types of metadata, by their numbers in the format.
enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// Bytes of a value; 0 for texts, arrays and unknown types.
constexpr std::size_t size_of(GgufType type) {
  constexpr std::array<std::uint8_t, 13> sizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto number = static_cast<std::size_t>(type);
  return number < sizes.size() ? sizes[number] : 0;
}

/// The number types of tensors, by their numbers in ggml.
inline constexpr std::array<std::pair<std::uint32_t, DType>, 16> ggml_types{{{0, DType::f32},
                                                                             {1, DType::f16},
                                                                             {2, DType::q4_0},
                                                                             {3, DType::q4_1},
                                                                             {6, DType::q5_0},
                                                                             {7, DType::q5_1},
                                                                             {8, DType::q8_0},
                                                                             {12, DType::q4_k},
                                                                             {13, DType::q5_k},
                                                                             {14, DType::q6_k},
                                                                             {24, DType::i8},
                                                                             {25, DType::i16},
                                                                             {26, DType::i32},
                                                                             {27, DType::i64},
                                                                             {28, DType::f64},
                                                                             {30, DType::bf16}}};

/// Those that are not read.
inline constexpr std::array<std::pair<std::uint32_t, std::string_view>, 16> other_ggml_types{{{9, "Q8_1"},
                                                                                              {10, "Q2_K"},
                                                                                              {11, "Q3_K"},
                                                                                              {15, "Q8_K"},
                                                                                              {16, "IQ2_XXS"},
                                                                                              {17, "IQ2_XS"},
                                                                                              {18, "IQ3_XXS"},
                                                                                              {19, "IQ1_S"},
                                                                                              {20, "IQ4_NL"},
                                                                                              {21, "IQ3_S"},
                                                                                              {22, "IQ2_S"},
                                                                                              {23, "IQ4_XS"},
                                                                                              {29, "IQ1_M"},
                                                                                              {34, "TQ1_0"},
                                                                                              {35, "TQ2_0"},
                                                                                              {39, "MXFP4"}}};

/// Reads a file from front to back. Every loop takes bytes from the file, so that no count in it costs more than its bytes.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string_view file)
      : bytes_(bytes), file_(file), where_(join(file, ": the GGUF header")), reader_(bytes, where_) {}

  TensorTable read() {
    reader_.take(4);  // "GGUF"
    const std::uint32_t version = reader_.u32();
    constexpr std::uint32_t swapped = gguf_version << 24;
    expects(version != swapped, file_, ": this is a big-endian GGUF file; only little-endian ones are read");
    expects(version == gguf_version, file_, ": this is a GGUF file of version ", version, "; only version ",
            gguf_version, " is read");
    const std::uint64_t tensors = reader_.u64(), keys = reader_.u64();
    expects(tensors <= max_tensors, file_, ": the file holds more than ", max_tensors, " tensors");
    expects(keys <= max_gguf_keys, file_, ": the file holds more than ", max_gguf_keys, " metadata keys");
    read_metadata(keys);
    for (std::uint64_t i = 0; i < tensors; ++i) read_tensor();
    check_names();
    place_tensors();
    return std::move(table_);
  }

 private:
  struct Entry {
    TensorView tensor;
    std::string unreadable;             // why, if it is
    std::uint64_t begin = 0;            // in the data
    std::optional<std::uint64_t> size;  // unknown for a number type that is not read
  };

  std::string_view text() { return reader_.text(reader_.u64()); }

  void read_metadata(std::uint64_t count) {
    std::vector<std::string_view> keys;
    for (std::uint64_t i = 0; i < count; ++i) {
      key_ = text();
      keys.push_back(key_);
      const auto type = static_cast<GgufType>(reader_.u32());
      if (key_ == "general.alignment") {
        expects(type == GgufType::u32, file_, ": the metadata 'general.alignment' is no 32-bit number");
        alignment_ = reader_.u32();
        expects(std::has_single_bit(alignment_) && alignment_ <= max_gguf_alignment, file_, ": the alignment ",
                alignment_, " is no power of two up to ", max_gguf_alignment);
      } else if (type == GgufType::array) {
        skip_array(1);
      } else {
        keep(value(type));
      }
    }
    check_names_differ(std::move(keys), file_, "metadata key");
  }

  /// What is odd or too much is left out, as no tensor depends on it.
  void keep(std::string value) {
    const bool is_odd = !is_clean_name(key_) || !is_utf8(value) || value.find('\0') != std::string::npos;
    if (!is_odd && table_.metadata.size() < max_metadata) table_.metadata.emplace(key_, std::move(value));
  }

  std::string value(GgufType type) {
    switch (type) {
      case GgufType::u8: return join(reader_.u8());
      case GgufType::i8: return join(static_cast<std::int8_t>(reader_.u8()));
      case GgufType::u16: return join(reader_.u16());
      case GgufType::i16: return join(static_cast<std::int16_t>(reader_.u16()));
      case GgufType::u32: return join(reader_.u32());
      case GgufType::i32: return join(static_cast<std::int32_t>(reader_.u32()));
      case GgufType::u64: return join(reader_.u64());
      case GgufType::i64: return join(static_cast<std::int64_t>(reader_.u64()));
      case GgufType::f32: return join(std::bit_cast<float>(reader_.u32()));
      case GgufType::f64: return join(std::bit_cast<double>(reader_.u64()));
      case GgufType::boolean: return reader_.u8() != 0 ? "true" : "false";
      case GgufType::text: return std::string(text());
      default: unknown_type(type);
    }
  }

  void skip_array(int depth) {
    if (depth > max_gguf_depth) {
      fail(file_, ": the metadata array ", in_quotes(key_), " is nested more than ", max_gguf_depth, " deep");
    }
    const auto type = static_cast<GgufType>(reader_.u32());
    const std::uint64_t count = reader_.u64();
    if (type == GgufType::text) {
      for (std::uint64_t i = 0; i < count; ++i) text();
    } else if (type == GgufType::array) {
      for (std::uint64_t i = 0; i < count; ++i) skip_array(depth + 1);
    } else {
      if (size_of(type) == 0) unknown_type(type);
      reader_.take(Checked(count) * size_of(type));
    }
  }

  [[noreturn]] void unknown_type(GgufType type) const {
    fail(file_, ": the metadata ", in_quotes(key_), " has the unknown type ", static_cast<std::uint32_t>(type));
  }

  void read_tensor() {
    const std::string_view name = text();
    if (!is_clean_name(name)) fail(file_, ": the tensor name ", in_quotes(name), not_clean);
    Entry& entry = entries_.emplace_back();
    entry.tensor.name = name;
    const std::uint32_t rank = reader_.u32();
    require(rank <= gguf_rank, ": it has ", rank, " dimensions, where GGUF allows ", gguf_rank);
    std::vector<Index>& shape = entry.tensor.shape;
    for (std::uint32_t i = 0; i < rank; ++i) {  // the innermost dimension first
      const std::uint64_t size = reader_.u64();
      require(std::in_range<Index>(size), ": the size ", size, " is too large");
      shape.insert(shape.begin(), static_cast<Index>(size));
    }
    require(is_possible(shape), ": the shape ", std::span<const Index>(shape), " is too large");
    const std::uint32_t type = reader_.u32();
    entry.begin = reader_.u64();
    require(entry.begin % alignment_ == 0, ": it starts at ", entry.begin, ", which is no multiple of the alignment ",
            alignment_);
    const auto is_type = [&](const auto& pair) { return pair.first == type; };
    const auto known = std::find_if(ggml_types.begin(), ggml_types.end(), is_type);
    if (known == ggml_types.end()) {
      const auto other = std::find_if(other_ggml_types.begin(), other_ggml_types.end(), is_type);
      entry.unreadable = join("its numbers are of the type ",
                              other == other_ggml_types.end() ? join(type) : std::string(other->second),
                              " of ggml; quantise the model to Q8_0, Q6_K, Q5_K, Q5_0, Q5_1, Q4_K, Q4_0 or Q4_1");
      return;
    }
    const DType dtype = entry.tensor.dtype = known->second;
    const Index row = shape.empty() ? 1 : shape.back();
    require(row % length_of(dtype) == 0, ": rows of ", row, " numbers are no whole blocks of ", name_of(dtype),
            ", which have ", length_of(dtype));
    const Checked size = count_bytes(shape, dtype);
    require(size.valid(), ": the shape ", std::span<const Index>(shape), " is too large");
    entry.size = size.to<std::uint64_t>();
  }

  void check_names() const {
    std::vector<std::string_view> names;
    for (const Entry& entry : entries_) names.push_back(entry.tensor.name);
    check_names_differ(std::move(names), file_);
  }

  /// Gives every tensor its bytes. In the order of the data, each begins where the one before it ends, up to the next
  /// multiple of the alignment; of one whose size is unknown, the data reach up to the next.
  void place_tensors() {
    const Checked begin = Checked(reader_.position()).aligned(alignment_);
    const std::span<const std::byte> data =
        bytes_.subspan(begin.at_most(bytes_.size()) ? begin.to<std::size_t>() : bytes_.size());
    std::vector<std::uint32_t> order(entries_.size());
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      constexpr std::uint64_t last = std::numeric_limits<std::uint64_t>::max();
      const auto place = [&](std::uint32_t i) {
        return std::tuple(entries_[i].begin, entries_[i].size.value_or(last), i);
      };
      return place(a) < place(b);
    });
    Checked filled = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      Entry& entry = entries_[order[i]];
      require(entry, filled.equals(entry.begin), filled.at_most(entry.begin) ? " leaves a gap" : " overlaps another",
              ": it starts at ", entry.begin, ", but the data before it end at ", filled.to<std::uint64_t>());
      const std::uint64_t next = i + 1 < order.size() ? entries_[order[i + 1]].begin : data.size();
      const Checked end = entry.size ? Checked(entry.begin) + *entry.size : std::max(entry.begin, next);
      require(entry, end.at_most(data.size()), " reaches past the end of the file: it starts at ", entry.begin, " of ",
              data.size(), " bytes of data");
      if (entry.size) entry.tensor.bytes = slice(data, entry.begin, *entry.size, file_);
      filled = end.aligned(alignment_);
    }
    const Checked left = Checked(data.size()) - filled;  // invalid where the last tensor is not padded
    expects(!left.valid() || left.equals(0), file_, ": the data end at ", filled.to<std::uint64_t>(), " of ",
            data.size(), " bytes; the others belong to no tensor");
    for (const std::uint32_t i : order) {
      Entry& entry = entries_[i];
      if (entry.unreadable.empty()) {
        table_.tensors.push_back(std::move(entry.tensor));
      } else {
        table_.unreadable.push_back(
            {std::move(entry.tensor.name), std::move(entry.tensor.shape), std::move(entry.unreadable)});
      }
    }
  }

  /// Like expects, but the tensor is put into words only when there is something to say.
  template <class... Parts>
  void require(const Entry& entry, bool holds, const Parts&... parts) const {
    if (!holds) fail(file_, ": tensor ", in_quotes(entry.tensor.name), parts...);
  }
  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    require(entries_.back(), holds, parts...);
  }

  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::string where_;
  ByteReader reader_;
  std::string_view key_;  // of the metadata that are being read
  std::uint32_t alignment_ = 32;
  std::vector<Entry> entries_;
  TensorTable table_;
};

RWKV_BODY TensorTable read_gguf(std::span<const std::byte> bytes, std::string_view file) {
  return GgufReader(bytes, file).read();
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
