#pragma once
/// JSON texts as streams of events, so that readers check nesting, types and duplicates before anything is stored, and
/// the reader of the small texts beside a model.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// What receives the events. An interface rather than a template, so that the parser, which takes long to compile, is
/// compiled once for all readers.
using JsonEvents = nlohmann::json_sax<nlohmann::json>;

/// Whether the whole text was read.
inline bool parse_json(std::string_view text, JsonEvents& events) {
  return nlohmann::json::sax_parse(text.begin(), text.end(), &events);
}

inline constexpr std::size_t max_small_json = std::size_t{32} << 20;  // bytes of an index or config.json

/// A value at the top of a JSON object.
struct JsonValue {
  enum class Kind : unsigned char { null, boolean, number, text, nested };
  Kind kind = Kind::null;
  double number = 0;  ///< a boolean is 0 or 1, an object or an array the count of the values in it, at any depth
  std::string text;
};
using JsonValues = std::map<std::string, JsonValue, std::less<>>;

/// Reads an object, and keeps the values at its top and the texts of the one object in it that has the name `map`.
class SmallJson : JsonEvents {
 public:
  /// `file` starts every error.
  explicit SmallJson(std::string_view file, std::string_view map = {}) : file_(file), map_(map) {}

  void read(std::string_view json) {
    expects(json.size() <= max_small_json, file_, ": ", json.size(), " bytes exceed the limit of ", max_small_json);
    expects(json.find('\0') == std::string_view::npos, file_, ": the JSON text contains a NUL byte");
    expects(parse_json(json, *this), file_, ": this is no valid JSON");
  }

  JsonValues values;
  std::vector<std::pair<std::string, std::string>> texts;

  bool has_map() const { return has_map_; }

 private:
  static constexpr int max_depth = 64;
  static constexpr std::size_t max_values = 1000;

  bool start_object(std::size_t) override {
    if (opens_map()) {
      if (has_map_) fail(file_, ": it holds ", in_quotes(map_), " twice");
      has_map_ = in_map_ = true;
    } else {
      expects_text("an object");
    }
    return enter();
  }
  bool start_array(std::size_t) override {
    expects_value("an array");
    return enter();
  }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(std::string& name) override {
    if (depth_ == 1) key_ = name;
    else if (in_map_) inner_ = name;
    return true;
  }
  bool string(std::string& text) override {
    if (!in_map_) return keep("a text", {JsonValue::Kind::text, 0, text});
    if (!is_clean_name(inner_)) fail(file_, ": the tensor name ", in_quotes(inner_), not_clean);
    expects(texts.size() < max_tensors, file_, ": the index names more than ", max_tensors, " tensors");
    texts.emplace_back(inner_, text);
    return true;
  }
  bool number_unsigned(std::uint64_t number) override { return keep_number(static_cast<double>(number)); }
  bool number_integer(std::int64_t number) override { return keep_number(static_cast<double>(number)); }
  bool number_float(double number, const std::string&) override { return keep_number(number); }
  bool boolean(bool value) override { return keep("a boolean", {JsonValue::Kind::boolean, value ? 1.0 : 0.0, {}}); }
  bool null() override { return keep("null", {}); }
  bool binary(binary_t&) override { return keep("binary data", {}); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(file_, ": this is no valid JSON at its byte ", position);
  }

  bool opens_map() const { return depth_ == 1 && !map_.empty() && key_ == map_; }
  bool enter() {
    if (depth_ == 1) store({JsonValue::Kind::nested, 0, {}});
    else count();
    ++depth_;
    expects(depth_ <= max_depth, file_, ": the JSON text is nested more than ", max_depth, " deep");
    return true;
  }
  bool leave() {
    --depth_;
    if (depth_ == 1) in_map_ = false;
    return true;
  }
  bool keep_number(double number) { return keep("a number", {JsonValue::Kind::number, number, {}}); }
  bool keep(std::string_view what, JsonValue value) {
    expects_value(what);
    if (depth_ == 1) store(std::move(value));
    else count();
    return true;
  }
  void store(JsonValue value) {
    if (values.size() < max_values) values.insert_or_assign(key_, std::move(value));
  }
  /// Counts what lies inside the value at the top.
  void count() {
    const auto found = values.find(key_);
    if (depth_ > 1 && found != values.end()) ++found->second.number;
  }
  void expects_value(std::string_view what) const {
    if (depth_ == 0) fail(file_, ": the JSON text is no object");
    if (opens_map()) fail(file_, ": ", in_quotes(map_), " is no object");
    expects_text(what);
  }
  void expects_text(std::string_view what) const {
    if (in_map_) fail(file_, ": the tensor ", in_quotes(inner_), " has ", what, " in the place of the name of a shard");
  }

  std::string_view file_, map_;
  int depth_ = 0;
  bool has_map_ = false, in_map_ = false;
  std::string key_, inner_;
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
