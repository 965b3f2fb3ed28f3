#pragma once
/// A language model put together from its parts.
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/memory.hpp"
#include "rwkv/block/channel_mix_v4.hpp"
#include "rwkv/block/time_mix_v4.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/context.hpp"
#include "rwkv/model/embedding.hpp"
#include "rwkv/model/head.hpp"
#include "rwkv/model/layer.hpp"
#include "rwkv/model/stack.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// An embedding, a body and a head. Weights live in one place, shared by the model and every context made from it; a
/// context keeps them alive.
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

  /// The parts: descriptors of the weights, cheap to copy.
  struct Parts {
    E embedding;
    Body body;
    H head;

    explicit Parts(const ModelSizes& sizes) : embedding(sizes), body(sizes), head(sizes) {}
  };

  /// A model of these sizes with all weights zero.
  explicit Model(const ModelSizes& sizes, backend be = backend{}) : Model(unbound(sizes, std::move(be))) {
    auto memory = std::make_shared<Memory<backend>>(backend_, parameter_count() * Index{sizeof(storage)});
    storage* next = reinterpret_cast<storage*>(memory->data());
    for (auto& parameter : parameters()) {
      const Index count = parameter.shape.count();
      backend_.fill(matrix(next, 1, count), storage{});
      parameter.bind(next);
      next += count;
    }
    backend_.sync();
    owner_ = std::move(memory);
  }

  /// A model whose parameters point nowhere yet: the caller binds each of `parameters()` and hands over what keeps
  /// their memory alive. For loaders.
  static Model unbound(const ModelSizes& sizes, backend be) {
    return Model(Parts(checked(sizes)), std::move(be), sizes);
  }
  void adopt(std::shared_ptr<const void> owner) { owner_ = std::move(owner); }

  Model(Model&&) = default;
  Model& operator=(Model&&) = default;

  const ModelSizes& sizes() const { return sizes_; }
  /// The backend that the model runs on; copies are handles to the same.
  const backend& device() const { return backend_; }

  /// Every parameter, in the order of official checkpoints.
  std::vector<BindableParameter<storage>> parameters() {
    std::vector<BindableParameter<storage>> list;
    const ListParameters<storage> collect{list};
    E::visit(parts.embedding, std::string(), collect);
    Body::visit(parts.body, std::string(), collect);
    H::visit(parts.head, std::string(), collect);
    return list;
  }
  std::vector<Parameter<const storage>> parameters() const {
    Parts copy = parts;  // descriptors; the numbers are not copied
    std::vector<Parameter<const storage>> list;
    for (const auto& parameter : Model(std::move(copy), backend_, sizes_).parameters()) {
      list.push_back({parameter, parameter.data});
    }
    return list;
  }

  Index parameter_count() const {
    Index count = 0;
    for (const auto& parameter : parameters()) count += parameter.shape.count();
    return count;
  }

  /// State and scratch: all that running the model will ever need.
  Context<Model> context(const ContextOptions& options = {}) const { return Context<Model>(*this, options); }

  Parts parts;

 private:
  friend class Context<Model>;
  template <class M, class P>
  friend class Gradient;

  Model(Parts made, backend be, const ModelSizes& sizes)
      : parts(std::move(made)), backend_(std::move(be)), sizes_(sizes) {}

  static const ModelSizes& checked(const ModelSizes& sizes) {
    expects(sizes.vocab > 0, "rwkv: a model needs a vocabulary above zero, not ", sizes.vocab);
    return sizes;
  }

  backend backend_;
  ModelSizes sizes_;
  std::shared_ptr<const void> owner_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
