#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/state_file.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// What the metadata of a state have in front, and the word and number of the format.
inline constexpr std::string_view state_prefix = "rwkv.", state_key = "rwkv.state", state_format = "1",
                                  state_position_key = "rwkv.position";

/// The texts that a state and a model must agree on. The size of heads is not among them: the tensors have it.
inline std::map<std::string, std::string> texts_of_state(const StateLayout& layout) {
  std::map<std::string, std::string> texts{{"rwkv.layout", "head, key, value"},
                                           {"rwkv.vocab", join(layout.sizes.vocab)},
                                           {"rwkv.width", join(layout.sizes.width)},
                                           {"rwkv.depth", join(layout.sizes.depth)},
                                           {"rwkv.number_type", std::string(name_of(layout.type))}};
  if (layout.version != nullptr) texts["rwkv.version"] = layout.version->name;
  return texts;
}

RWKV_BODY void check_whole(const StateLayout& layout, DType type) {
  expects(type == layout.type, "rwkv: the model computes in ", name_of(layout.type),
          ", and its handle has the state in ", name_of(type),
          ", which is not all of it; use the context of the model itself");
}

RWKV_BODY void write_state(const std::filesystem::path& path, const StateLayout& layout,
                           std::span<const std::byte> numbers, Index position,
                           std::map<std::string, std::string> metadata, FileSystem& files, const BesideState& beside) {
  for (const auto& [key, text] : metadata) {
    expects(!key.starts_with(state_prefix), "rwkv: the metadata ", in_quotes(key),
            " would be taken for those of the state, which start with 'rwkv.'");
  }
  metadata.merge(texts_of_state(layout));
  metadata.emplace(state_key, state_format);
  metadata.emplace(state_position_key, join(position));
  if (layout.sizes.head_size > 0) metadata.emplace("rwkv.head_size", join(layout.sizes.head_size));
  metadata.insert(beside.texts.begin(), beside.texts.end());
  std::vector<TensorView> tensors = beside.tensors;
  for (const StateTensor& tensor : layout.tensors) {
    const std::size_t bytes = static_cast<std::size_t>(tensor.numbers) * size_of(layout.type);
    tensors.push_back({tensor.name, layout.type, {tensor.numbers}, numbers.first(bytes)});
    numbers = numbers.subspan(bytes);
  }
  save_safetensors(path, tensors, metadata, files);
}

RWKV_BODY SavedState read_state(const std::filesystem::path& path, const StateLayout& layout, FileSystem& files) {
  return read_state(open_tensors(path, {Access::loaded}, files), layout);
}

RWKV_BODY SavedState read_state(const TensorFile& file, const StateLayout& layout) {
  const std::string name = path_text(file.path());
  const auto text = [&](std::string_view key) -> const std::string* {
    const auto found = file.metadata().find(std::string(key));
    return found == file.metadata().end() ? nullptr : &found->second;
  };
  const std::string* const format = text(state_key);
  expects(format != nullptr, name, ": this is no file of a state");
  expects(*format == state_format, name, ": the state has the format ", in_quotes(*format),
          ", where this library reads ", state_format);
  const auto wanted_texts = texts_of_state(layout);
  const auto differs = [&](std::string_view key, std::string_view was, std::string_view wanted) {
    fail(name, ": the state belongs to another model: ", key.substr(state_prefix.size()), " is ", in_quotes(was),
         " there and ", in_quotes(wanted), " here");
  };
  for (const auto& [key, wanted] : wanted_texts) {
    const std::string was = text(key) == nullptr ? "nothing" : *text(key);
    if (was != wanted) differs(key, was, wanted);
  }
  constexpr std::string_view version_key = "rwkv.version";
  if (layout.version == nullptr && text(version_key) != nullptr) differs(version_key, *text(version_key), "nothing");

  SavedState saved;
  for (const StateTensor& tensor : layout.tensors) {
    const TensorView* const found = file.find(tensor.name);
    expects(found != nullptr, name, ": ", tensor.name, " is missing from the file");
    const Index shape[] = {tensor.numbers};
    expects(same_sizes(found->shape, shape), name, ": ", tensor.name, ": file has ", std::span(found->shape),
            ", the model expects ", std::span<const Index>(shape));
    expects(found->dtype == layout.type, name, ": ", tensor.name, ": file has ", name_of(found->dtype),
            " numbers, the model computes in ", name_of(layout.type));
    std::vector<double> values(static_cast<std::size_t>(tensor.numbers));
    convert(found->dtype, found->bytes.data(), DType::f64, reinterpret_cast<std::byte*>(values.data()), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      expects(!is_nan(values[i]), name, ": ", tensor.name, " has NaN at ", i);  // a cell may keep an infinity
    }
    saved.numbers.insert(saved.numbers.end(), found->bytes.begin(), found->bytes.end());
  }
  const auto of_state = [](const auto& tensor) { return !tensor.name.starts_with(sampler_prefix); };
  const auto readable = file.tensors();
  const auto unreadable = file.unreadable();
  const Index tensors = std::count_if(readable.begin(), readable.end(), of_state) +
                        std::count_if(unreadable.begin(), unreadable.end(), of_state);
  expects(tensors == std::ssize(layout.tensors), name, ": the file holds ", tensors, " tensors, the state has ",
          layout.tensors.size());

  const std::string* const digits = text(state_position_key);
  expects(digits != nullptr, name, ": the file does not say how many tokens the state has seen");
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), saved.position);
  expects(error == std::errc() && end == digits->data() + digits->size() && saved.position >= 0 &&
              saved.position <= most_tokens_seen,
          name, ": the state cannot have seen ", in_quotes(*digits), " tokens");
  return saved;
}

