#pragma once
/// Models from and to checkpoint files.
#include <cstddef>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/memory.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/transpose.hpp"
#include "rwkv/io/adapter.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/model/composition.hpp"
#include "rwkv/model/fingerprint.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a checkpoint is loaded.
struct LoadOptions {
  Access access = Access::automatic;  ///< copied into memory, or mapped
  bool verify_checksums = true;       ///< check the sums of a .pth, which reads all of it once
  bool check_values = true;           ///< refuse NaN and infinite weights, which reads all of them once
  /// Patterns (see glob_matches) for names, in the file, of tensors that the model has no place for: these are left out,
  /// where any other would be an error. What the model needs is loaded whatever the patterns say.
  std::vector<std::string> ignore = {};
  /// Is called with each sentence on what was done to a file whose names are not official, once the model is loaded:
  /// the prefix that was left off, the program whose names it has, what its norms add to variances.
  std::function<void(std::string_view)> note = {};
  /// Loads a file that a model of another composition wrote (see composition()), where their tensors agree.
  bool other_composition = false;
  /// Changes that are added to the matrices, see load_adapter() and adapted().
  std::vector<Adapter> adapters = {};
};

namespace detail {

/// Element i of a tensor whose bytes may not be aligned.
template <class T>
T element_at(std::span<const std::byte> bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

/// Converts `count` numbers of one type, which may be quantised, to another, by way of double, and multiplies them by
/// `scale`; neither side need be aligned.
void convert(DType from_type, const std::byte* from, DType to_type, std::byte* to, std::size_t count, double scale = 1);

/// Compares every tensor of the file with every parameter of the model: names, shapes, number types and values.
void check_fit(std::span<const StoredParameter> parameters, const OfficialNames& names, const LoadOptions& options);

/// The first of some numbers that is NaN or infinite, or how many there are; in blocks the first of a group whose scale or
/// offset is.
std::size_t first_not_finite(DType type, std::span<const std::byte> numbers);

/// Adds what is to be said of a parameter that has such a number to a list.
void add_not_finite(const TensorSpec& spec, DType type, std::span<const std::byte> numbers,
                    std::vector<std::string>& list);
/// Throws an Error with the list unless it is empty.
void expect_finite(std::span<const std::string> list);

/// The memory that a model's weights go to when they cannot stay where the file has them.
struct WeightMemory {
  bool host_reaches = true;  ///< whether weights may stay in the file's memory, and the host writes to this one
  std::function<std::shared_ptr<std::byte>(Index bytes)> allocate;
  std::function<void(std::span<const std::byte> from, std::byte* to)> upload;    ///< unless the host reaches it
  std::function<void(const std::byte* from, std::span<std::byte> to)> download;  ///< unless the host reaches it
};

template <class B>
WeightMemory weight_memory(B& backend) {
  WeightMemory memory{host_reaches<B>, {}, {}, {}};
  memory.allocate = [&backend](Index bytes) {
    auto block = std::make_shared<Memory<B>>(backend, bytes);
    return std::shared_ptr<std::byte>(block, block->data());
  };
  memory.upload = [&backend](std::span<const std::byte> from, std::byte* to) { rwkv::upload(backend, from, to); };
  memory.download = [&backend](const std::byte* from, std::span<std::byte> to) {
    const OnHost<B, std::byte> read(backend, std::span(from, to.size()));
    std::copy(read.begin(), read.end(), to.begin());
  };
  return memory;
}

/// Under this key a file says which composition wrote it, unless it is an official version.
inline constexpr std::string_view composition_key = "rwkv.composition";

/// Throws where a file says that a model of another composition wrote it.
void check_composition(const TensorFile& file, const std::string& composition, const LoadOptions& options);

/// Binds every parameter to its tensor, where it lies or converted, and returns what keeps them alive.
std::shared_ptr<const void> bind_to_file(std::span<StoredParameter> parameters, const OfficialNames& names,
                                         const WeightMemory& memory);

/// Binds the matrices that adapters change, which are bound, to new memory with the changed numbers. `fingerprint` is that of
/// the model, `weights` what keeps its weights alive. Returns what keeps all of them alive.
std::shared_ptr<const void> bind_adapted(std::span<StoredParameter> parameters, std::span<const Adapter> adapters,
                                         std::uint64_t fingerprint, std::shared_ptr<const void> weights,
                                         const WeightMemory& memory);

/// The number type that the file has each parameter in.
std::vector<DType> file_types(std::span<const StoredParameter> parameters, const OfficialNames& names);

/// Adds the sizes that the axes of a table name and a file's tensors have: hidden units, ranks.
void solve_sizes(std::span<const StoredParameter> parameters, const OfficialNames& names, ModelSizes& sizes);

/// A model of the sizes of a file, without weights. An error about sizes that no such model has names the file.
template <class Net>
Net unbound_for(const OfficialNames& names, const typename Net::backend& backend) {
  ModelSizes sizes = sizes_of_model(names);
#if defined(__cpp_exceptions)
  try {
    solve_sizes(Net::unbound(sizes, backend).stored_parameters(), names, sizes);
    return Net::unbound(sizes, backend);
  } catch (const Error& error) {
    std::string_view said = error.what();
    constexpr std::string_view without_file = "rwkv: ";
    if (!said.starts_with(without_file)) throw;
    said.remove_prefix(without_file.size());
    const std::string kind = kind_by_names(names);
    fail(path_text(names.file().path()), ": ", said, kind.empty() ? "" : "; ", kind);
  }
#else
  solve_sizes(Net::unbound(sizes, backend).stored_parameters(), names, sizes);
  return Net::unbound(sizes, backend);
#endif
}

}  // namespace detail

/// A model from an open checkpoint with official names, or with those of another program, which dialects.ipp lists. Its sizes
/// come from the shapes. Tensors that already are of the model's storage type and aligned are used where they lie, the others
/// are converted; an AsStored model takes every matrix as it is stored, quantised ones where its backend does (Reference,
/// Cpu). Memory that the caller keeps is always copied, and so is everything for a backend with memory of its own. Models
/// loaded from one open file share the weights they did not convert; nothing is ever written back to the file. How the file is
/// opened is settled, so only `check_values`, `ignore`, `note`, `other_composition` and `adapters` of the options count. All
/// or nothing: one Error lists every missing, unexpected, unreadable and mis-shaped tensor. A tensor that layer 0 has no use
/// for may be missing there; it is zero then.
template <class Net>
Net load_checkpoint(const TensorFile& file, const LoadOptions& options = {}, typename Net::backend backend = {}) {
  file.check_unchanged();
  detail::check_composition(file, composition<Net>(), options);
  const OfficialNames names(file);
  Net net = detail::unbound_for<Net>(names, backend);
  auto parameters = net.stored_parameters();
  detail::check_fit(parameters, names, options);
  constexpr bool keeps_types = std::is_same_v<typename Net::storage, AnyStorage>;
  auto types = keeps_types ? detail::file_types(parameters, names) : std::vector<DType>();
  auto owner = detail::bind_to_file(parameters, names, detail::weight_memory(backend));
  if (!options.adapters.empty()) {
    const auto whole = detail::fingerprint_of(std::span<const StoredParameter>(parameters), net.sizes(), backend);
    owner = detail::bind_adapted(parameters, options.adapters, whole, std::move(owner), detail::weight_memory(backend));
  }
  net.adopt(std::move(owner), std::move(types));
  if (options.note) {
    for (const std::string& note : detail::notes_on(names, net.sizes())) options.note(note);
  }
  return net;
}

/// A model from a .safetensors, .pth or .gguf file, an index of shards or a folder (see open_tensors); see above.
template <class Net>
Net load_checkpoint(const std::filesystem::path& path, const LoadOptions& options = {},
                    typename Net::backend backend = {}, FileSystem& files = system_files()) {
  return load_checkpoint<Net>(open_tensors(path, {options.access, options.verify_checksums}, files), options,
                              std::move(backend));
}

/// A model with adapters: it shares with `net` all weights but the changed matrices, which are in its storage type, or in the
/// computing type in an AsStored model. So one model serves contexts with different adapters, each a context of its own adapted
/// model, and every one of them runs as fast as without. save_checkpoint() saves it as any other.
/// Cost      the memory of the changed matrices
/// Errors    adapters for other matrices or shapes, or for a model with other weights
template <class Net>
Net adapted(const Net& net, std::span<const Adapter> adapters) {
  auto backend = net.device();
  backend.sync();
  Net made = Net::unbound(net.sizes(), backend);
  auto parameters = made.stored_parameters();
  const auto whole = net.stored_parameters();
  std::vector<DType> types;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    expects(whole[i].data != nullptr, "rwkv: the model has no weights: it is unbound, or was moved from");
    types.push_back(net.file_type(i, whole[i].dtype));
    parameters[i].bind(const_cast<void*>(whole[i].data), whole[i].dtype);
  }
  const auto fingerprint = detail::fingerprint_of(std::span<const StoredParameter>(whole), net.sizes(), backend);
  made.adopt(detail::bind_adapted(parameters, adapters, fingerprint, net.owner(), detail::weight_memory(backend)),
             std::move(types));
  return made;
}
/// A model with one adapter.
template <class Net>
Net adapted(const Net& net, const Adapter& adapter) {
  return adapted(net, std::span<const Adapter>(&adapter, 1));
}

