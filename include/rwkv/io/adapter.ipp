#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "rwkv/core/error.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/io/adapter.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/io/json.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

inline constexpr std::string_view adapter_key = "rwkv.adapter", adapter_alpha_key = "rwkv.alpha",
                                  adapter_base_key = "rwkv.base";

/// What a tensor of an adapter is.
enum class FactorKind : unsigned char { a, b, d, turned_d };

struct FactorName {
  std::string_view ending;
  FactorKind kind;
};
inline constexpr std::array<FactorName, 10> factor_names{{{".lora_A.weight", FactorKind::a},
                                                          {".lora_B.weight", FactorKind::b},
                                                          {".lora_A", FactorKind::a},
                                                          {".lora_B", FactorKind::b},
                                                          {".weight.D", FactorKind::d},
                                                          {".miss_block", FactorKind::turned_d},
                                                          {".bone_block", FactorKind::turned_d},
                                                          {".miss", FactorKind::turned_d},
                                                          {".disha", FactorKind::turned_d},
                                                          {".bone", FactorKind::turned_d}}};

/// The file that a folder holds an adapter in; the path itself if it is none.
inline std::filesystem::path adapter_in(const std::filesystem::path& path, FileSystem& files) {
  FileStatus found;
  const auto kind = [&](const std::filesystem::path& at) {
    return files.status(at, found) ? FileStatus::Kind::other : found.kind;
  };
  if (kind(path) == FileStatus::Kind::regular) return path;
  for (const char* name : {"adapter_model.safetensors", "adapter_model.bin", "adapter.pth"}) {
    if (kind(path / name) == FileStatus::Kind::regular) return path / name;
  }
  return path;
}

/// The scale of factors of a rank, as a JSON beside the file tells it; none where there is no such file.
class ScaleBeside {
 public:
  ScaleBeside(const std::filesystem::path& path, FileSystem& files) {
    FileStatus found;
    for (const char* name : {"adapter_config.json", "adapter.json"}) {
      const std::filesystem::path beside = path.parent_path() / name;
      if (files.status(beside, found) || found.kind != FileStatus::Kind::regular) continue;
      expects(!json_, path_text(path), ": both ", name_, " and ", name, " lie beside it; which of them is its own?");
      const Bytes bytes = read_small_json(beside, files);
      name_ = bytes.name();
      json_.emplace(name_).read(as_text(bytes.view()));
    }
    if (json_) check();
  }

  std::optional<double> scale(Index rank) const {
    if (!json_) return std::nullopt;
    const auto size_there = json_->is_filled("rank_pattern") ? std::nullopt : json_->number("r");
    expects(!size_there || *size_there == static_cast<double>(rank), name_, ": r is ", size_there.value_or(0),
            ", the factors have a rank of ", rank, "; is it that of another adapter?");
    if (const auto scale = number("scale")) return scale;
    for (const char* key : {"lora_alpha", "alpha"}) {
      const auto alpha = number(key);
      if (!alpha) continue;
      const auto size = static_cast<double>(rank);
      return *alpha / (json_->is_true("use_rslora") ? std::sqrt(size) : size);
    }
    return std::nullopt;
  }

 private:
  /// Throws where an adapter is no sum with the model's own weights.
  void check() const {
    expects(!json_->is_true("use_dora"), name_, ": DoRA changes the lengths of rows, which is no low-rank change");
    if (const auto text = json_->text("init_lora_weights")) {
      std::string start(*text);
      for (char& letter : start) letter = static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter + 32 : letter);
      if (start != "gaussian" && start != "eva" && start != "orthogonal") {
        fail(name_, ": factors that started by ", in_quotes(*text),
             " may belong to weights that were changed as well; convert the adapter to LoRA");
      }
    }
    expects(!json_->is_filled("alpha_pattern"), name_, ": alpha_pattern is not read");
  }
  std::optional<double> number(std::string_view key) const {
    const auto value = json_->number(key);
    expects(!value || (is_finite(*value) && *value > 0), name_, ": ", key, " must be above zero, not ",
            value.value_or(0));
    return value;
  }

  std::string name_;
  std::optional<SmallJson> json_;
};

/// Where the name of a model's matrix begins in that of a factor, behind any prefix.
inline std::size_t begin_of_matrix(std::string_view name) {
  for (const std::string_view start : {"blocks.", "head."}) {
    if (name.starts_with(start)) return 0;
    const std::size_t dot = name.find("." + std::string(start));
    if (dot != std::string_view::npos) return dot + 1;
  }
  const std::size_t lm_head = name.find("lm_head.");
  return lm_head == std::string_view::npos ? lm_head : lm_head + 3;
}

