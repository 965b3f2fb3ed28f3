#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <system_error>
#include <utility>

#include "rwkv/core/error.hpp"
#include "rwkv/io/official_names.hpp"
#include "rwkv/system/byte_reader.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

RWKV_BODY std::optional<Index> block_number(std::string_view name) {
  constexpr std::string_view prefix = "blocks.";
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  Index number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || number < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return number;
}

RWKV_BODY std::optional<double> gguf_number(const TensorFile& file, std::string_view architecture,
                                            std::string_view key) {
  const auto found = file.metadata().find(join(architecture, ".", key));
  if (found == file.metadata().end()) return std::nullopt;
  const std::string& text = found->second;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(path_text(file.path()), ": the metadata ", in_quotes(found->first), " is no number");
  }
  return number;
}

}  // namespace detail

RWKV_BODY std::vector<Index> OfficialTensor::shape_in_file() const {
  std::vector<Index> sizes = *shape;
  if (turned) std::swap(sizes.end()[-1], sizes.end()[-2]);
  return sizes;
}

RWKV_BODY std::string OfficialTensor::label() const {
  return name == in_file ? name : join(name, " (in the file ", detail::in_quotes(in_file), ")");
}

RWKV_BODY OfficialNames::OfficialNames(const TensorFile& file)
    : file_(&file), dialect_(detail::find_dialect(detail::names_of(file.tensors(), file.unreadable()))) {
  if (dialect_.dialect != nullptr && !dialect_.dialect->architecture.empty()) {
    const auto number = [&](std::string_view key) {
      return detail::gguf_number(file, dialect_.dialect->architecture, key).value_or(0);
    };
    head_size_ = number("wkv.head_size");
    halving_ = number("rescale_every_n_layers");
  }
  tensors_.reserve(file.tensors().size() + file.unreadable().size());
  for (const TensorView& tensor : file.tensors()) add(&tensor, nullptr);
  for (const UnreadableTensor& tensor : file.unreadable()) add(nullptr, &tensor);
  take_aliases();
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), std::uint32_t{0});
  std::sort(by_name_.begin(), by_name_.end(), [&](auto a, auto b) { return tensors_[a].name < tensors_[b].name; });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                        [&](auto a, auto b) { return tensors_[a].name == tensors_[b].name; });
  if (twice == by_name_.end()) return;
  fail(detail::path_text(file.path()), ": ", detail::in_quotes(tensors_[twice[0]].in_file), " and ",
       detail::in_quotes(tensors_[twice[1]].in_file), " are both ", tensors_[*twice].name);
}

RWKV_BODY detail::Renamed OfficialNames::renamed(std::string_view name_in_file) const {
  if (dialect_.is_official() || !name_in_file.starts_with(dialect_.prefix)) return {};
  return detail::renamed(*dialect_.dialect, name_in_file.substr(dialect_.prefix.size()));
}

RWKV_BODY std::string OfficialNames::official(std::string_view name_in_file) const {
  detail::Renamed known = renamed(name_in_file);
  return known.rule == nullptr ? std::string(name_in_file) : std::move(known.name);
}

