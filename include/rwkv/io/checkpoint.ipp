#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <set>
#include <string_view>

#include "rwkv/core/block_formats.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/quantise.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/system/glob.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// The block that starts at that byte.
template <QuantisedBlock Block>
Block block_at(const std::byte* from) {
  Block block;
  std::memcpy(&block, from, sizeof(Block));
  return block;
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
    advance(Unit::bytes, 0);
    if (finite) continue;
    for (std::size_t i = begin; i < end; ++i) {
      if (!is_finite(element_at<T>(bytes, i))) return i;
    }
  }
  return count;
}

/// The same for quantised numbers. Levels are finite, and too small to make a product infinite.
template <QuantisedBlock Block>
std::size_t first_not_finite(std::span<const std::byte> bytes) {
  std::size_t at = 0;
  for (std::size_t begin = 0; begin < bytes.size(); begin += sizeof(Block)) {
    const auto block = block_at<Block>(bytes.data() + begin);
    if (at % 65536 == 0) advance(Unit::bytes, 0);
    for (int g = 0; g < Block::length / Block::group; ++g, at += Block::group) {
      bool finite = is_finite(block.scale(g));
      if constexpr (Block::has_offset) finite = finite && is_finite(block.offset(g));
      if (!finite) return at;
    }
  }
  return at;
}

RWKV_BODY std::size_t first_not_finite(DType type, std::span<const std::byte> numbers) {
  std::size_t at = 0;
  with_type(type, [&]<class Number>(Number) { at = first_not_finite<Number>(numbers); });
  with_block(type, [&]<class Block>(Block) { at = first_not_finite<Block>(numbers); });
  return at;
}

/// Widens `count` numbers to double. In blocks, `count` is a multiple of their length.
inline void read_numbers(DType dtype, const std::byte* from, std::size_t count, double* to) {
  with_type(dtype, [&]<class Number>(Number) {
    const std::span bytes(from, count * sizeof(Number));
    for (std::size_t i = 0; i < count; ++i) to[i] = widen<double>(element_at<Number>(bytes, i));
  });
  with_block(dtype, [&]<class Block>(Block) {
    float numbers[Block::length];
    for (std::size_t i = 0; i < count; i += Block::length, from += sizeof(Block)) {
      dequantise(block_at<Block>(from), numbers);
      std::copy(numbers, numbers + Block::length, to + i);
    }
  });
}

/// Number i of a tensor.
inline double number_at(DType dtype, const std::byte* from, std::size_t i) {
  const auto length = static_cast<std::size_t>(length_of(dtype));
  std::vector<double> numbers(length);
  read_numbers(dtype, from + i / length * size_of(dtype), length, numbers.data());
  return numbers[i % length];
}

RWKV_BODY void add_not_finite(const TensorSpec& spec, DType type, std::span<const std::byte> numbers,
                              std::vector<std::string>& list) {
  const std::size_t at = first_not_finite(type, numbers);
  if (at == static_cast<std::size_t>(spec.shape.count())) return;
  list.push_back(join(spec.name, ": element ", at, " is ", number_at(type, numbers.data(), at)));
}

RWKV_BODY void expect_finite(std::span<const std::string> list) {
  if (list.empty()) return;
  std::string lines;
  for (const std::string& line : list) lines += "\n  " + line;
  fail("rwkv: ", list.size(), list.size() == 1 ? " tensor of the model is" : " tensors of the model are",
       " not finite:", lines);
}

/// Everything that keeps a file from being a certain model, one line each.
class Mismatches {
 public:
  explicit Mismatches(const OfficialNames& names) : names_(names) {}