/// The numbers of a factor, which are finite.
inline std::vector<float> read_factor(const TensorView& tensor, std::string_view file) {
  expects(is_floating(tensor.dtype), file, ": ", tensor.name, ": factors are F64, F32, F16 or BF16, not ",
          name_of(tensor.dtype));
  const std::size_t at = first_not_finite(tensor.dtype, tensor.bytes);
  std::vector<float> numbers(static_cast<std::size_t>(tensor.shape[0] * tensor.shape[1]));
  expects(at == numbers.size(), file, ": ", tensor.name, ": element ", at, " is not a finite number");
  convert(tensor.dtype, tensor.bytes.data(), DType::f32, reinterpret_cast<std::byte*>(numbers.data()), numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    expects(is_finite(numbers[i]), file, ": ", tensor.name, ": element ", i, " is too large for a float");
  }
  return numbers;
}

/// The number under a key, or none where there is no such key.
template <class T>
std::optional<T> number_in(const TensorFile& file, std::string_view key) {
  const auto found = file.metadata().find(std::string(key));
  if (found == file.metadata().end()) return std::nullopt;
  T value{};
  const std::string& text = found->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  expects(error == std::errc() && end == text.data() + text.size(), path_text(file.path()), ": the metadata ", key,
          " is no number");
  return value;
}

}  // namespace detail

RWKV_BODY Adapter load_adapter(const std::filesystem::path& path, const AdapterOptions& options, FileSystem& files) {
  using detail::FactorKind;
  const TensorFile file = open_tensors(detail::adapter_in(path, files), {}, files);
  const std::string name = detail::path_text(file.path());
  expects(!options.alpha || (is_finite(*options.alpha) && *options.alpha > 0), name, ": alpha must be above zero, not ",
          options.alpha.value_or(0));
  expects(file.unreadable().empty(), name, ": ",
          file.unreadable().empty() ? std::string() : detail::in_quotes(file.unreadable()[0].name), " cannot be read");
  struct Found {
    const TensorView *a = nullptr, *b = nullptr;
    FactorKind kind = FactorKind::b;
  };
  std::map<std::string, Found> found;
  for (const TensorView& tensor : file.tensors()) {
    const auto known = std::find_if(detail::factor_names.begin(), detail::factor_names.end(),
                                    [&](const auto& factor) { return tensor.name.ends_with(factor.ending); });
    const std::size_t begin = detail::begin_of_matrix(tensor.name);
    expects(known != detail::factor_names.end() && begin != std::string::npos, name, ": ",
            detail::in_quotes(tensor.name),
            " is no factor of an adapter, as blocks.0.att.key.lora_A and lora_B or blocks.0.att.key.weight.D are");
    expects(tensor.shape.size() == 2 && tensor.shape[0] > 0 && tensor.shape[1] > 0, name, ": ", tensor.name,
            ": file has ", std::span(tensor.shape), ", a factor has two axes, neither of them empty");
    const std::string matrix = tensor.name.substr(begin, tensor.name.size() - known->ending.size() - begin) + ".weight";
    Found& entry = found[matrix];
    const TensorView*& place = known->kind == FactorKind::a ? entry.a : entry.b;
    expects(place == nullptr, name, ": ", matrix, " has two factors of one kind, the second of them ",
            detail::in_quotes(tensor.name));
    place = &tensor;
    if (known->kind != FactorKind::a) entry.kind = known->kind;
  }
  expects(!found.empty(), name, ": the file holds no factor of an adapter");

  // A file that tells its alpha needs none beside it.
  std::optional<detail::ScaleBeside> beside;
  if (!file.metadata().contains(std::string(detail::adapter_alpha_key))) beside.emplace(file.path(), files);
  Adapter adapter{name, {}, detail::number_in<std::uint64_t>(file, detail::adapter_base_key)};
  if (options.other_base) adapter.base.reset();
  const auto alpha = options.alpha ? options.alpha : detail::number_in<double>(file, detail::adapter_alpha_key);
  expects(!alpha || (is_finite(*alpha) && *alpha > 0), name, ": alpha must be above zero, not ", alpha.value_or(0));
  for (const auto& [matrix, factors] : found) {
    const bool low_rank = factors.kind == FactorKind::b;
    expects(low_rank || factors.a == nullptr, name, ": ", matrix, " has factors of low rank and of MiSS");
    expects(factors.b != nullptr && (!low_rank || factors.a != nullptr), name, ": ", matrix, " has no factor ",
            factors.b == nullptr ? "lora_B" : "lora_A", " to the other");
    const TensorView& b = *factors.b;
    const bool turned = factors.kind == FactorKind::turned_d;
    MatrixChange change{.matrix = matrix, .out = b.shape[turned ? 1 : 0], .rank = b.shape[turned ? 0 : 1]};
    change.b = detail::read_factor(b, name);
    if (turned) {
      const std::vector<float> numbers = change.b;
      for (Index o = 0; o < change.out; ++o) {
        for (Index j = 0; j < change.rank; ++j) {
          change.b[static_cast<std::size_t>(o * change.rank + j)] =
              numbers[static_cast<std::size_t>(j * change.out + o)];
        }
      }
    }
    if (low_rank) {
      const TensorView& a = *factors.a;
      expects(a.shape[0] == change.rank, name, ": ", matrix, ": lora_A has ", std::span(a.shape), " and lora_B ",
              std::span(b.shape), ", of different ranks");
      change.in = a.shape[1];
      change.a = detail::read_factor(a, name);
    }
    if (!turned) {
      const auto scale = alpha ? std::optional(*alpha / static_cast<double>(change.rank)) : beside->scale(change.rank);
      expects(scale.has_value(), name,
              ": the file does not tell alpha, the scale of its factors; AdapterOptions::alpha gives it");
      change.scale = *scale;
    }
    adapter.matrices.push_back(std::move(change));
  }
  return adapter;
}

