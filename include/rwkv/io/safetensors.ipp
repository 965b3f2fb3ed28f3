#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/core/checked.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/io/json.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"
#include "rwkv/system/utf8.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

inline constexpr std::uint64_t max_safetensors_header = 100'000'000;
inline constexpr std::string_view metadata_key = "__metadata__";
/// Of the values of fields that the format does not know.
inline constexpr int max_skipped_depth = 64;

/// Receives the header as a stream of JSON events. It knows at every point which event may follow, so that nesting,
/// types and duplicates are checked before anything is stored.
class SafetensorsHeader : public JsonEvents {
 public:
  struct Entry {
    TensorView tensor;
    std::string unreadable;  // why, if it is
    bool has_shape = true;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };

  explicit SafetensorsHeader(std::string_view file) : file_(file) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t) override {
    if (skips()) return enter_skipped();
    switch (place_) {
      case Place::start: return move_to(Place::top);
      case Place::tensor_value: return move_to(Place::tensor);
      case Place::metadata_value: return move_to(Place::metadata);
      default: unexpected("an object");
    }
  }

  bool end_object() override {
    if (skips()) return leave_skipped();
    if (place_ == Place::tensor) finish_tensor();
    return move_to(place_ == Place::top ? Place::end : Place::top);
  }

  bool key(std::string& name) override {
    if (skips()) return true;
    if (place_ == Place::top) return begin_value(name);
    if (place_ == Place::metadata) {
      if (metadata.contains(name)) fail(file_, ": the metadata key ", in_quotes(name), " appears twice");
      metadata_key_ = name;
      return move_to(Place::metadata_text);
    }
    const Place next = name == "dtype"          ? Place::dtype
                       : name == "shape"        ? Place::shape_value
                       : name == "data_offsets" ? Place::offsets_value
                                                : Place::skipped;
    if (next == Place::skipped) return move_to(next);
    bool& seen = next == Place::dtype ? has_dtype_ : next == Place::shape_value ? has_shape_ : has_offsets_;
    require(!seen, ": the key '", name, "' appears twice in the header");
    seen = true;
    return move_to(next);
  }

  bool string(std::string& text) override {
    if (skips()) return skip_value();
    if (place_ == Place::metadata_text) {
      // What is odd or one too many is left out: no tensor depends on it.
      const bool is_odd = !is_clean_name(metadata_key_) || text.find('\0') != std::string::npos;
      const bool has_room =
          metadata_key_.starts_with(quantised_prefix) ? ++tags_ <= max_tensors : ++notes_ <= max_metadata;
      if (!is_odd && has_room) metadata.emplace(std::move(metadata_key_), text);
      return move_to(Place::metadata);
    }
    if (place_ != Place::dtype) unexpected("a string");
    if (const std::optional<DType> dtype = dtype_named(text)) {
      entries.back().tensor.dtype = *dtype;
    } else {
      entries.back().unreadable = join("its numbers are of the unknown type ", in_quotes(text),
                                       "; convert it to F64, F32, F16 or BF16 before saving");
    }
    return move_to(Place::tensor);
  }

  bool start_array(std::size_t) override {
    if (skips()) return enter_skipped();
    if (place_ == Place::shape_value) return move_to(Place::shape);
    if (place_ == Place::offsets_value) return move_to(Place::offsets);
    unexpected("an array");
  }

  bool end_array() override {
    if (skips()) return leave_skipped();
    require(place_ == Place::shape || offsets_.size() == 2, ": data_offsets holds ", offsets_.size(),
            " numbers instead of 2");
    return move_to(Place::tensor);
  }

  bool number_unsigned(std::uint64_t number) override {
    if (skips()) return skip_value();
    if (place_ != Place::shape && place_ != Place::offsets) unexpected("a number");
    require(std::in_range<Index>(number), ": the number ", number, " in the header is too large");
    if (place_ == Place::shape) {
      std::vector<Index>& shape = entries.back().tensor.shape;
      ++rank_;
      if (rank_ <= max_rank) shape.push_back(static_cast<Index>(number));
    } else {
      require(offsets_.size() < 2, ": data_offsets holds more than 2 numbers");
      offsets_.push_back(number);
    }
    return true;
  }
  /// The parser calls this for numbers with a minus sign only, -0 included.
  bool number_integer(std::int64_t) override { return skip_value("a negative number"); }
  bool number_float(double, const std::string&) override {
    return skip_value("a number that is no plain integer below 2^63");
  }
  bool boolean(bool) override { return skip_value("a boolean"); }
  bool null() override {
    if (place_ == Place::metadata_value) return move_to(Place::top);  // as some writers say that there are none
    return skip_value("null");
  }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    fail(where(), ": the header", json_error(position, error));
  }

 private:
  enum class Place {
    start,
    top,
    tensor_value,
    tensor,
    dtype,
    shape_value,
    shape,
    offsets_value,
    offsets,
    skipped,
    metadata_value,
    metadata,
    metadata_text,
    end
  };

  bool move_to(Place place) {
    place_ = place;
    return true;
  }

  /// Whether the parser is inside the value of a field that the format does not know.
  bool skips() const { return place_ == Place::skipped; }
  bool enter_skipped() {
    ++depth_;
    require(depth_ <= max_skipped_depth, ": an unknown field of the header is nested more than ", max_skipped_depth,
            " deep");
    return true;
  }
  bool leave_skipped() {
    --depth_;
    return skip_value();
  }
  /// A value has been skipped; it was the whole field unless it lies inside another.
  bool skip_value() { return depth_ == 0 ? move_to(Place::tensor) : true; }
  /// The same for a value that no known field may hold.
  bool skip_value(std::string_view what) {
    if (!skips()) unexpected(what);
    return skip_value();
  }

  bool begin_value(const std::string& name) {
    if (name == metadata_key) {
      expects(!has_metadata_, file_, ": the key '__metadata__' appears twice");
      has_metadata_ = true;
      return move_to(Place::metadata_value);
    }
    if (!is_clean_name(name)) fail(file_, ": the tensor name ", in_quotes(name), not_clean);
    expects(entries.size() < max_tensors, file_, ": the file holds more than ", max_tensors, " tensors");
    entries.emplace_back().tensor.name = name;
    offsets_.clear();
    rank_ = 0;
    has_dtype_ = has_shape_ = has_offsets_ = false;
    return move_to(Place::tensor_value);
  }

  void finish_tensor() {
    Entry& entry = entries.back();
    require(has_dtype_ && has_shape_ && has_offsets_, ": the header lacks ",
            !has_dtype_   ? "dtype"
            : !has_shape_ ? "shape"
                          : "data_offsets");
    entry.begin = offsets_[0];
    entry.end = offsets_[1];
    require(entry.begin <= entry.end, ": data_offsets [", entry.begin, ", ", entry.end, "] run backwards");
    if (rank_ > max_rank) {
      entry.tensor.shape.clear();
      if (entry.unreadable.empty()) entry.unreadable = too_many_dimensions(rank_);
      entry.has_shape = false;
      return;
    }
    const std::span<const Index> shape = entry.tensor.shape;
    require(is_possible(shape), ": the shape ", shape, " is too large");
    if (!entry.unreadable.empty()) return;
    const Checked size = count_bytes(shape, entry.tensor.dtype);
    require(size.valid(), ": the shape ", shape, " is too large");
    require(size.equals(entry.end - entry.begin), ": ", name_of(entry.tensor.dtype), " ", shape, " takes ",
            size.to<std::uint64_t>(), " bytes, but data_offsets [", entry.begin, ", ", entry.end, "] hold ",
            entry.end - entry.begin);
  }

  /// The file, and the tensor the parser is in.
  std::string where() const {
    const bool in_tensor = place_ >= Place::tensor_value && place_ <= Place::skipped;
    return in_tensor ? join(file_, ": tensor ", in_quotes(entries.back().tensor.name)) : std::string(file_);
  }

  /// Like expects, but the place is put into words only when there is something to say.
  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) fail(where(), parts...);
  }

  [[noreturn]] void unexpected(std::string_view what) const {
    const bool in_metadata = place_ >= Place::metadata_value && place_ <= Place::metadata_text;
    fail(where(),
         in_metadata ? ": '__metadata__' must map strings to strings, but holds " : ": the header must not hold ", what,
         in_metadata ? "" : " there");
  }

  std::string_view file_;
  Place place_ = Place::start;
  int depth_ = 0;  // of a skipped value
  bool has_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  std::size_t rank_ = 0;
  std::size_t tags_ = 0, notes_ = 0;  // metadata of quantised tensors, and others
  std::string metadata_key_;
  std::vector<std::uint64_t> offsets_;
};