  template <class... Parts>
  void add(const Parts&... parts) {
    if (++count_ <= shown) lines_ += join("\n  ", parts...);
  }
  void raise() const {
    if (count_ == 0) return;
    const OfficialVersion* version = version_named_by(names_);
    const std::string kind = kind_by_names(names_);
    fail(path_text(names_.file().path()), ": the checkpoint does not fit the model in ", count_,
         count_ == 1 ? " place" : " places",
         version == nullptr ? "" : join(" (by its names it holds ", version->name, ")"), kind.empty() ? "" : "; ", kind,
         ":", lines_, count_ > shown ? join("\n  and ", count_ - shown, " more") : "");
  }

 private:
  static constexpr int shown = 40;
  const OfficialNames& names_;
  std::string lines_;
  int count_ = 0;
};

RWKV_BODY void convert(DType from_type, const std::byte* from, DType to_type, std::byte* to, std::size_t count,
                       double scale) {
  constexpr std::size_t some = 512;  // whole blocks of every type
  double numbers[some];
  const auto length = static_cast<std::size_t>(length_of(from_type));
  for (std::size_t begin = 0; begin < count; begin += some) {
    const std::size_t here = std::min(some, count - begin);
    read_numbers(from_type, from + begin / length * size_of(from_type), here, numbers);
    for (std::size_t i = 0; i < here && scale != 1; ++i) numbers[i] *= scale;
    with_type(to_type, [&]<class To>(To) {
      for (std::size_t i = 0; i < here; ++i) {
        const To number = narrow<To>(numbers[i]);
        std::memcpy(to + (begin + i) * sizeof(To), &number, sizeof(To));
      }
    });
    advance(Unit::bytes, static_cast<Index>(bytes_of(from_type, here)));
  }
}

RWKV_BODY void solve_sizes(std::span<const StoredParameter> parameters, const OfficialNames& names, ModelSizes& sizes) {
  // The first tensor that has an axis decides, so from the last one on; those without use only where there is no other.
  for (const bool unused : {true, false}) {
    for (std::size_t i = parameters.size(); i-- > 0;) {
      if (parameters[i].unused() != unused) continue;
      const std::vector<Index>* shape = names.shape_of(parameters[i].name);
      if (shape == nullptr) continue;
      const bool possible =
          std::all_of(shape->begin(), shape->end(), [](Index size) { return 0 < size && size <= largest_size; });
      if (possible) set_sizes(sizes, parameters[i], *shape);
    }
  }
}

/// Whether a tensor has the shape of a parameter; axes of size one may be missing from a vector, or be added to it.
inline bool has_shape(const TensorSpec& spec, std::span<const Index> in_file) {
  const Shape shape = spec.file_shape();
  if (same_sizes(in_file, shape.span())) return true;
  if (spec.role != Role::vector) return false;
  const auto next = [](std::span<const Index> sizes, std::size_t i) {
    while (i < sizes.size() && sizes[i] == 1) ++i;
    return i;
  };
  const std::span<const Index> own = shape.span();
  std::size_t i = next(in_file, 0), j = next(own, 0);
  while (i < in_file.size() && j < own.size() && in_file[i] == own[j]) {
    i = next(in_file, i + 1);
    j = next(own, j + 1);
  }
  return i == in_file.size() && j == own.size();
}

/// What the parameters have in the file.
inline Index bytes_in_file(std::span<const StoredParameter> parameters, const OfficialNames& names) {
  Index bytes = 0;
  for (const TensorSpec& spec : parameters) {
    if (const OfficialTensor* tensor = names.find(spec.name); tensor != nullptr) bytes += std::ssize(tensor->bytes);
  }
  return bytes;
}

