#pragma once
/// What the machine of pickle.hpp has on its stack, and the tensors that come out of it.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "rwkv/core/dtype.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/io/pickle_globals.hpp"
#include "rwkv/io/tensor.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A tensor as the pickle describes it: a strided view of a storage. Counts are elements. Texts are views of the
/// pickle. Of a tensor that cannot be read, only the name and perhaps the shape are known.
struct PickledTensor {
  std::string_view name;
  std::string unreadable;  // why; empty for all others
  bool has_shape;
  DType dtype;
  std::string_view storage;
  std::uint64_t storage_size;
  std::uint64_t offset;
  std::vector<Index> shape;
  std::vector<Index> strides;
};

/// The values of the machine, and how many there may be. Numbers name what it keeps in lists.
struct PickleValues {
  static constexpr std::size_t max_pickle = std::size_t{32} << 20;
  static constexpr std::size_t max_text = 65536;
  static constexpr std::size_t max_stack = 2 * max_tensors + 100;
  // Per tensor, torch.save writes about 8 remembered values and 15 in tuples.
  static constexpr std::size_t max_values = 20 * max_tensors;
  static constexpr std::size_t max_items = 4 * max_tensors;

  struct Mark {};
  struct None {};
  struct Text {
    std::uint32_t begin;
    std::uint32_t size;
  };
  using Kind = PickleGlobal::Kind;
  struct Global {
    Kind kind;
    DType dtype;  // of a storage
    Text name;
  };
  struct Tuple {
    std::uint32_t begin;
    std::uint32_t size;
  };
  /// What a list holds is not kept, because no tensor is read from one.
  struct List {};
  struct Object {};
  struct Dict {
    std::uint32_t id;
  };
  struct StorageRef {
    std::uint32_t id;
  };
  struct TensorRef {
    std::uint32_t id;
  };
  /// 16 bytes, because a hostile pickle can ask for millions.
  using Value = std::variant<Mark, None, bool, std::int64_t, double, Text, Tuple, List, Dict, Global, StorageRef,
                             TensorRef, Object>;

  struct Storage {
    Global type;
    Text key;
    std::uint64_t size;
  };
  struct Tensor {
    std::uint32_t storage;
    std::uint64_t offset;
    Tuple shape;
    Tuple strides;
    Global foreign;  // what makes it unreadable, unless that is a plain storage
    bool has_shape;
    bool is_marked = false;        // as a view whose numbers are not those of the storage
    std::uint32_t dimensions = 0;  // if they are too many
  };
  struct Item {
    std::uint32_t dict;
    Value key;
    Value value;
  };

  static std::string_view describe(const Value& value) {
    constexpr std::array<std::string_view, std::variant_size_v<Value>> names{
        "a mark", "None",         "a boolean",          "an integer", "a float",  "a text",   "a tuple",
        "a list", "a dictionary", "a function or type", "a storage",  "a tensor", "an object"};
    return names[value.index()];
  }
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