RWKV_BODY void save_adapter(const Adapter& adapter, const std::filesystem::path& path,
                            const std::map<std::string, std::string>& metadata, FileSystem& files) {
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> texts = metadata;
  expects(!adapter.matrices.empty(), detail::path_text(path), ": an adapter without changes is not saved");
  const MatrixChange& first = adapter.matrices[0];
  texts.insert_or_assign(std::string(detail::adapter_key), first.is_miss() ? "MiSS" : "low rank");
  const double alpha = first.scale * static_cast<double>(first.rank);
  expects(is_finite(alpha) && alpha > 0, detail::path_text(path), ": the change of ", first.matrix, " has the scale ",
          first.scale, ", which must be above zero");
  texts.insert_or_assign(std::string(detail::adapter_alpha_key), join(alpha));
  if (adapter.base) texts.insert_or_assign(std::string(detail::adapter_base_key), join(*adapter.base));
  for (const MatrixChange& change : adapter.matrices) {
    constexpr std::string_view weight = ".weight";
    expects(std::abs(change.scale * static_cast<double>(change.rank) - alpha) <= 1e-12 * alpha, detail::path_text(path),
            ": the changes of ", first.matrix, " and ", change.matrix,
            " have different alphas, which one file cannot hold");
    expects(change.matrix.ends_with(weight) && (change.matrix.starts_with("blocks.") || change.matrix == "head.weight"),
            detail::path_text(path), ": ", change.matrix,
            " has no place in the file of an adapter, which holds changes of blocks.*.weight and head.weight");
    const std::string stem = change.matrix.substr(0, change.matrix.size() - weight.size());
    const auto add = [&](const std::string& name, Index rows, Index cols, const std::vector<float>& numbers) {
      tensors.push_back({name, DType::f32, {rows, cols}, std::as_bytes(std::span(numbers))});
    };
    if (change.is_miss()) {
      add(change.matrix + ".D", change.out, change.rank, change.b);
    } else {
      add(stem + ".lora_A", change.rank, change.in, change.a);
      add(stem + ".lora_B", change.out, change.rank, change.b);
    }
  }
  save_safetensors(path, tensors, texts, files);
}

namespace detail {

/// Throws where an adapter does not fit a model. Returns the change of each parameter, or null.
inline std::vector<const MatrixChange*> changes_of(std::span<const StoredParameter> parameters, const Adapter& adapter,
                                                   std::uint64_t fingerprint) {
  std::vector<const MatrixChange*> changes(parameters.size());
  for (const MatrixChange& change : adapter.matrices) {
    const auto found =
        std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.name == change.matrix; });
    expects(found != parameters.end(), adapter.name, ": the model has no ", change.matrix,
            ", which the adapter changes; it was made for another");
    const std::span<const Index> shape = found->shape.span();
    expects(shape.size() == 2 && found->role != Role::vector, adapter.name, ": ", change.matrix, " of shape ", shape,
            " is no matrix of two axes");
    const Index wanted[] = {change.out, change.is_miss() ? shape[1] : change.in};
    expects(same_sizes(shape, wanted), adapter.name, ": ", change.matrix, ": the adapter is for ", std::span(wanted),
            ", the model has ", shape);
    expects(change.rank <= shape[1], adapter.name, ": ", change.matrix, ": a rank of ", change.rank,
            " does not fit the shape ", shape);
    expects(is_finite(change.scale), adapter.name, ": ", change.matrix, ": the scale ", change.scale,
            " is not a finite number");
    const auto numbers_of = [&](Index columns) { return static_cast<std::size_t>(change.rank * columns); };
    expects(change.rank > 0 && change.b.size() == numbers_of(change.out) &&
                (change.is_miss() || change.a.size() == numbers_of(change.in)),
            adapter.name, ": ", change.matrix, ": its factors have ", change.a.size(), " and ", change.b.size(),
            " numbers, which is no rank of ", change.rank);
    const MatrixChange*& place = changes[static_cast<std::size_t>(found - parameters.begin())];
    expects(place == nullptr, adapter.name, ": ", change.matrix, " is changed twice");
    place = &change;
  }
  expects(!adapter.base || *adapter.base == fingerprint, adapter.name,
          ": the adapter was made for a model with other weights; AdapterOptions::other_base uses it all the same");
  return changes;
}

