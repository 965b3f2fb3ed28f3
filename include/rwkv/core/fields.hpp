#pragma once
/// The table of parameters: what each is called, its shape, how it starts and how it is trained. Binding memory, loading,
/// saving, reports, initialisation and training all walk this table, so everything about a parameter stands in its row.
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

/// What a parameter is: a factor of products, a factor of a low-rank product, or numbers along the channels. Weight
/// decay leaves the last two alone.
enum class Role : unsigned char { embedding, head, matrix, low_rank, vector };

/// The place of a number in a vector of a model: channel i of C, in layer l of L.
struct ChannelPlace {
  Index channel, channels, layer, depth;  ///< i, C, l and L
  Index head_size = 0;                    ///< channels of a head, where there are heads

  constexpr double part() const { return static_cast<double>(channel) / static_cast<double>(channels); }  ///< i / C
  /// i / (C - 1); 0 for a single channel.
  constexpr double part_to_last() const {
    return channels == 1 ? 0 : static_cast<double>(channel) / static_cast<double>(channels - 1);
  }
  /// 1 - l / L, from 1 in the first layer towards 0.
  constexpr double rho0() const { return 1 - static_cast<double>(layer) / static_cast<double>(depth); }
  /// l / (L - 1), from 0 in the first layer to 1 in the last; 0.5 for a single layer.
  constexpr double rho1() const {
    return depth == 1 ? 0.5 : static_cast<double>(layer) / static_cast<double>(depth - 1);
  }
};

/// How the numbers of a parameter start; made by the functions of namespace start, and read by initialize().
struct Start {
  /// How numbers are drawn; `each` is not drawn.
  enum Draw : unsigned char { each, uniform, normal, orthogonal };

  Draw draw = each;  ///< how the numbers are drawn
  /// uniform: in [-a, a); normal: of deviation a; orthogonal: a, the gain, times sqrt(max(rows / cols, 1)) if b is not zero
  double a = 0, b = 0;
  double (*number)(const ChannelPlace&, double a, double b) = nullptr;  ///< each number by itself; null: a
};

/// What a row of the table says about a parameter besides its name and shape.
struct ParameterTraits {
  Role role = Role::vector;      ///< what it is
  Start start{};                 ///< how it starts
  double rate = 1;               ///< factor of the learning rate in the official recipe
  double least = -1, most = 1;   ///< where the numbers of trained vectors lie; tests and benchmarks draw from here
  bool transposed = false;       ///< whether files have its last two axes the other way round
  bool unused_at_first = false;  ///< whether layer 0 has no use for it, so that files may lack it there
};

/// Entries of a row: how the parameter starts.
namespace start {
/// Every number is the same.
constexpr auto constant(double number) {
  return [=](ParameterTraits& traits) { traits.start = {.a = number}; };
}
/// A function of the channel and the layer, and of two numbers of the row's choice.
constexpr auto channels(double (*number)(const ChannelPlace&, double a, double b), double a = 0, double b = 0) {
  return [=](ParameterTraits& traits) { traits.start = {.a = a, .b = b, .number = number}; };
}
/// A factor of products, orthogonal: its rows, or its columns where those are fewer, have the length `gain`. 0: zeros.
constexpr auto matrix(double gain) {
  return [=](ParameterTraits& traits) {
    traits.role = Role::matrix;
    traits.start = {.draw = gain == 0 ? Start::each : Start::orthogonal, .a = gain};
  };
}
/// A factor of a low-rank product, with zeros or otherwise orthogonal of that gain, times sqrt(max(rows / cols, 1)).
constexpr auto low_rank(double gain) {
  return [=](ParameterTraits& traits) {
    traits.role = Role::low_rank;
    traits.start = {.draw = gain == 0 ? Start::each : Start::orthogonal, .a = gain, .b = 1};
  };
}
/// A factor of a low-rank product, uniform in [-bound, bound).
constexpr auto low_rank_uniform(double bound) {
  return [=](ParameterTraits& traits) {
    traits.role = Role::low_rank;
    traits.start = {.draw = Start::uniform, .a = bound};
  };
}
/// The table of tokens: uniform in [-1e-4, 1e-4), so that ln0 sets the scale.
constexpr auto embedding() {
  return [](ParameterTraits& traits) {
    traits.role = Role::embedding;
    traits.start = {.draw = Start::uniform, .a = 1e-4};
  };
}
/// The table of logits: orthogonal with gain 0.5 sqrt(max(V / C, 1)).
constexpr auto head() {
  return [](ParameterTraits& traits) {
    traits.role = Role::head;
    traits.start = {.draw = Start::orthogonal, .a = 0.5, .b = 1};
  };
}
}  // namespace start

