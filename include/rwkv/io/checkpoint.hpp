#pragma once
/// Models from and to checkpoint files.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <set>
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
#include "rwkv/core/finite.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/io/safetensors.hpp"
#include "rwkv/io/tensor_file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a checkpoint is loaded.
struct LoadOptions {
  Access access = Access::automatic;  ///< copied into memory, or mapped
  bool verify_checksums = true;       ///< check the sums of a .pth, which reads all of it once
  bool check_values = true;           ///< refuse NaN and infinite weights, which reads all of them once
};

namespace detail {

/// Element i of a tensor whose bytes may not be aligned.
template <class T>
T element_at(std::span<const std::byte> bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

/// The first element that is NaN or infinite, or the number of elements.
template <class T>
std::size_t first_not_finite(std::span<const std::byte> bytes) {
  const std::size_t count = bytes.size() / sizeof(T);
  constexpr std::size_t block = 4096;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t end = std::min(count, begin + block);
    bool finite = true;  // of all, without a branch for each
    for (std::size_t i = begin; i < end; ++i) finite &= is_finite(element_at<T>(bytes, i));
    if (finite) continue;
    for (std::size_t i = begin; i < end; ++i) {
      if (!is_finite(element_at<T>(bytes, i))) return i;
    }
  }
  return count;
}

/// Converts `count` numbers of one type to another, by way of double; neither side need be aligned.
inline void convert(DType from_type, const std::byte* from, DType to_type, std::byte* to, std::size_t count) {
  constexpr std::size_t block = 512;
  double numbers[block];
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t here = std::min(block, count - begin);
    with_type(from_type, [&]<class From>(From) {
      const std::span bytes(from + begin * sizeof(From), here * sizeof(From));
      for (std::size_t i = 0; i < here; ++i) numbers[i] = widen<double>(element_at<From>(bytes, i));
    });
    with_type(to_type, [&]<class To>(To) {
      for (std::size_t i = 0; i < here; ++i) {
        const To number = narrow<To>(numbers[i]);
        std::memcpy(to + (begin + i) * sizeof(To), &number, sizeof(To));
      }
    });
  }
}

/// Everything that keeps a file from being a certain model, one line each.
class Mismatches {
 public:
  explicit Mismatches(const TensorFile& file) : file_(file) {}

  template <class... Parts>
  void add(const Parts&... parts) {
    if (++count_ <= shown) lines_ += join("\n  ", parts...);
  }
  void raise() const {
    if (count_ == 0) return;
    const std::string_view version = version_named_by(file_);
    fail(path_text(file_.path()), ": the checkpoint does not fit the model in ", count_,
         count_ == 1 ? " place" : " places", version.empty() ? "" : join(" (by its names it holds ", version, ")"), ":",
         lines_, count_ > shown ? join("\n  and ", count_ - shown, " more") : "");
  }

 private:
  static constexpr int shown = 40;
  const TensorFile& file_;
  std::string lines_;
  int count_ = 0;
};

/// Compares every tensor of the file with every parameter of the model: names, shapes, number types and values.
inline void check_fit(std::span<const StoredParameter> parameters, const TensorFile& file, bool check_values) {
  Mismatches wrong(file);
  std::set<std::string_view> known;
  for (const TensorSpec& spec : parameters) {
    known.insert(spec.name);
    const TensorView* tensor = file.find(spec.name);
    if (tensor == nullptr) {
      wrong.add(spec.name, ": missing from the file, the model expects ", spec.shape.span());
    } else if (!std::ranges::equal(tensor->shape, spec.shape.span())) {
      wrong.add(spec.name, ": file has ", std::span(tensor->shape), ", model expects ", spec.shape.span());
    } else if (!is_floating(tensor->dtype)) {
      wrong.add(spec.name, ": file has ", name_of(tensor->dtype), " numbers, weights are F64, F32, F16 or BF16");
    }
  }
  file.for_each([&](const TensorView& tensor) {
    if (!known.contains(tensor.name)) {
      wrong.add(in_quotes(tensor.name), ": unexpected, the model has no such tensor; file has ",
                std::span(tensor.shape));
    }
  });
  wrong.raise();
  if (!check_values) return;
  for (const TensorSpec& spec : parameters) {
    const TensorView& tensor = *file.find(spec.name);
    with_type(tensor.dtype, [&]<class Number>(Number) {
      const std::size_t at = first_not_finite<Number>(tensor.bytes);
      if (at < tensor.bytes.size() / sizeof(Number)) wrong.add(spec.name, ": element ", at, " is not a finite number");
    });
  }
  wrong.raise();
}

