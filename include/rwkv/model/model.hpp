#pragma once
/// A language model made of an embedding, a body and a head.
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/dequantised.hpp"
#include "rwkv/backend/memory.hpp"
#include "rwkv/block/channel_mix.hpp"
#include "rwkv/block/time_mix.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/context.hpp"
#include "rwkv/model/embedding.hpp"
#include "rwkv/model/head.hpp"
#include "rwkv/model/layer.hpp"
#include "rwkv/model/stack.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// An embedding, a body and a head. The model and its contexts share one copy of the weights; a context keeps them
/// alive.
template <class E, class Body, class H>
class Model {
 public:
  using backend = typename Body::backend;
  using compute = typename Body::compute;
  using storage = typename E::storage;
  static_assert(
      std::is_same_v<typename E::backend, backend> && std::is_same_v<typename H::backend, backend> &&
          std::is_same_v<typename E::compute, compute> && std::is_same_v<typename H::compute, compute>,
      "rwkv: the embedding, the body and the head of a model must share one backend and one computing scalar");

  static_assert(std::is_constructible_v<Body, const ModelSizes&>,
                "rwkv: the body of a model is a Stack, which repeats a layer or a chain: Stack<Chain<...>, 1> for one");

  /// The parts: descriptors of the weights, cheap to copy.
  struct Parts {
    E embedding;  ///< tokens to vectors
    Body body;    ///< the layers
    H head;       ///< vectors to logits

    /// Of these sizes, unbound.
    explicit Parts(const ModelSizes& sizes) : embedding(sizes), body(sizes), head(sizes) {}
  };

  /// A model of these sizes with all weights zero.
  explicit Model(const ModelSizes& sizes, backend be = backend{}) : Model(unbound(sizes, std::move(be))) {
    auto memory = std::make_shared<Memory<backend>>(backend_, parameter_count() * Index{sizeof(Made)});
    Made* next = reinterpret_cast<Made*>(memory->data());
    const auto bind = [&](auto& parameter, auto... type) {
      const Index count = parameter.shape.count();
      backend_.fill(matrix(next, 1, count), Made{});
      parameter.bind(next, type...);
      next += count;
    };
    if constexpr (keeps_types) {
      for (auto& parameter : stored_parameters()) bind(parameter, parameter.dtype);
    } else {
      for (auto& parameter : parameters()) bind(parameter);
    }
    backend_.sync();
    owner_ = std::move(memory);
  }

  /// For loaders: a model whose parameters are null. The caller binds each of `parameters()` or `stored_parameters()`,
  /// then calls `adopt` with the owner of their memory. `file_types` are the number types of the file, in which the
  /// model is saved again.
  static Model unbound(const ModelSizes& sizes, backend be) {
    return Model(Parts(checked(sizes)), std::move(be), sizes);
  }
  /// Takes what keeps the bound weights alive, and the types that the file has them in.
  void adopt(std::shared_ptr<const void> owner, std::vector<DType> file_types = {}) {
    owner_ = std::move(owner);
    file_types_ = std::move(file_types);
  }

  /// What keeps the weights alive; null while the model is unbound. A model that shares them adopts it.
  const std::shared_ptr<const void>& owner() const { return owner_; }

  /// Takes the weights over.
  Model(Model&&) = default;
  /// Takes the weights over.
  Model& operator=(Model&&) = default;

  /// The sizes it was made of, completed.
  const ModelSizes& sizes() const { return sizes_; }
  /// The backend that the model runs on; copies are handles to the same device.
  const backend& device() const { return backend_; }

  /// Every parameter, in the order of official checkpoints. The parameters of a model AsStored have several types: use
  /// stored_parameters.
  std::vector<BindableParameter<storage>> parameters() {
    static_assert(!keeps_types,
                  "rwkv: the matrices of an AsStored model have the types of their file, so that they are no "
                  "parameters() of one type: use stored_parameters(), or a model of float, bf16 or f16");
    std::vector<BindableParameter<storage>> list;
    visit(parts, ListParameters<storage>{list});
    return list;
  }
  /// Every parameter with its numbers, to be read.
  std::vector<Parameter<const storage>> parameters() const {
    Parts copy = parts;  // descriptors; the numbers are not copied
    std::vector<Parameter<const storage>> list;
    for (const auto& parameter : Model(std::move(copy), backend_, sizes_).parameters()) {
      list.push_back({parameter, parameter.data});
    }
    return list;
  }

  /// Every parameter as bytes of a run-time number type.
  std::vector<StoredParameter> stored_parameters() {
    std::vector<StoredParameter> list;
    visit(parts, ListStoredParameters<compute>{list, TakesQuantised<backend>});
    return list;
  }
  /// Every parameter as it is stored.
  std::vector<StoredParameter> stored_parameters() const {
    auto list = Model(Parts(parts), backend_, sizes_).stored_parameters();
    for (StoredParameter& parameter : list) parameter.view = nullptr;  // of a copy, which ends here
    return list;
  }
  /// The type of parameter number `nth` in the file it was loaded from; `now` if it was not loaded.
  DType file_type(std::size_t nth, DType now) const { return file_types_.empty() ? now : file_types_[nth]; }

  /// Numbers of all parameters.
  Index parameter_count() const {
    Index count = 0;
    visit(parts, [&](const TensorSpec& spec, const auto&) { count += spec.shape.count(); });
    return count;
  }

  /// Makes a context: the state and scratch to run the model.
  Context<Model> context(const ContextOptions& options = {}) const { return Context<Model>(*this, options); }

  /// The blocks.
  Parts parts;

 private:
  friend class Context<Model>;
  template <class M, class P>
  friend class Gradient;

  Model(Parts made, backend be, const ModelSizes& sizes)
      : parts(std::move(made)), backend_(std::move(be)), sizes_(sizes) {}

  static constexpr bool keeps_types = std::is_same_v<storage, AnyStorage>;
  using Made = std::conditional_t<keeps_types, compute, storage>;  // the type of new weights

  template <class P, class Visitor>
  static void visit(P& parts, const Visitor& visitor) {
    E::visit(parts.embedding, std::string(), visitor);
    Body::visit(parts.body, std::string(), visitor);
    H::visit(parts.head, std::string(), visitor);
  }

  static const ModelSizes& checked(const ModelSizes& sizes) {
    expects(sizes.vocab > 0, "rwkv: a model needs a vocabulary above zero, not ", sizes.vocab);
    return sizes;
  }

  backend backend_;
  ModelSizes sizes_;
  std::shared_ptr<const void> owner_;
  std::vector<DType> file_types_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