RWKV_BODY void check_fit(std::span<const StoredParameter> parameters, const OfficialNames& names,
                         const LoadOptions& options) {
  Mismatches wrong(names);
  std::set<std::string_view> known;
  for (const TensorSpec& spec : parameters) {
    known.insert(spec.name);
    const OfficialTensor* tensor = names.find(spec.name);
    const Shape shape = spec.file_shape();
    if (tensor == nullptr) {
      if (!spec.unused())
        wrong.add(spec.name, ": ", why_missing(names, spec.name), ", the model expects ", shape.span());
    } else if (tensor->unreadable != nullptr) {
      wrong.add(tensor->label(), ": cannot be read: ", tensor->unreadable->reason);
    } else if (!has_shape(spec, *tensor->shape)) {
      const std::vector<Index> sizes = tensor->shape_in_file();
      const Shape wanted = tensor->turned && shape.rank >= 2 ? transposed(shape) : shape;
      wrong.add(tensor->label(), ": file has ", std::span(sizes), ", model expects ", wanted.span());
    } else if (!is_floating(tensor->dtype) && !is_quantised(tensor->dtype)) {
      wrong.add(tensor->label(), ": file has ", name_of(tensor->dtype), " numbers, weights are F64, F32, F16 or BF16");
    }
  }
  for (const std::string& pattern : options.ignore) glob_matches(pattern, "");  // an error in it shows at once
  for (const OfficialTensor& tensor : names.tensors()) {
    const auto fits = [&](const std::string& pattern) { return glob_matches(pattern, tensor.in_file); };
    if (known.contains(tensor.name) || std::any_of(options.ignore.begin(), options.ignore.end(), fits)) continue;
    if (tensor.unreadable == nullptr) {
      const std::vector<Index> sizes = tensor.shape_in_file();
      wrong.add(in_quotes(tensor.in_file), ": unexpected, the model has no such tensor; file has ", std::span(sizes));
    } else {
      wrong.add(in_quotes(tensor.in_file),
                ": unexpected, the model has no such tensor, and it cannot be read: ", tensor.unreadable->reason);
    }
  }
  wrong.raise();
  if (!options.check_values) return;
  Reporting reporting(Phase::load, bytes_in_file(parameters, names));
  for (const TensorSpec& spec : parameters) {
    const OfficialTensor* tensor = names.find(spec.name);
    if (tensor == nullptr) continue;
    const std::size_t at = first_not_finite(tensor->dtype, tensor->bytes);
    advance(Unit::bytes, std::ssize(tensor->bytes));
    const auto count = static_cast<std::size_t>(spec.file_shape().count());
    if (at < count) wrong.add(tensor->label(), ": element ", at, " is not a finite number");
  }
  wrong.raise();
}

RWKV_BODY void check_composition(const TensorFile& file, const std::string& composition, const LoadOptions& options) {
  const auto found = file.metadata().find(std::string(composition_key));
  if (options.other_composition || found == file.metadata().end() || found->second == composition) return;
  fail(path_text(file.path()), ": the file was written by a model composed of ", in_quotes(found->second),
       ", this one is ", in_quotes(composition), "; LoadOptions::other_composition loads it all the same");
}

/// Throws when a finite number was converted, or multiplied and converted, to one that is not.
inline void check_range(const std::byte* from, DType from_type, double scale, std::span<const std::byte> to,
                        DType to_type, std::string_view name, const std::filesystem::path& path) {
  with_type(to_type, [&]<class To>(To) {
    const std::size_t count = to.size() / sizeof(To);
    for (std::size_t i = first_not_finite<To>(to); i < count; ++i) {
      if (is_finite(element_at<To>(to, i))) continue;
      const double exact = number_at(from_type, from, i);
      expects(!is_finite(exact), path_text(path), ": ", name, ": element ", i, ", ", exact * scale,
              ", is too large for ", name_of(to_type));
    }
  });
}

RWKV_BODY std::vector<DType> file_types(std::span<const StoredParameter> parameters, const OfficialNames& names) {
  std::vector<DType> types;
  for (const StoredParameter& parameter : parameters) {
    const OfficialTensor* tensor = names.find(parameter.name);
    const bool has_type = tensor != nullptr && is_floating(tensor->dtype);
    types.push_back(has_type ? tensor->dtype : parameter.dtype);
  }
  return types;
}

