#pragma once
/// The table of parameters: name, shape and role of each. Binding memory, loading, saving, reports and initialisation
/// all walk this table, so their order is defined once.
#include <array>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/core/dims.hpp"
#include "rwkv/core/weights.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What a parameter is for. Initialisation, weight decay and learning rates follow from it.
enum class Role : unsigned char { embedding, head, matrix, norm_scale, norm_shift, mix, decay, bonus };

/// What initialize() needs to know about a parameter besides its role.
struct Start {
  double scale = 1;  ///< matrices: gain, 0 for a matrix of zeros; mixes: factor of the exponent
  double lift = 0;   ///< mixes: added in full in the last layer, in proportion to rho1 in earlier layers
};

/// The sizes of one tensor, rank at most 4.
struct Shape {
  std::array<Index, 4> sizes{};
  std::size_t rank = 0;

  constexpr std::span<const Index> span() const { return {sizes.data(), rank}; }
  /// Elements. Errors: more than 2^60.
  constexpr Index count() const {
    constexpr Index most = Index{1} << 60;
    Index product = 1;
    for (const Index size : span()) {
      expects(size == 0 || product <= most / size, "rwkv: a tensor of shape ", span(), " is too large");
      product *= size;
    }
    return product;
  }
};

/// The sizes of one tensor by name, as they appear in checkpoints.
struct Axes {
  std::array<Axis, 4> names{};
  std::size_t rank = 0;

  template <class Sizes>
  constexpr Shape operator()(const Sizes& dims) const {
    Shape shape{.rank = rank};
    for (std::size_t i = 0; i < rank; ++i) shape.sizes[i] = dims(names[i]);
    return shape;
  }
};

template <class... A>
constexpr Axes shape(A... names) {
  return {.names = {names...}, .rank = sizeof...(names)};
}

/// One row of the table. `Access` is a pointer to member or any callable from the struct to the view.
template <class Name, class Access>
struct Field {
  Name name;
  Access access;
  Axes axes;
  Role role;
  Start start;
};

template <class Access>
constexpr Field<std::string_view, Access> field(std::string_view name, Access access, Axes axes, Role role,
                                                Start start = {}) {
  return {name, access, axes, role, start};
}

template <class... F>
constexpr auto table(F... fields) {
  return std::tuple<F...>(std::move(fields)...);
}

/// What a visitor learns about a tensor besides the view itself.
struct TensorSpec {
  std::string name;  ///< official name, `blocks.3.att.key.weight`
  Shape shape;       ///< as in the checkpoint
  Role role = Role::matrix;
  Start start{};
  Index layer = 0;  ///< number of the layer it belongs to; 0 outside layers
};

/// A struct with a static `fields()` table.
template <class P>
concept Fields = requires {
  P::fields();
};

/// Calls visitor(spec, view) for every row of the table of `params`; names begin with `prefix`.
template <Fields Params, class Sizes, class Visitor>
void visit_fields(Params& params, const Sizes& dims, const std::string& prefix, Visitor&& visitor) {
  std::apply(
      [&](const auto&... row) {
        (visitor(TensorSpec{prefix + std::string(row.name), row.axes(dims), row.role, row.start},
                 std::invoke(row.access, params)),
         ...);
      },
      Params::fields());
}

/// Points a view at `count()` elements laid out as the shape says; a matrix takes the last axis as its columns.
template <class T, Index N>
void bind(Vec<T, N>& view, T* data, const Shape& shape) {
  view = {data, shape.count()};
}
template <class T, Index C>
void bind(Mat<T, C>& view, T* data, const Shape& shape) {
  const Index cols = shape.sizes[shape.rank - 1];
  view = {data, cols == 0 ? 0 : shape.count() / cols, cols, cols};
}

inline void bind(StoredMat& view, const void* data, DType dtype, const Shape& shape) {
  const Index cols = shape.sizes[shape.rank - 1];
  view = {data, dtype, cols == 0 ? 0 : shape.count() / cols, cols, cols};
}

/// One parameter of a model: what its table says, and its numbers.
template <class T>
struct Parameter : TensorSpec {
  T* data = nullptr;  ///< row-major; null while the model is unbound

  std::span<T> numbers() const { return {data, static_cast<std::size_t>(shape.count())}; }
};

/// A parameter whose view in the model can be pointed elsewhere.
template <class T>
struct BindableParameter : Parameter<T> {
  void* view = nullptr;
  void (*attach)(void* view, T* data, const Shape& shape) = nullptr;

  void bind(T* to) {
    this->data = to;
    attach(view, to, this->shape);
  }
};

/// A visitor that lists parameters as plain objects to loop over. So the table of a block is compiled once, not once
/// for every use.
template <class T>
struct ListParameters {
  std::vector<BindableParameter<T>>& list;

  template <class View>
  void operator()(TensorSpec spec, View& view) const {
    static_assert(std::is_same_v<typename View::element, T>,
                  "rwkv: the parameters of a model must share one storage type");
    list.push_back({{std::move(spec), view.data}, &view, [](void* place, T* data, const Shape& shape) {
                      rwkv::bind(*static_cast<View*>(place), data, shape);
                    }});
  }
};

/// A parameter as files see it: bytes of a number type, which may be one of several.
struct StoredParameter : TensorSpec {
  DType dtype = DType::f32;        ///< of the numbers at `data`; the computing type while `data` is null
  bool keeps_stored_type = false;  ///< whether it may be bound to numbers of other types
  DType compute = DType::f32;      ///< the widest of these: what the model computes in
  const void* data = nullptr;      ///< row-major; null while the model is unbound
  void* view = nullptr;            ///< in the model; null where the model is const
  void (*attach)(void* view, void* data, DType dtype, const Shape& shape) = nullptr;

  Index bytes() const { return shape.count() * static_cast<Index>(size_of(dtype)); }

  /// Whether it may be bound to numbers of that type.
  bool takes(DType type) const {
    return keeps_stored_type ? is_floating(type) && size_of(type) <= size_of(compute) : type == dtype;
  }

  /// Points the model's view at numbers.
  /// Errors: a type that it does not take, a parameter of a const model
  void bind(void* to, DType type) {
    expects(takes(type), name, ": a parameter of ", name_of(dtype), " numbers is bound to ", name_of(type));
    expects(view != nullptr, name, ": a parameter of a const model cannot be bound");
    data = to;
    dtype = type;
    attach(view, to, type, shape);
  }
};

/// A visitor that lists parameters as files see them. T is what the model computes in.
template <class T>
struct ListStoredParameters {
  std::vector<StoredParameter>& list;

  template <class View>
  void operator()(TensorSpec spec, View& view) const {
    using Element = typename View::element;
    list.push_back({std::move(spec), dtype_of<Element>(), false, dtype_of<T>(), view.data, &view,
                    [](void* place, void* data, DType, const Shape& shape) {
                      rwkv::bind(*static_cast<View*>(place), static_cast<Element*>(data), shape);
                    }});
  }
  void operator()(TensorSpec spec, StoredMat& view) const {
    const DType now = view.data == nullptr ? dtype_of<T>() : view.dtype;
    list.push_back({std::move(spec), now, true, dtype_of<T>(), view.data, &view,
                    [](void* place, void* data, DType dtype, const Shape& shape) {
                      rwkv::bind(*static_cast<StoredMat*>(place), data, dtype, shape);
                    }});
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