RWKV_BODY void OfficialNames::add(const TensorView* tensor, const UnreadableTensor* unreadable) {
  OfficialTensor entry;
  entry.in_file = tensor != nullptr ? tensor->name : unreadable->name;
  entry.unreadable = unreadable;
  if (tensor != nullptr) {
    entry.dtype = tensor->dtype;
    entry.shape = tensor->shape;
    entry.bytes = tensor->bytes;
  } else {
    entry.shape = unreadable->shape;
  }
  detail::Renamed known = renamed(entry.in_file);
  if (known.rule != nullptr && known.rule->change == detail::Change::unused) return;
  const std::string_view parts = known.rule == nullptr ? std::string_view() : known.rule->parts;
  if (!parts.empty()) {
    const auto count = static_cast<Index>(parts.size());
    const bool splits = tensor != nullptr && tensor->shape.size() >= 2 && tensor->shape[0] == count;
    if (splits) {
      const std::size_t size = tensor->bytes.size() / parts.size();
      for (std::size_t i = 0; i < parts.size(); ++i) {
        OfficialTensor& part = tensors_.emplace_back(entry);
        part.name = known.name;
        std::replace(part.name.begin(), part.name.end(), '*', parts[i]);
        part.shape->erase(part.shape->begin());
        part.bytes = tensor->bytes.subspan(i * size, size);
      }
      return;
    }
    known = {};  // of another shape it is something else
  }
  entry.name = known.rule == nullptr ? std::string(entry.in_file) : std::move(known.name);
  const bool is_matrix = entry.shape && entry.shape->size() >= 2;
  if (known.rule != nullptr && known.rule->turned && is_matrix) {
    entry.turned = true;
    std::swap(entry.shape->end()[-1], entry.shape->end()[-2]);
  }
  if (known.rule != nullptr) undo(known.rule->change, entry);
  tensors_.push_back(std::move(entry));
}

RWKV_BODY void OfficialNames::undo(detail::Change change, OfficialTensor& tensor) const {
  if (change == detail::Change::flattened && tensor.shape && tensor.shape->size() == 1) {
    const Index width = tensor.shape->front();
    const bool divides = 0 < head_size_ && head_size_ <= static_cast<double>(width) &&
                         head_size_ == std::floor(head_size_) && width % static_cast<Index>(head_size_) == 0;
    if (divides) *tensor.shape = {width / static_cast<Index>(head_size_), static_cast<Index>(head_size_)};
  }
  if (change == detail::Change::halved && halving_ >= 1) {
    const auto layer = static_cast<double>(detail::block_number(tensor.name).value_or(0));
    tensor.scale = std::exp2(std::floor(layer / halving_));
  }
}

/// With heads, [heads, head size], the bonus of the current token has the name time_faaaa; some programs keep that which
/// it had before there were heads.
RWKV_BODY void OfficialNames::take_aliases() {
  constexpr std::string_view old_name = "time_first", new_name = "time_faaaa";
  const bool has_heads = std::any_of(tensors_.begin(), tensors_.end(),
                                     [](const auto& tensor) { return tensor.name == "blocks.0.att.ln_x.weight"; });
  if (!has_heads) return;
  for (OfficialTensor& tensor : tensors_) {
    const bool is_bonus = tensor.name.starts_with("blocks.") && tensor.name.ends_with(".att.time_first");
    if (!is_bonus || !tensor.shape || tensor.shape->size() < 2) continue;
    tensor.name.replace(tensor.name.size() - old_name.size(), old_name.size(), new_name);
  }
}

RWKV_BODY const OfficialTensor* OfficialNames::find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
}

RWKV_BODY const std::vector<Index>* OfficialNames::shape_of(std::string_view name) const {
  const OfficialTensor* tensor = find(name);
  return tensor != nullptr && tensor->shape ? &*tensor->shape : nullptr;
}

RWKV_BODY std::vector<std::string> OfficialNames::notes() const {
  std::vector<std::string> notes;
  if (!dialect_.prefix.empty()) {
    notes.push_back(join("the prefix ", detail::in_quotes(dialect_.prefix), " of its names is left off"));
  }
  std::size_t changed = 0, turned = 0;
  for (const OfficialTensor& tensor : tensors_) {
    if (tensor.name != tensor.in_file) ++changed;
    if (tensor.turned) ++turned;
  }
  if (dialect_.is_foreign()) {
    notes.push_back(
        join("its names are those of ", dialect_.dialect->name, "; ", changed, " tensors have another one"));
    if (turned > 0) notes.back() += join(", ", turned, " of them their axes the other way round");
  } else if (changed > 0 && dialect_.prefix.empty()) {
    notes.push_back(join(changed, " tensors have names of an older version"));
  }
  return notes;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