RWKV_BODY std::shared_ptr<const void> bind_to_file(std::span<StoredParameter> parameters, const OfficialNames& names,
                                                   const WeightMemory& memory) {
  const TensorFile& file = names.file();
  const auto type_for = [](const StoredParameter& parameter, const OfficialTensor* tensor) {
    if (tensor == nullptr || !parameter.takes(tensor->dtype)) return parameter.dtype;
    const bool as_it_is = parameter.transposed == tensor->turned && tensor->scale == 1;
    return is_quantised(tensor->dtype) && !as_it_is ? parameter.dtype : tensor->dtype;
  };
  const auto usable = [&](const StoredParameter& parameter, const OfficialTensor* tensor) {
    return tensor != nullptr && parameter.transposed == tensor->turned && tensor->scale == 1 && memory.host_reaches &&
           file.keep_alive() != nullptr && tensor->dtype == type_for(parameter, tensor) &&
           reinterpret_cast<std::uintptr_t>(tensor->bytes.data()) % alignment_of(tensor->dtype) == 0;
  };
  constexpr Index alignment = 8;  // of the largest number
  const auto room_for = [&](const StoredParameter& parameter, const OfficialTensor* tensor) {
    const auto count = static_cast<std::size_t>(parameter.shape.count());
    const auto bytes = static_cast<Index>(bytes_of(type_for(parameter, tensor), count));
    return (bytes + alignment - 1) / alignment * alignment;
  };
  [[maybe_unused]] Index converted = 0;  // for an error that a build without exceptions cannot raise
  Index room = 0;
  for (const StoredParameter& parameter : parameters) {
    const OfficialTensor* tensor = names.find(parameter.name);
    if (usable(parameter, tensor)) continue;
    converted += parameter.shape.count();
    room += room_for(parameter, tensor);
  }

  struct Owner {
    std::shared_ptr<const void> file;
    std::shared_ptr<std::byte> converted;
  };
  const auto allocate = [&] {
#if defined(__cpp_exceptions)
    try {
      return memory.allocate(room);
    } catch (const std::bad_alloc&) {
      fail(path_text(file.path()), ": no memory for ", converted, " converted weights");
    }
#else
    return memory.allocate(room);
#endif
  };
  std::shared_ptr<Owner> owner(new Owner{file.keep_alive(), allocate()});
  Reporting reporting(Phase::load, bytes_in_file(std::span<const StoredParameter>(parameters), names));
  std::byte* next = owner->converted.get();
  std::vector<std::byte> staged;           // on the way to memory that the host does not reach
  std::vector<std::byte> widened, turned;  // with numbers one by one; with axes exchanged
  for (StoredParameter& parameter : parameters) {
    const OfficialTensor* tensor = names.find(parameter.name);
    const DType type = type_for(parameter, tensor);
    if (usable(parameter, tensor)) {
      // The bytes belong to this process alone, copied or mapped privately, so a model may also be trained in place.
      parameter.bind(const_cast<std::byte*>(tensor->bytes.data()), type);
      advance(Unit::bytes, std::ssize(tensor->bytes));
      continue;
    }
    const auto count = static_cast<std::size_t>(parameter.shape.count());
    parameter.bind(next, type);
    std::span<std::byte> to(next, bytes_of(type, count));
    if (!memory.host_reaches) {
      staged.resize(to.size());
      to = staged;
    }
    if (tensor == nullptr) {  // zero in every number type
      std::fill(to.begin(), to.end(), std::byte(0));
    } else if (is_quantised(type)) {
      std::copy(tensor->bytes.begin(), tensor->bytes.end(), to.begin());
      advance(Unit::bytes, std::ssize(tensor->bytes));
    } else {
      const std::byte* from = tensor->bytes.data();
      DType from_type = tensor->dtype;
      if (parameter.transposed != tensor->turned && is_quantised(from_type)) {
        widened.resize(count * sizeof(float));
        convert(from_type, from, DType::f32, widened.data(), count);
        from = widened.data();
        from_type = DType::f32;
      }
      if (parameter.transposed != tensor->turned) {
        turned.resize(count * size_of(from_type));
        const std::vector<Index> shape = tensor->shape_in_file();
        transpose_matrices(from, size_of(from_type), shape.end()[-2], shape.end()[-1], turned);
        from = turned.data();
      }
      convert(from_type, from, type, to.data(), count, tensor->scale);
      check_range(from, from_type, tensor->scale, to, type, tensor->label(), file.path());
    }
    if (!memory.host_reaches) memory.upload(staged, next);
    next += room_for(parameter, tensor);
  }
  reporting.finish();
  return owner;
}