RWKV_BODY SavedState read_initial_state(const std::filesystem::path& path, const StateLayout& layout,
                                        FileSystem& files) {
  const TensorFile file = open_tensors(path, {}, files);
  if (file.metadata().contains(std::string(state_key))) return read_state(file, layout);
  const std::string name = path_text(file.path());
  const auto tensor_of = [&](const std::string& ending) -> const TensorView* {
    const TensorView* found = nullptr;
    for (const TensorView& tensor : file.tensors()) {
      if (tensor.name != ending && !tensor.name.ends_with("." + ending)) continue;
      expects(found == nullptr, name, ": it holds ", ending, " twice, as ", found == nullptr ? "" : found->name,
              " and as ", tensor.name);
      found = &tensor;
    }
    return found;
  };
  const auto tensors = file.tensors();
  expects(
      std::any_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.name.ends_with(".att.time_state"); }),
      name, ": this is no file of a state: it has neither the metadata of one nor a blocks.0.att.time_state");
  expects(layout.version == nullptr || layout.version->state != OfficialState::components, name,
          ": the file holds the matrices of heads, which the state of RWKV-4 does not have");
  const auto layers =
      std::count_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.name.ends_with(".att.time_state"); });
  const auto wanted_layers = std::count_if(layout.tensors.begin(), layout.tensors.end(),
                                           [](const auto& t) { return t.name.ends_with(".wkv"); });
  SavedState saved;
  for (const StateTensor& tensor : layout.tensors) {
    const auto count = static_cast<std::size_t>(tensor.numbers);
    std::vector<double> numbers(count);
    if (tensor.name.ends_with(".wkv")) {
      const std::string wanted = tensor.name.substr(0, tensor.name.size() - 3) + "time_state";
      const TensorView* const found = tensor_of(wanted);
      expects(found != nullptr, name, ": ", wanted, " is missing from the file");
      const Index size = tensor.numbers / layout.sizes.width;
      const Index shape[] = {layout.sizes.width / size, size, size};
      expects(same_sizes(found->shape, shape), name, ": ", wanted, ": file has ", std::span(found->shape),
              ", the model expects ", std::span<const Index>(shape));
      expects(is_floating(found->dtype), name, ": ", wanted, ": file has ", name_of(found->dtype), " numbers");
      const std::size_t wrong = first_not_finite(found->dtype, found->bytes);
      expects(wrong == count, name, ": ", wanted, ": element ", wrong, " is not a finite number");
      std::vector<double> turned(count);
      convert(found->dtype, found->bytes.data(), DType::f64, reinterpret_cast<std::byte*>(turned.data()), count);
      const double largest =
          layout.type == DType::f32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
      const auto large = std::find_if(turned.begin(), turned.end(), [&](double x) { return std::abs(x) > largest; });
      expects(large == turned.end(), name, ": ", wanted, ": element ", large - turned.begin(),
              " is too large for a float");
      for (Index head = 0; head < shape[0]; ++head) {
        for (Index i = 0; i < size; ++i) {
          for (Index j = 0; j < size; ++j) {
            numbers[static_cast<std::size_t>((head * size + i) * size + j)] =
                turned[static_cast<std::size_t>((head * size + j) * size + i)];
          }
        }
      }
    }
    const std::size_t before = saved.numbers.size();
    saved.numbers.resize(before + count * size_of(layout.type));
    convert(DType::f64, reinterpret_cast<const std::byte*>(numbers.data()), layout.type, saved.numbers.data() + before,
            count);
  }
  expects(layers == wanted_layers, name, ": it holds the states of ", layers, " layers, the model has ", wanted_layers);
  return saved;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