/// The memory that a model's weights go to when they cannot stay where the file has them.
struct WeightMemory {
  bool host_reaches = true;  ///< whether weights may stay in the file's memory, and the host writes to this one
  std::function<std::shared_ptr<std::byte>(Index bytes)> allocate;
  std::function<void(std::span<const std::byte> from, std::byte* to)> upload;  ///< unless the host reaches it
};

template <class B>
WeightMemory weight_memory(B& backend) {
  WeightMemory memory{host_reaches<B>, {}, {}};
  memory.allocate = [&backend](Index bytes) {
    auto block = std::make_shared<Memory<B>>(backend, bytes);
    return std::shared_ptr<std::byte>(block, block->data());
  };
  memory.upload = [&backend](std::span<const std::byte> from, std::byte* to) { rwkv::upload(backend, from, to); };
  return memory;
}

/// Binds every parameter to its tensor, where it lies or converted, and returns what keeps them alive.
inline std::shared_ptr<const void> bind_to_file(std::span<StoredParameter> parameters, const TensorFile& file,
                                                const WeightMemory& memory) {
  const auto type_for = [](const StoredParameter& parameter, const TensorView& tensor) {
    const bool kept = parameter.keeps_stored_type && size_of(tensor.dtype) <= size_of(parameter.dtype);
    return kept ? tensor.dtype : parameter.dtype;
  };
  const auto usable = [&](const StoredParameter& parameter, const TensorView& tensor) {
    return memory.host_reaches && file.keep_alive() != nullptr && tensor.dtype == type_for(parameter, tensor) &&
           reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % size_of(tensor.dtype) == 0;
  };
  constexpr Index alignment = 8;  // of the largest number
  const auto room_for = [&](const StoredParameter& parameter, const TensorView& tensor) {
    const Index bytes = parameter.shape.count() * static_cast<Index>(size_of(type_for(parameter, tensor)));
    return (bytes + alignment - 1) / alignment * alignment;
  };
  Index converted = 0, room = 0;
  for (const StoredParameter& parameter : parameters) {
    const TensorView& tensor = *file.find(parameter.name);
    if (usable(parameter, tensor)) continue;
    converted += parameter.shape.count();
    room += room_for(parameter, tensor);
  }

  struct Owner {
    std::shared_ptr<const void> file;
    std::shared_ptr<std::byte> converted;
  };
  const auto allocate = [&] {
    try {
      return memory.allocate(room);
    } catch (const std::bad_alloc&) {
      fail(path_text(file.path()), ": no memory for ", converted, " converted weights");
    }
  };
  std::shared_ptr<Owner> owner(new Owner{file.keep_alive(), allocate()});
  std::byte* next = owner->converted.get();
  std::vector<std::byte> staged;  // on the way to memory that the host does not reach
  for (StoredParameter& parameter : parameters) {
    const TensorView& tensor = *file.find(parameter.name);
    const DType type = type_for(parameter, tensor);
    if (usable(parameter, tensor)) {
      // The bytes belong to this process alone, copied or mapped privately, so a model may also be trained in place.
      parameter.bind(const_cast<std::byte*>(tensor.bytes.data()), type);
      continue;
    }
    const auto count = static_cast<std::size_t>(parameter.shape.count());
    parameter.bind(next, type);
    if (memory.host_reaches) {
      convert(tensor.dtype, tensor.bytes.data(), type, next, count);
    } else {
      staged.resize(count * size_of(type));
      convert(tensor.dtype, tensor.bytes.data(), type, staged.data(), count);
      memory.upload(staged, next);
    }
    next += room_for(parameter, tensor);
  }
  return owner;
}

}  // namespace detail