/// The numbers of a parameter in blocks.
inline std::vector<std::byte> quantised(std::span<const std::byte> bytes, const StoredParameter& parameter, DType to,
                                        const std::filesystem::path& path) {
  const auto count = static_cast<std::size_t>(parameter.shape.count());
  const Index row = parameter.shape.sizes[parameter.shape.rank - 1];
  expects(can_quantise_to(to), "rwkv: numbers are quantised to Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0, not to ", name_of(to));
  expects(row % length_of(to) == 0, path_text(path), ": ", parameter.name, ": rows of ", row,
          " numbers are no whole blocks of ", name_of(to), ", which have ", length_of(to));
  std::vector<std::byte> blocks(bytes_of(to, count));
  with_block(to, [&]<class Block>(Block block) {
    if constexpr (can_quantise_to(Block::dtype)) {
      constexpr std::size_t some = 512;  // whole blocks of every type
      float numbers[some];
      std::byte* next = blocks.data();
      for (std::size_t begin = 0; begin < count; begin += some) {
        const std::size_t here = std::min(some, count - begin);
        const std::byte* from = bytes.data() + bytes_of(parameter.dtype, begin);
        convert(parameter.dtype, from, DType::f32, reinterpret_cast<std::byte*>(numbers), here);
        for (std::size_t i = 0; i < here; i += Block::length, next += sizeof(Block)) {
          quantise(std::span<const float, Block::length>(numbers + i, Block::length), block);
          std::memcpy(next, &block, sizeof(Block));
        }
      }
    }
  });
  const std::size_t at = first_not_finite(to, blocks);
  expects(at == count || first_not_finite(parameter.dtype, bytes) != count, path_text(path), ": ", parameter.name,
          ": the block of element ", at, " has a number that is too large for ", name_of(to));
  return blocks;
}

RWKV_BODY std::vector<std::byte> rounded(std::span<const std::byte> bytes, const StoredParameter& parameter, DType to,
                                         const std::filesystem::path& path) {
  const auto count = static_cast<std::size_t>(parameter.shape.count());
  if (is_quantised(to)) return quantised(bytes, parameter, to, path);
  std::vector<std::byte> numbers(count * size_of(to));
  convert(parameter.dtype, bytes.data(), to, numbers.data(), count);
  check_range(bytes.data(), parameter.dtype, 1, numbers, to, parameter.name, path);
  return numbers;
}

RWKV_BODY double relative_error(DType type, std::span<const std::byte> bytes, DType exact_type,
                                std::span<const std::byte> exact, std::size_t count) {
  constexpr std::size_t some = 512;  // whole blocks of every type
  double numbers[some], wanted[some], error = 0, sum = 0;
  for (std::size_t begin = 0; begin < count; begin += some) {
    const std::size_t here = std::min(some, count - begin);
    read_numbers(type, bytes.data() + bytes_of(type, begin), here, numbers);
    read_numbers(exact_type, exact.data() + bytes_of(exact_type, begin), here, wanted);
    for (std::size_t i = 0; i < here; ++i) {
      error += (numbers[i] - wanted[i]) * (numbers[i] - wanted[i]);
      sum += wanted[i] * wanted[i];
    }
    advance(Unit::bytes, 0);
  }
  return sum == 0 ? 0 : std::sqrt(error / sum);
}
}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