/// Adds a change to row `o` of a matrix.
inline void add_change(const MatrixChange& change, Index o, std::span<double> row) {
  const float* b = change.b.data() + o * change.rank;
  const auto in = std::ssize(row);
  for (Index j = 0; j < change.rank; ++j) {
    const double factor = change.scale * static_cast<double>(b[j]);
    if (change.is_miss()) {
      for (Index k = j; k < in; k += change.rank) row[static_cast<std::size_t>(k)] += factor;
    } else {
      const float* a = change.a.data() + j * in;
      for (Index k = 0; k < in; ++k) row[static_cast<std::size_t>(k)] += factor * static_cast<double>(a[k]);
    }
  }
}

RWKV_BODY std::shared_ptr<const void> bind_adapted(std::span<StoredParameter> parameters,
                                                   std::span<const Adapter> adapters, std::uint64_t fingerprint,
                                                   std::shared_ptr<const void> weights, const WeightMemory& memory) {
  std::vector<std::vector<const MatrixChange*>> changes;
  for (const Adapter& adapter : adapters) changes.push_back(changes_of(parameters, adapter, fingerprint));
  constexpr Index alignment = 64;
  const auto type_for = [](const StoredParameter& p) { return p.keeps_stored_type ? p.compute : p.dtype; };
  const auto room_for = [&](const StoredParameter& p) {
    const auto bytes = static_cast<Index>(bytes_of(type_for(p), static_cast<std::size_t>(p.shape.count())));
    return (bytes + alignment - 1) / alignment * alignment;
  };
  const auto changes_here = [&](std::size_t i) {
    return std::any_of(changes.begin(), changes.end(), [&](const auto& of_one) { return of_one[i] != nullptr; });
  };
  Index room = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) room += changes_here(i) ? room_for(parameters[i]) : 0;

  struct Owner {
    std::shared_ptr<const void> weights;
    std::shared_ptr<std::byte> changed;
  };
  std::shared_ptr<Owner> owner(new Owner{std::move(weights), memory.allocate(room)});
  std::byte* next = owner->changed.get();
  std::vector<std::byte> copy, numbers;
  std::vector<double> row;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!changes_here(i)) continue;
    StoredParameter& parameter = parameters[i];
    const DType type = type_for(parameter);
    const Index out = parameter.shape.sizes[0];
    const auto in = static_cast<std::size_t>(parameter.shape.sizes[1]);
    const auto* from = static_cast<const std::byte*>(parameter.data);
    if (!memory.host_reaches) {
      copy.resize(static_cast<std::size_t>(parameter.bytes()));
      memory.download(from, copy);
      from = copy.data();
    }
    row.resize(in);
    numbers.resize(bytes_of(type, in) * static_cast<std::size_t>(out));
    for (Index o = 0; o < out; ++o) {
      const auto at = static_cast<std::size_t>(o);
      convert(parameter.dtype, from + bytes_of(parameter.dtype, at * in), DType::f64,
              reinterpret_cast<std::byte*>(row.data()), in);
      for (const auto& of_one : changes) {
        if (of_one[i] != nullptr) add_change(*of_one[i], o, row);
      }
      convert(DType::f64, reinterpret_cast<const std::byte*>(row.data()), type,
              numbers.data() + bytes_of(type, at * in), in);
    }
    const std::size_t wrong = first_not_finite(type, numbers);
    if (wrong != static_cast<std::size_t>(out) * in) {
      std::string names;
      for (const Adapter& adapter : adapters) names += (names.empty() ? "" : ", ") + adapter.name;
      fail(parameter.name, ": with ", names, " element ", wrong, " is not a finite number");
    }
    if (memory.host_reaches) std::memcpy(next, numbers.data(), numbers.size());
    else memory.upload(numbers, next);
    parameter.bind(next, type);
    next += room_for(parameter);
  }
  return owner;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