struct SafetensorsParts {
  std::string_view json;
  std::span<const std::byte> data;
};

/// The JSON text and the data, after the checks that the JSON parser leaves to us: it would stop at a NUL byte and skip
/// a byte-order mark and blanks, and so let bytes hide in the header.
inline SafetensorsParts split_safetensors(std::span<const std::byte> bytes, std::string_view file) {
  expects(bytes.size() >= 8, file, ": ", bytes.size(), " bytes are too few for a safetensors file");
  ByteReader reader(bytes, file);
  const std::uint64_t size = reader.u64();
  expects(size <= max_safetensors_header, file,
          ": this is neither a zip archive (.pth) nor a safetensors file, whose header would have ", size,
          " bytes, which exceeds the limit of ", max_safetensors_header);
  expects(size <= reader.remaining(), file, ": the header of ", size, " bytes reaches past the end of the file (",
          bytes.size(), " bytes)");
  std::string_view json = reader.text(size);
  expects(json.starts_with('{'), file, ": the safetensors header does not start with '{'");
  expects(json.find('\0') == std::string_view::npos, file, ": the safetensors header contains a NUL byte");
  json = json.substr(0, json.find_last_not_of(' ') + 1);
  expects(json.ends_with('}'), file, ": the safetensors header does not end with '}' and spaces");
  return {json, reader.take(reader.remaining())};
}