namespace detail {
/// The bytes of a parameter on the host: themselves where the host reaches them, else copied to `copy`.
template <class B>
std::span<const std::byte> bytes_on_host([[maybe_unused]] B& backend, const StoredParameter& parameter,
                                         [[maybe_unused]] std::vector<std::byte>& copy) {
  const std::span bytes(static_cast<const std::byte*>(parameter.data), static_cast<std::size_t>(parameter.bytes()));
  if constexpr (host_reaches<B>) {
    return bytes;
  } else {
    const OnHost<B, std::byte> read(backend, bytes);
    copy.assign(read.begin(), read.end());
    return copy;
  }
}

/// The numbers of a parameter as another type, which may be quantised. Errors: a finite number that the type has no finite
/// number for, rows that are no whole blocks
std::vector<std::byte> rounded(std::span<const std::byte> bytes, const StoredParameter& parameter, DType to,
                               const std::filesystem::path& path);

/// The root of the mean square of what numbers differ by, over that of the exact numbers; 0 where these are zeros.
double relative_error(DType type, std::span<const std::byte> bytes, DType exact_type, std::span<const std::byte> exact,
                      std::size_t count);

/// Writes a model with every parameter in the type type_of(parameter, its type in the file it came from), and calls
/// written(parameter, its bytes, type, the bytes as that) for those of another type than in memory.
template <class Net, class TypeOf, class Written>
void save_as(const Net& net, const std::filesystem::path& path, const TypeOf& type_of, const Written& written,
             const std::map<std::string, std::string>& metadata, FileSystem& files) {
  std::vector<TensorView> tensors;
  std::deque<std::vector<std::byte>> copies;  // their numbers are pointed at
  auto backend = net.device();
  backend.sync();
  for (const StoredParameter& parameter : net.stored_parameters()) {
    const bool widened = !parameter.keeps_stored_type;  // when it was loaded
    const DType type = type_of(parameter, widened ? net.file_type(tensors.size(), parameter.dtype) : parameter.dtype);
    auto bytes = bytes_on_host(backend, parameter, copies.emplace_back());
    if (type != parameter.dtype) {
      auto numbers = rounded(bytes, parameter, type, path);
      written(parameter, bytes, type, std::span<const std::byte>(numbers));
      copies.back() = std::move(numbers);
      bytes = copies.back();
    }
    const Shape shape = parameter.file_shape();
    if (parameter.transposed) {
      std::vector<std::byte> turned(bytes.size());
      transpose_matrices(bytes.data(), size_of(type), shape.sizes[shape.rank - 1], shape.sizes[shape.rank - 2], turned);
      copies.back() = std::move(turned);
      bytes = copies.back();
    }
    tensors.push_back({parameter.name, type, {shape.span().begin(), shape.span().end()}, bytes});
  }
  auto texts = metadata;
  add_epsilons(net.sizes(), texts);
  texts.erase(std::string(composition_key));  // where the caller gives those of another file
  if (std::string own = composition<Net>(); !is_official(own)) texts.emplace(composition_key, std::move(own));
  save_safetensors(path, tensors, texts, files);
}

}  // namespace detail