/// Entries of a row: how the parameter is trained, where its numbers lie, how files have it; see ParameterTraits.
namespace row {
/// The factor of its learning rate in the official recipe.
constexpr auto rate(double factor) {
  return [=](ParameterTraits& traits) { traits.rate = factor; };
}
/// Where its trained numbers lie.
constexpr auto live(double least, double most) {
  return [=](ParameterTraits& traits) {
    traits.least = least;
    traits.most = most;
  };
}
/// A matrix [out, in] that files have as [in, out].
constexpr auto transposed() {
  return [](ParameterTraits& traits) { traits.transposed = true; };
}
/// A parameter that layer 0 has no use for.
constexpr auto unused_at_first() {
  return [](ParameterTraits& traits) { traits.unused_at_first = true; };
}
}  // namespace row

/// The sizes of one tensor, rank at most 4.
struct Shape {
  std::array<Index, 4> sizes{};  ///< of the axes; 0 behind them
  std::size_t rank = 0;          ///< axes

  /// The sizes of the axes.
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

/// The shape with its last two axes exchanged.
constexpr Shape transposed(Shape shape) {
  std::swap(shape.sizes[shape.rank - 2], shape.sizes[shape.rank - 1]);
  return shape;
}

/// The sizes of one tensor by name, in memory.
struct Axes {
  std::array<Axis, 4> names{};  ///< what each axis is
  std::size_t rank = 0;         ///< axes

  /// The shape where the axes have these sizes.
  template <class Sizes>
  constexpr Shape operator()(const Sizes& dims) const {
    Shape shape{.rank = rank};
    for (std::size_t i = 0; i < rank; ++i) shape.sizes[i] = dims(names[i]);
    return shape;
  }
};

/// The axes of a parameter, by name: at most four.
template <class... A>
constexpr Axes shape(A... names) {
  return {.names = {names...}, .rank = sizeof...(names)};
}

/// One row of the table. `Access` is a pointer to member or any callable from the struct to the view.
template <class Name, class Access>
struct Field {
  Name name;               ///< what files call it
  Access access;           ///< the member of Params
  Axes axes;               ///< its axes
  ParameterTraits traits;  ///< what else is known about it
};

/// A row: field("time_decay", &Params::decay, shape(Axis::width), start::channels(decay), row::rate(2)).
template <class Access, class... Entry>
constexpr Field<std::string_view, Access> field(std::string_view name, Access access, Axes axes,
                                                const Entry&... entries) {
  ParameterTraits traits;
  (entries(traits), ...);
  return {name, access, axes, traits};
}

/// The rows of fields().
template <class... F>
constexpr auto table(F... fields) {
  return std::tuple<F...>(std::move(fields)...);
}

/// What a visitor learns about a tensor besides the view itself.
struct TensorSpec : ParameterTraits {
  std::string name;     ///< official name, `blocks.3.att.key.weight`
  Axes axes;            ///< its sizes by name
  Shape shape;          ///< in memory
  Index head_size = 0;  ///< channels of a head of the model, where it has heads
  Index layer = 0;      ///< number of the layer it belongs to; 0 outside layers

  TensorSpec() = default;
  /// A parameter of this name and shape.
  TensorSpec(const ParameterTraits& traits, std::string named, const Shape& sizes)
      : ParameterTraits(traits), name(std::move(named)), shape(sizes) {}
  /// A parameter of this name and these axes.
  template <class Sizes>
  TensorSpec(const ParameterTraits& traits, std::string named, const Axes& named_sizes, const Sizes& dims)
      : ParameterTraits(traits), name(std::move(named)), axes(named_sizes), shape(named_sizes(dims)),
        head_size(dims.head_size()) {}

  /// The shape in files.
  Shape file_shape() const { return transposed ? rwkv::transposed(shape) : shape; }
  /// Whether the model has no use for it.
  bool unused() const { return unused_at_first && layer == 0; }
};

/// Sets the sizes that the axes of a tensor name, from its shape in a file. No effect if the ranks differ.
constexpr void set_sizes(ModelSizes& sizes, const TensorSpec& spec, std::span<const Index> file_shape) {
  const std::size_t rank = spec.axes.rank;
  if (file_shape.size() != rank) return;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t axis = spec.transposed && i + 2 >= rank ? 2 * rank - 3 - i : i;
    set_size(sizes, spec.axes.names[axis], file_shape[i]);
  }
}

/// A struct with a static constexpr `fields()` table.
template <class P>
concept Fields = requires {
  P::fields();
};