/// Gives every tensor its bytes, in the order of the data, which must fill the file without gap and overlap.
inline void place_tensors(std::vector<SafetensorsHeader::Entry>& entries, std::span<const std::byte> data,
                          std::string_view file) {
  // Tensors without elements share an offset with their neighbour and come before it.
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::uint64_t filled = 0;
  for (auto& [tensor, unreadable, has_shape, begin, end] : entries) {
    if (begin != filled) {
      fail(file, ": tensor ", in_quotes(tensor.name), begin > filled ? " leaves a gap" : " overlaps another",
           ": it starts at ", begin, ", but the data before it ends at ", filled);
    }
    if (end > data.size()) {
      fail(file, ": tensor ", in_quotes(tensor.name), " reaches past the end of the file: data_offsets [", begin, ", ",
           end, "] of ", data.size(), " bytes of data");
    }
    tensor.bytes = slice(data, begin, Checked(end) - begin, file);
    filled = end;
  }
  expects(filled == data.size(), file, ": ", data.size() - filled, " bytes at the end of the file belong to no tensor");
}

/// Gives a tensor that the metadata call quantised its type and shape.
inline void take_quantised(TensorView& tensor, std::string_view type, std::string_view file) {
  const std::optional<DType> quantised = quantised_named(type);
  const auto where = [&] { return join(file, ": tensor ", in_quotes(tensor.name)); };
  if (!quantised) fail(where(), ": it is quantised as ", in_quotes(type), ", which is no type that is known");
  const auto size = static_cast<Index>(size_of(*quantised)), length = static_cast<Index>(length_of(*quantised));
  const std::span<const Index> shape = tensor.shape;
  if (tensor.dtype != DType::u8 || shape.size() != 2 || shape[1] % size != 0) {
    fail(where(), ": ", name_of(tensor.dtype), " ", shape, " does not hold rows of ", type, " blocks, of ", size,
         " bytes each");
  }
  const Checked cols = Checked(shape[1] / size) * length;
  tensor.dtype = *quantised;
  tensor.shape = {shape[0], cols.to<Index>(file, ": the rows of tensor ", in_quotes(tensor.name), " are too long")};
  if (!is_possible(tensor.shape)) fail(where(), ": the shape ", std::span<const Index>(tensor.shape), " is too large");
}