/// Reads all weights of a model once.
/// Errors    NaN or infinite weights: one Error names each tensor that has any, and the first of them
template <class Net>
void validate(const Net& net) {
  std::vector<std::string> list;
  std::vector<std::byte> copy;
  auto backend = net.device();
  backend.sync();
  for (const StoredParameter& parameter : net.stored_parameters()) {
    expects(parameter.data != nullptr, "rwkv: the model has no weights: it is unbound, or was moved from");
    detail::add_not_finite(parameter, parameter.dtype, detail::bytes_on_host(backend, parameter, copy), list);
  }
  detail::expect_finite(list);
}

/// Writes a model as .safetensors with official names, in one step: the file is there whole or as it was before.
/// Weights are stored as they are, those of an AsStored model as in the file it came from, or rounded to Storage:
/// save_checkpoint<bf16>(net, path). What norms add to variances goes to the metadata where it is not the version's, and so
/// does the composition of a model that is no official version; models of another refuse the file.
/// Errors    a finite weight that Storage has no finite number for
template <class Storage = void, class Net>
void save_checkpoint(const Net& net, const std::filesystem::path& path,
                     const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files()) {
  const auto type_of = [](const StoredParameter&, DType in_file) {
    if constexpr (std::is_void_v<Storage>) return in_file;
    else return dtype_of<Storage>();
  };
  detail::save_as(
      net, path, type_of, [](auto&&...) {}, metadata, files);
}

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/adapter.ipp"
#include "rwkv/io/checkpoint.ipp"
#endif