namespace detail {
/// A function of its own, because it is needed once for every row.
template <class Sizes>
[[gnu::noinline]] TensorSpec spec_of(const ParameterTraits& traits, const std::string& prefix, std::string_view name,
                                     const Axes& axes, const Sizes& dims) {
  return {traits, prefix + std::string(name), axes, dims};
}
}  // namespace detail

/// Calls visitor(spec, view) for every row of the table of `params`; names begin with `prefix`.
template <Fields Params, class Sizes, class Visitor>
void visit_fields(Params& params, const Sizes& dims, const std::string& prefix, Visitor&& visitor) {
  static constexpr auto rows = Params::fields();
  std::apply(
      [&](const auto&... row) {
        (visitor(detail::spec_of(row.traits, prefix, row.name, row.axes, dims), std::invoke(row.access, params)), ...);
      },
      rows);
}

/// Points a view at `count()` elements laid out as the shape says; a matrix takes the last axis as its columns.
template <class T, Index N>
void bind(Vec<T, N>& view, T* data, const Shape& shape) {
  view = {data, shape.count()};
}
/// Points a view of any kind to numbers of the given shape.
template <class T, Index C>
void bind(Mat<T, C>& view, T* data, const Shape& shape) {
  const Index cols = shape.sizes[shape.rank - 1];
  view = {data, cols == 0 ? 0 : shape.count() / cols, cols, cols};
}

/// Points weights to numbers of any stored type.
inline void bind(StoredMat& view, const void* data, DType dtype, const Shape& shape) {
  const Index cols = shape.sizes[shape.rank - 1];
  view = {data, dtype, cols == 0 ? 0 : shape.count() / cols, cols, cols};
}

/// One parameter of a model: what its table says, and its numbers.
template <class T>
struct Parameter : TensorSpec {
  T* data = nullptr;  ///< row-major; null while the model is unbound

  /// All its numbers, contiguous.
  std::span<T> numbers() const { return {data, static_cast<std::size_t>(shape.count())}; }
};

/// A parameter whose view in the model can be pointed elsewhere.
template <class T>
struct BindableParameter : Parameter<T> {
  void* view = nullptr;  ///< the view that it is bound to
  /// Binds it.
  void (*attach)(void* view, T* data, const Shape& shape) = nullptr;

  /// Points the view to numbers, contiguous and of its shape.
  void bind(T* to) {
    this->data = to;
    attach(view, to, this->shape);
  }
};

/// A visitor that lists parameters as plain objects to loop over. So the table of a block is compiled once, not once
/// for every use.
template <class T>
struct ListParameters {
  std::vector<BindableParameter<T>>& list;  ///< where they go

  /// Takes a parameter in.
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
  bool takes_quantised = false;    ///< whether these may be quantised, in whole blocks along its rows
  DType compute = DType::f32;      ///< the widest of these: what the model computes in
  const void* data = nullptr;      ///< row-major; null while the model is unbound
  void* view = nullptr;            ///< in the model; null where the model is const
  /// Binds it.
  void (*attach)(void* view, void* data, DType dtype, const Shape& shape) = nullptr;

  /// Bytes that it takes as it is stored.
  Index bytes() const { return static_cast<Index>(bytes_of(dtype, static_cast<std::size_t>(shape.count()))); }

  /// Whether it may be bound to numbers of that type.
  bool takes(DType type) const {
    if (!keeps_stored_type) return type == dtype;
    if (is_quantised(type)) return takes_quantised && shape.sizes[shape.rank - 1] % length_of(type) == 0;
    return is_floating(type) && size_of(type) <= size_of(compute);
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
  std::vector<StoredParameter>& list;  ///< where they go
  bool takes_quantised = false;        ///< whether the backend does

  /// Takes a parameter in.
  template <class View>
  void operator()(TensorSpec spec, View& view) const {
    using Element = typename View::element;
    list.push_back({std::move(spec), dtype_of<Element>(), false, false, dtype_of<T>(), view.data, &view,
                    [](void* place, void* data, DType, const Shape& shape) {
                      rwkv::bind(*static_cast<View*>(place), static_cast<Element*>(data), shape);
                    }});
  }
  /// Takes a matrix of any stored type in.
  void operator()(TensorSpec spec, StoredMat& view) const {
    const DType now = view.data == nullptr ? dtype_of<T>() : view.dtype;
    list.push_back({std::move(spec), now, true, takes_quantised, dtype_of<T>(), view.data, &view,
                    [](void* place, void* data, DType dtype, const Shape& shape) {
                      rwkv::bind(*static_cast<StoredMat*>(place), data, dtype, shape);
                    }});
  }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
