#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>

#include <nlohmann/json.hpp>

#include "rwkv/core/error.hpp"
#include "rwkv/io/shards.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr std::size_t max_small_json = std::size_t{32} << 20;  // bytes of an index or config.json
inline constexpr std::size_t max_shards = 1000;

/// Receives a JSON text as a stream of events, and keeps the numbers of the outer object and the texts of the one object
/// in it that has the name `map`. Everything else is skipped.
class SmallJson {
 public:
  SmallJson(std::string_view file, std::string_view map) : file_(file), map_(map) {}

  std::map<std::string, double, std::less<>> numbers;
  WeightMap texts;

  bool has_map() const { return has_map_; }

  bool start_object(std::size_t) {
    if (opens_map()) {
      if (has_map_) fail(file_, ": it holds ", in_quotes(map_), " twice");
      has_map_ = in_map_ = true;
    } else {
      expects_text("an object");
    }
    return enter();
  }
  bool start_array(std::size_t) {
    if (depth_ == 0) fail(file_, ": the JSON text is no object");
    if (opens_map()) fail(file_, ": ", in_quotes(map_), " is no object");
    expects_text("an array");
    return enter();
  }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }
  bool key(std::string& name) {
    if (depth_ == 1) key_ = name;
    else if (in_map_) inner_ = name;
    return true;
  }
  bool string(std::string& text) {
    if (!in_map_) return skip();
    if (!is_clean_name(inner_)) fail(file_, ": the tensor name ", in_quotes(inner_), not_clean);
    expects(texts.size() < max_tensors, file_, ": the index names more than ", max_tensors, " tensors");
    texts.emplace_back(inner_, text);
    return true;
  }
  bool number_unsigned(std::uint64_t number) { return keep(static_cast<double>(number)); }
  bool number_integer(std::int64_t number) { return keep(static_cast<double>(number)); }
  bool number_float(double number, const std::string&) { return keep(number); }
  bool boolean(bool) { return skip("a boolean"); }
  bool null() { return skip("null"); }
  bool binary(nlohmann::json::binary_t&) { return skip("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    fail(file_, ": this is no valid JSON at its byte ", position);
  }

 private:
  static constexpr int max_depth = 64;
  static constexpr std::size_t max_numbers = 1000;

  bool opens_map() const { return depth_ == 1 && !map_.empty() && key_ == map_; }
  bool enter() {
    ++depth_;
    expects(depth_ <= max_depth, file_, ": the JSON text is nested more than ", max_depth, " deep");
    return true;
  }
  bool leave() {
    --depth_;
    if (depth_ == 1) in_map_ = false;
    return true;
  }
  bool keep(double number) {
    skip("a number");
    if (depth_ == 1 && numbers.size() < max_numbers) numbers.insert_or_assign(key_, number);
    return true;
  }
  bool skip(std::string_view what = "a text") const {
    if (depth_ == 0) fail(file_, ": the JSON text is no object");
    if (opens_map()) fail(file_, ": ", in_quotes(map_), " is no object");
    expects_text(what);
    return true;
  }
  void expects_text(std::string_view what) const {
    if (in_map_) fail(file_, ": the tensor ", in_quotes(inner_), " has ", what, " in the place of the name of a shard");
  }

  std::string_view file_, map_;
  int depth_ = 0;
  bool has_map_ = false, in_map_ = false;
  std::string key_, inner_;
};

inline void parse_small_json(std::string_view json, std::string_view file, SmallJson& into) {
  expects(json.size() <= max_small_json, file, ": ", json.size(), " bytes exceed the limit of ", max_small_json);
  expects(json.find('\0') == std::string_view::npos, file, ": the JSON text contains a NUL byte");
  const bool complete = nlohmann::json::sax_parse(json.begin(), json.end(), &into);
  expects(complete, file, ": this is no valid JSON");
}

/// Whether a name leads to a file in the same folder, on every system.
inline bool is_plain_file_name(std::string_view name) {
  return is_clean_name(name) && name != "." && name != ".." && name.find_first_of("/\\:") == std::string_view::npos;
}

RWKV_BODY WeightMap read_weight_map(std::string_view json, std::string_view file) {
  SmallJson parsed(file, "weight_map");
  parse_small_json(json, file, parsed);
  expects(parsed.has_map(), file, ": the index has no weight_map");
  WeightMap& map = parsed.texts;
  expects(!map.empty(), file, ": the index names no tensors");
  std::ranges::stable_sort(map, {}, &WeightMap::value_type::first);
  const auto twice = std::ranges::adjacent_find(map, {}, &WeightMap::value_type::first);
  if (twice != map.end()) fail(file, ": the index names the tensor ", in_quotes(twice->first), " twice");
  std::set<std::string_view> shards;
  for (const auto& [tensor, shard] : map) {
    if (!is_plain_file_name(shard)) {
      fail(file, ": the index leads to ", in_quotes(shard), ", but shards are files in its own folder");
    }
    shards.insert(shard);
    expects(shards.size() <= max_shards, file, ": the index leads to more than ", max_shards, " shards");
  }
  return std::move(map);
}

RWKV_BODY std::map<std::string, double, std::less<>> read_numbers(std::string_view json, std::string_view file) {
  SmallJson parsed(file, "");
  parse_small_json(json, file, parsed);
  return std::move(parsed.numbers);
}

/// Where "-00001-of-00002" stands in the name of a shard, and its length; 0 and 0 in other names.
inline std::pair<std::size_t, std::size_t> shard_number(std::string_view name) {
  constexpr std::string_view middle = "-of-", digits = "0123456789";
  const std::size_t of = name.find(middle);
  if (of == std::string_view::npos || of == 0) return {};
  const std::size_t before = name.find_last_not_of(digits, of - 1);
  const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const std::size_t end = std::min(name.find_first_not_of(digits, of + middle.size()), name.size());
  if (begin == of || end == of + middle.size()) return {};
  const std::size_t dash = begin > 0 && name[begin - 1] == '-' ? begin - 1 : begin;
  return {dash, end - dash};
}

RWKV_BODY bool is_shard(const std::filesystem::path& path) {
  return shard_number(path_text(path.filename())).second > 0;
}

RWKV_BODY std::string index_of_shard(const std::filesystem::path& path) {
  std::string name = path_text(path.filename());
  const auto [begin, size] = shard_number(name);
  return name.erase(begin, size) + ".index.json";
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
