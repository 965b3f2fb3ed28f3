#pragma once
/// The names that the pickle of a PyTorch file may ask for. They are numbers in a list here; nothing is looked up or
/// called.
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "rwkv/core/dtype.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// What a name stands for.
struct PickleGlobal {
  /// The foreign ones belong to tensors that cannot be read, and objects stand beside tensors.
  enum class Kind : std::uint8_t {
    ordered_dict,
    rebuild_tensor,
    rebuild_parameter,
    rebuild_from_type,
    tensor_type,
    storage,
    foreign_storage,
    foreign_tensor,
    foreign_type,
    number_type,
    object
  };

  Kind kind;
  DType dtype = DType::f32;  ///< of a storage
};

/// Names of number types such as uint16, float8_e5m2 and per_tensor_affine.
inline bool is_number_type(std::string_view name) {
  for (const std::string_view stem : {"float", "bfloat", "complex", "int", "uint", "qint", "quint", "bits"}) {
    const std::string_view rest = name.starts_with(stem) ? name.substr(stem.size()) : "";
    if (!rest.empty() && '0' <= rest[0] && rest[0] <= '9') return true;
  }
  return name == "bool" || name.starts_with("per_");
}

/// What `module` `name` stands for; nothing when a dictionary of tensors does not need it.
inline std::optional<PickleGlobal> pickle_global(std::string_view module, std::string_view name) {
  using Kind = PickleGlobal::Kind;
  struct Known {
    std::string_view module;
    std::string_view name;
    PickleGlobal global;
  };
  static constexpr std::array<Known, 19> known{
      {{"collections", "OrderedDict", {Kind::ordered_dict}},
       {"torch._tensor", "_rebuild_from_type_v2", {Kind::rebuild_from_type}},
       {"torch", "Tensor", {Kind::tensor_type}},
       {"torch._utils", "_rebuild_parameter_with_state", {Kind::rebuild_parameter}},
       {"torch._utils", "_rebuild_tensor_v2", {Kind::rebuild_tensor}},
       {"torch._utils", "_rebuild_parameter", {Kind::rebuild_parameter}},
       {"torch", "DoubleStorage", {Kind::storage, DType::f64}},
       {"torch", "FloatStorage", {Kind::storage, DType::f32}},
       {"torch", "HalfStorage", {Kind::storage, DType::f16}},
       {"torch", "BFloat16Storage", {Kind::storage, DType::bf16}},
       {"torch", "LongStorage", {Kind::storage, DType::i64}},
       {"torch", "IntStorage", {Kind::storage, DType::i32}},
       {"torch", "ShortStorage", {Kind::storage, DType::i16}},
       {"torch", "CharStorage", {Kind::storage, DType::i8}},
       {"torch", "ByteStorage", {Kind::storage, DType::u8}},
       {"torch", "BoolStorage", {Kind::storage, DType::boolean}},
       {"torch", "Size", {Kind::object}},
       {"torch", "device", {Kind::object}},
       {"torch.serialization", "_get_layout", {Kind::object}}}};
  for (const Known& k : known) {
    if (k.module == module && k.name == name) return k.global;
  }
  const bool is_torch = module == "torch" || module == "torch.storage";
  if (is_torch && name.ends_with("Storage")) return PickleGlobal{Kind::foreign_storage};
  if (module == "torch._utils" && name.starts_with("_rebuild_")) return PickleGlobal{Kind::foreign_tensor};
  if (module == "torch" && is_number_type(name)) return PickleGlobal{Kind::number_type};
  return std::nullopt;
}

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
