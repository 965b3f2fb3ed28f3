#pragma once
/// JSON texts as streams of events, so that readers check them before anything is stored, and the reader of the small
/// texts beside a model.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// What receives the events. An interface rather than a template, so that the parser, which takes long to compile, is
/// compiled once for all readers.
using JsonEvents = nlohmann::json_sax<nlohmann::json>;

/// Ends by an Error of the events where the text is no JSON.
inline void parse_json(std::string_view text, JsonEvents& events) {
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
}

/// What is wrong with a text at a place where the parser stopped.
inline std::string json_error(std::size_t position, const nlohmann::json::exception& error) {
  constexpr int number_out_of_range = 406;
  if (error.id == number_out_of_range) return join(" has a number that is too large at its byte ", position);
  return join(" is no valid JSON at its byte ", position);
}

inline constexpr std::size_t max_small_json = std::size_t{32} << 20;  // bytes of an index or config.json

/// Reads an object, and keeps the values at its top and the texts of the one object in it that has the name `map`. A name
/// may occur once at the top.
class SmallJson : JsonEvents {
 public:
  /// `file` starts every error.
  explicit SmallJson(std::string_view file, std::string_view map = {}) : file_(file), map_(map) {}

  void read(std::string_view json) {
    expects(json.size() <= max_small_json, file_, ": ", json.size(), " bytes exceed the limit of ", max_small_json);
    expects(json.find('\0') == std::string_view::npos, file_, ": the JSON text contains a NUL byte");
    parse_json(json, *this);
  }

  std::vector<std::pair<std::string, std::string>> texts;

  bool has_map() const { return has_map_; }

  /// The value of a name, or none where it is missing or null; an Error where it is something else.
  std::optional<double> number(std::string_view name) const {
    const Value* found = find(name, Kind::number, "a number");
    return found == nullptr ? std::nullopt : std::optional(found->number);
  }
  bool is_true(std::string_view name) const {
    const Value* found = find(name, Kind::boolean, "true or false");
    return found != nullptr && found->number != 0;
  }
  /// Whether an object has something in it.
  bool is_filled(std::string_view name) const {
    const Value* found = find(name, Kind::nested, "an object");
    return found != nullptr && found->number != 0;
  }
  /// The text of a name, or none where it is missing or no text.
  std::optional<std::string_view> text(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end() || found->second.kind != Kind::text) return std::nullopt;
    return found->second.text;
  }

 private:
  enum class Kind : unsigned char { null, boolean, number, text, nested };
  struct Value {
    Kind kind = Kind::null;
    double number = 0;  // a boolean is 0 or 1, an object or an array the count of the values in it, at any depth
    std::string text;
  };

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
    if (!in_map_) return keep("a text", {Kind::text, 0, text});
    if (!is_clean_name(inner_)) fail(file_, ": the tensor name ", in_quotes(inner_), not_clean);
    expects(texts.size() < max_tensors, file_, ": the index names more than ", max_tensors, " tensors");
    texts.emplace_back(inner_, text);
    return true;
  }
  bool number_unsigned(std::uint64_t number) override { return keep_number(static_cast<double>(number)); }
  bool number_integer(std::int64_t number) override { return keep_number(static_cast<double>(number)); }
  bool number_float(double number, const std::string&) override { return keep_number(number); }
  bool boolean(bool value) override { return keep("a boolean", {Kind::boolean, value ? 1.0 : 0.0, {}}); }
  bool null() override { return keep("null", {}); }
  bool binary(binary_t&) override { return keep("binary data", {}); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    fail(file_, ": this", json_error(position, error));
  }

  bool opens_map() const { return depth_ == 1 && !map_.empty() && key_ == map_; }
  bool enter() {
    if (depth_ == 1) store({Kind::nested, 0, {}});
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
  bool keep_number(double number) { return keep("a number", {Kind::number, number, {}}); }
  bool keep(std::string_view what, Value value) {
    expects_value(what);
    if (depth_ == 1) store(std::move(value));
    else count();
    return true;
  }
  void store(Value value) {
    expects(values_.size() < max_values, file_, ": it holds more than ", max_values, " values");
    if (!values_.emplace(key_, std::move(value)).second) fail(file_, ": it holds ", in_quotes(key_), " twice");
  }
  /// Counts what lies inside the value at the top.
  void count() {
    if (depth_ > 1) ++values_.find(key_)->second.number;
  }
  const Value* find(std::string_view name, Kind kind, std::string_view what) const {
    const auto found = values_.find(name);
    if (found == values_.end() || found->second.kind == Kind::null) return nullptr;
    expects(found->second.kind == kind, file_, ": ", name, " is not ", what);
    return &found->second;
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
  std::map<std::string, Value, std::less<>> values_;
  int depth_ = 0;
  bool has_map_ = false, in_map_ = false;
  std::string key_, inner_;
};

/// The bytes of a small text; one that is too long is not even opened.
inline Bytes read_small_json(const std::filesystem::path& path, FileSystem& files) {
  FileStatus found;
  const bool known = !files.status(path, found);
  expects(!known || found.size <= max_small_json, path_text(path), ": ", found.size, " bytes exceed the limit of ",
          max_small_json);
  return read_file(path, Access::loaded, files);
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