RWKV_BODY TensorTable read_safetensors(std::span<const std::byte> bytes, std::string_view file) {
  const auto [json, data] = split_safetensors(bytes, file);
  SafetensorsHeader header(file);
  parse_json(json, header);
  std::vector<std::string_view> names;
  for (const auto& entry : header.entries) names.push_back(entry.tensor.name);
  check_names_differ(std::move(names), file);  // before their places, which two of one name may well share
  place_tensors(header.entries, data, file);

  std::vector<SafetensorsHeader::Entry*> by_name;
  for (auto& entry : header.entries) by_name.push_back(&entry);
  std::sort(by_name.begin(), by_name.end(), [](auto* a, auto* b) { return a->tensor.name < b->tensor.name; });

  TensorTable table;
  table.metadata = std::move(header.metadata);
  for (auto entry = table.metadata.begin(); entry != table.metadata.end();) {
    const std::string_view key = entry->first;
    if (!key.starts_with(quantised_prefix)) {
      ++entry;
      continue;
    }
    const std::string_view name = key.substr(quantised_prefix.size());
    const auto found = std::lower_bound(by_name.begin(), by_name.end(), name,
                                        [](auto* each, std::string_view wanted) { return each->tensor.name < wanted; });
    const bool is_there = found != by_name.end() && (*found)->tensor.name == name;
    if (is_there && (*found)->unreadable.empty()) take_quantised((*found)->tensor, entry->second, file);
    entry = table.metadata.erase(entry);
  }
  table.tensors.reserve(header.entries.size());
  for (auto& [tensor, unreadable, has_shape, begin, end] : header.entries) {
    if (unreadable.empty()) {
      table.tensors.push_back(std::move(tensor));
      continue;
    }
    auto& listed = table.unreadable.emplace_back(UnreadableTensor{std::move(tensor.name), {}, std::move(unreadable)});
    if (has_shape) listed.shape = std::move(tensor.shape);
  }
  return table;
}

/// A JSON string. Everything but quotes, backslashes and control characters stands for itself.
inline void append_json_string(std::string& json, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  json += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      json += "\\u00";
      json += digits[byte >> 4];
      json += digits[byte & 15u];
    } else {
      if (c == '"' || c == '\\') json += '\\';
      json += c;
    }
  }
  json += '"';
}

/// Throws unless the tensor can be written and read back.
inline void check_writable(const TensorView& tensor, std::string_view file) {
  const bool good_name = is_clean_name(tensor.name) && tensor.name != metadata_key;
  if (!good_name) fail(file, ": a tensor cannot be named ", in_quotes(tensor.name));
  const std::span<const Index> shape = tensor.shape;
  const bool good_shape = shape.size() <= max_rank && (!is_quantised(tensor.dtype) || shape.size() == 2) &&
                          std::all_of(shape.begin(), shape.end(), [](Index n) { return n >= 0; });
  if (!good_shape || !count_bytes(shape, tensor.dtype).equals(tensor.bytes.size())) {
    fail(file, ": tensor ", in_quotes(tensor.name), " cannot be written: ", tensor.bytes.size(), " bytes as ",
         name_of(tensor.dtype), " ", shape);
  }
}