/// A model from an open checkpoint with official names. Its sizes come from the shapes. Tensors that already are of the
/// model's storage type and aligned are used where they lie, the others are converted; an AsStored model takes every
/// matrix as it is stored. Memory that the caller keeps is always copied, and so is everything for a backend with
/// memory of its own. Models loaded from one open file share the weights they did not convert; nothing is ever written
/// back to the file. How the file is opened is settled, so only `check_values` of the options counts. All or nothing:
/// one Error lists every missing, unexpected and mis-shaped tensor.
template <class Net>
Net load_checkpoint(const TensorFile& file, const LoadOptions& options = {}, typename Net::backend backend = {}) {
  file.check_unchanged();
  Net net = Net::unbound(sizes_of_model(file), backend);
  auto parameters = net.stored_parameters();
  detail::check_fit(parameters, file, options.check_values);
  std::vector<DType> file_types;
  for (const StoredParameter& parameter : parameters) file_types.push_back(file.find(parameter.name)->dtype);
  net.adopt(detail::bind_to_file(parameters, file, detail::weight_memory(backend)),
            std::is_same_v<typename Net::storage, AnyStorage> ? std::move(file_types) : std::vector<DType>());
  return net;
}

/// A model from a .safetensors or .pth file with official names; see above.
template <class Net>
Net load_checkpoint(const std::filesystem::path& path, const LoadOptions& options = {},
                    typename Net::backend backend = {}, FileSystem& files = system_files()) {
  return load_checkpoint<Net>(open_tensors(path, {options.access, options.verify_checksums}, files), options,
                              std::move(backend));
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

/// The numbers of a parameter as another type. Errors: a finite number that the type has no finite number for.
inline std::vector<std::byte> rounded(std::span<const std::byte> bytes, const StoredParameter& parameter, DType to,
                                      const std::filesystem::path& path) {
  const auto count = static_cast<std::size_t>(parameter.shape.count());
  std::vector<std::byte> numbers(count * size_of(to));
  convert(parameter.dtype, bytes.data(), to, numbers.data(), count);
  with_type(to, [&]<class To>(To) {
    for (std::size_t i = first_not_finite<To>(numbers); i < count; ++i) {
      with_type(parameter.dtype, [&]<class From>(From) {
        const auto exact = widen<double>(element_at<From>(bytes, i));
        expects(is_finite(element_at<To>(numbers, i)) || !is_finite(exact), path_text(path), ": ", parameter.name,
                ": element ", i, ", ", exact, ", is too large for ", name_of(to));
      });
    }
  });
  return numbers;
}
}  // namespace detail

/// Writes a model as .safetensors with official names, in one step: the file is there whole or as it was before.
/// Weights are stored as they are, those of an AsStored model as in the file it came from, or rounded to Storage:
/// save_checkpoint<bf16>(net, path).
/// Errors    a finite weight that Storage has no finite number for
template <class Storage = void, class Net>
void save_checkpoint(const Net& net, const std::filesystem::path& path,
                     const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files()) {
  std::vector<TensorView> tensors;
  std::deque<std::vector<std::byte>> copies;  // their numbers are pointed at
  auto backend = net.device();
  backend.sync();
  for (const StoredParameter& parameter : net.stored_parameters()) {
    DType type = net.file_type(tensors.size(), parameter.dtype);
    if constexpr (!std::is_void_v<Storage>) type = dtype_of<Storage>();
    auto bytes = detail::bytes_on_host(backend, parameter, copies.emplace_back());
    if (type != parameter.dtype) {
      copies.back() = detail::rounded(bytes, parameter, type, path);
      bytes = copies.back();
    }
    const auto shape = parameter.shape.span();
    tensors.push_back({parameter.name, type, {shape.begin(), shape.end()}, bytes});
  }
  save_safetensors(path, tensors, metadata, files);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
