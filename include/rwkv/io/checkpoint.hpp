#pragma once
/// Models from and to checkpoint files.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
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
#include "rwkv/core/fields.hpp"
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

template <class T>
constexpr DType dtype_of() {
  static_assert(
      std::is_same_v<T, double> || std::is_same_v<T, float> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>,
      "rwkv: files hold weights as double, float, f16 or bf16");
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  else if constexpr (std::is_same_v<T, float>) return DType::f32;
  else if constexpr (std::is_same_v<T, f16>) return DType::f16;
  else return DType::bf16;
}

/// Calls f(T{}) with the C++ type of a floating-point dtype, and returns false for any other.
template <class F>
bool with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: f(double{}); return true;
    case DType::f32: f(float{}); return true;
    case DType::f16: f(f16{}); return true;
    case DType::bf16: f(bf16{}); return true;
    default: return false;
  }
}

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
    // x * 0 is 0 for finite x and NaN otherwise; only a block whose sum says so is searched.
    float probe = 0;
    for (std::size_t i = begin; i < end; ++i) probe += static_cast<float>(widen<double>(element_at<T>(bytes, i)) * 0.0);
    if (probe == 0) continue;
    for (std::size_t i = begin; i < end; ++i) {
      if (!std::isfinite(widen<double>(element_at<T>(bytes, i)))) return i;
    }
  }
  return count;
}

/// Writes a tensor's numbers to the memory of a backend, in its type.
template <class B, class To>
void convert(B& be, const TensorView& tensor, std::span<To> to) {
  with_type(tensor.dtype, [&]<class From>(From) {
    write_numbers(be, to, [&](std::size_t i) { return narrow<To>(widen<double>(element_at<From>(tensor.bytes, i))); });
  });
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
template <class T>
void check_fit(std::span<const T> parameters, const TensorFile& file, bool check_values) {
  Mismatches wrong(file);
  std::set<std::string_view> known;
  for (const TensorSpec& spec : parameters) {
    known.insert(spec.name);
    const TensorView* tensor = file.find(spec.name);
    if (tensor == nullptr) {
      wrong.add(spec.name, ": missing from the file, the model expects ", spec.shape.span());
    } else if (!std::ranges::equal(tensor->shape, spec.shape.span())) {
      wrong.add(spec.name, ": file has ", std::span(tensor->shape), ", model expects ", spec.shape.span());
    } else if (!with_type(tensor->dtype, [](auto) {})) {
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

}  // namespace detail

/// A model from an open checkpoint with official names. Its sizes come from the shapes. Tensors that already are of the
/// model's storage type and aligned are used where they lie, the others are converted; memory that the caller keeps is
/// always copied, and so is everything for a backend with memory of its own. Models loaded from one open file share the
/// weights they did not convert; nothing is ever written back to the file. How the file is opened is settled, so only
/// `check_values` of the options counts. All or nothing: one Error lists every missing, unexpected and mis-shaped
/// tensor.
template <class Net>
Net load_checkpoint(const TensorFile& file, const LoadOptions& options = {}, typename Net::backend backend = {}) {
  using storage = typename Net::storage;
  file.check_unchanged();
  Net net = Net::unbound(sizes_of_model(file), backend);
  auto parameters = net.parameters();
  detail::check_fit(std::span(std::as_const(parameters)), file, options.check_values);

  const auto usable = [&](const TensorView& tensor) {
    return host_reaches<typename Net::backend> && file.keep_alive() != nullptr &&
           tensor.dtype == detail::dtype_of<storage>() &&
           reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(storage) == 0;
  };
  Index converted = 0;
  for (const auto& parameter : parameters) {
    if (!usable(*file.find(parameter.name))) converted += parameter.shape.count();
  }

  struct Owner {
    std::shared_ptr<const void> file;
    Memory<typename Net::backend> memory;
  };
  const auto allocate = [&] {
    try {
      return Memory<typename Net::backend>(backend, converted * Index{sizeof(storage)});
    } catch (const std::bad_alloc&) {
      fail(detail::path_text(file.path()), ": no memory for ", converted, " converted weights");
    }
  };
  std::shared_ptr<Owner> owner(new Owner{file.keep_alive(), allocate()});
  storage* next = reinterpret_cast<storage*>(owner->memory.data());
  for (auto& parameter : parameters) {
    const TensorView& tensor = *file.find(parameter.name);
    if (usable(tensor)) {
      // The bytes belong to this process alone, copied or mapped privately, so a model may also be trained in place.
      parameter.bind(reinterpret_cast<storage*>(const_cast<std::byte*>(tensor.bytes.data())));
    } else {
      parameter.bind(next);
      next += parameter.shape.count();
      detail::convert(backend, tensor, parameter.numbers());
    }
  }
  net.adopt(std::move(owner));
  return net;
}

/// A model from a .safetensors or .pth file with official names; see above.
template <class Net>
Net load_checkpoint(const std::filesystem::path& path, const LoadOptions& options = {},
                    typename Net::backend backend = {}, FileSystem& files = system_files()) {
  return load_checkpoint<Net>(open_tensors(path, {options.access, options.verify_checksums}, files), options,
                              std::move(backend));
}

/// Writes a model as .safetensors with official names, in one step: the file is there whole or as it was before.
/// Weights are stored as they are, or rounded to Storage: save_checkpoint<bf16>(net, path).
/// Errors    a finite weight that Storage has no finite number for
template <class Storage = void, class Net>
void save_checkpoint(const Net& net, const std::filesystem::path& path,
                     const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files()) {
  using From = typename Net::storage;
  using To = std::conditional_t<std::is_void_v<Storage>, From, Storage>;
  std::vector<TensorView> tensors;
  std::vector<std::vector<To>> rounded;
  std::deque<OnHost<typename Net::backend, From>> read;  // in place: their numbers are pointed at
  auto backend = net.device();
  for (const auto& parameter : net.parameters()) {
    const auto shape = parameter.shape.span();
    const auto numbers = read.emplace_back(backend, parameter.numbers()).numbers();
    auto bytes = std::as_bytes(numbers);
    if constexpr (!std::is_same_v<From, To>) {
      auto& copy = rounded.emplace_back(numbers.size());
      for (std::size_t i = 0; i < copy.size(); ++i) {
        const double exact = widen<double>(numbers[i]);
        copy[i] = narrow<To>(exact);
        expects(std::isfinite(widen<double>(copy[i])) || !std::isfinite(exact), detail::path_text(path), ": ",
                parameter.name, ": element ", i, ", ", exact, ", is too large for ", name_of(detail::dtype_of<To>()));
      }
      bytes = std::as_bytes(std::span(std::as_const(copy)));
      read.clear();
    }
    tensors.push_back({parameter.name, detail::dtype_of<To>(), {shape.begin(), shape.end()}, bytes});
  }
  save_safetensors(path, tensors, metadata, files);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