/// The length, the JSON text and the spaces that bring the data to a multiple of 64 bytes.
inline std::string safetensors_header(std::span<const TensorView* const> tensors,
                                      const std::map<std::string, std::string>& metadata, std::string_view file) {
  std::string json = "{";
  const auto begin_pair = [&](std::string_view key) {
    if (json.back() != '{') json += ',';
    append_json_string(json, key);
    json += ':';
  };
  if (!metadata.empty()) {
    begin_pair(metadata_key);
    json += '{';
    for (const auto& [key, value] : metadata) {
      if (!is_clean_name(key)) fail(file, ": ", in_quotes(key), " cannot be a metadata key");
      const bool good_value = is_utf8(value) && value.find('\0') == std::string::npos;
      if (!good_value) fail(file, ": the metadata value of ", in_quotes(key), " is no UTF-8 text without NUL");
      begin_pair(key);
      append_json_string(json, value);
    }
    json += '}';
  }
  Checked end = 0;
  for (const TensorView* tensor : tensors) {
    const auto begin = end.to<std::uint64_t>();
    end = end + tensor->bytes.size();
    begin_pair(tensor->name);
    const bool in_blocks = is_quantised(tensor->dtype);
    std::vector<Index> shape = tensor->shape;
    if (in_blocks) shape[1] = static_cast<Index>(bytes_of(tensor->dtype, static_cast<std::size_t>(shape[1])));
    json += "{\"dtype\":\"";
    json += name_of(in_blocks ? DType::u8 : tensor->dtype);
    json += "\",\"shape\":[";
    for (std::size_t i = 0; i < shape.size(); ++i) json += join(i == 0 ? "" : ",", shape[i]);
    json +=
        (join("],\"data_offsets\":[", begin, ",", end.to<std::uint64_t>(file, ": the tensors are too large"), "]}"));
  }
  json += '}';
  json.resize(Checked(json.size() + 8).aligned(64).to<std::size_t>() - 8, ' ');
  expects(json.size() <= max_safetensors_header, file, ": the header would exceed ", max_safetensors_header, " bytes");
  std::string header(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) header[i] = static_cast<char>(std::uint64_t{json.size()} >> (8 * i) & 0xffu);
  return header + json;
}

}  // namespace detail

RWKV_BODY void save_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                                const std::map<std::string, std::string>& metadata, FileSystem& files) {
  static_assert(std::endian::native == std::endian::little,
                "rwkv: safetensors are written on little-endian machines only");
  const std::string file = detail::path_text(path);
  expects(tensors.size() <= detail::max_tensors, file, ": more than ", detail::max_tensors, " tensors");
  for (const TensorView& tensor : tensors) detail::check_writable(tensor, file);
  std::vector<std::string_view> names;
  for (const TensorView& tensor : tensors) names.push_back(tensor.name);
  detail::check_names_differ(std::move(names), file);

  std::vector<const TensorView*> order;
  order.reserve(tensors.size());
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return alignment_of(a->dtype) > alignment_of(b->dtype); });
  expects(metadata.size() <= detail::max_metadata, file, ": more than ", detail::max_metadata, " metadata entries");
  auto texts = metadata;
  for (const TensorView& tensor : tensors) {
    if (!is_quantised(tensor.dtype)) continue;
    texts.insert_or_assign(std::string(detail::quantised_prefix) + tensor.name, std::string(name_of(tensor.dtype)));
  }
  const std::string header = detail::safetensors_header(order, texts, file);
  auto total = static_cast<Index>(header.size());
  for (const TensorView* tensor : order) total += std::ssize(tensor->bytes);
  detail::Reporting reporting(Phase::save, total);
  write_atomically(files, path, [&](FileWriter& out) {
    out.write(header);
    for (const TensorView* tensor : order) out.write(tensor->bytes);
  });
}

}  // namespace RWKV_ABI
}  // namespace rwkv
