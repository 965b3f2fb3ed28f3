#pragma once
/// A type-erased model, for code that knows neither its version nor its backend: load_model() makes one of any checkpoint,
/// and a .cpp file can hold a model on a GPU, whose type only a .cu file can name. Each call of a context costs one virtual
/// call.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/core/dims.hpp"
#include "rwkv/core/stamp.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/model/context.hpp"
#include "rwkv/model/state_ring.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A type-erased Context; the members are documented there. Logits and states are floats, whatever the model computes
/// in.
class AnyContext {
 public:
  /// Takes a context of any model.
  template <class M>
  explicit AnyContext(Context<M> context) : held_(std::make_unique<Held<M>>(std::move(context))) {}

  /// See Context.
  std::span<const float> step(std::span<const Token> tokens) & { return held_->step(tokens); }
  /// See Context.
  std::span<const float> step(Token token) & { return step(std::span<const Token>(&token, 1)); }
  /// See Context.
  std::span<const float> prefill(std::span<const Token> tokens) & { return held_->prefill(tokens); }
  /// See Context.
  std::span<const float> prefill(Index sequence, std::span<const Token> tokens) & {
    return held_->prefill(sequence, tokens);
  }
  /// See Context.
  void sequence(std::span<const Token> tokens, std::span<float> logits) { held_->sequence(tokens, logits); }

  /// See Context.
  Index batch() const { return held_->batch(); }
  /// See Context.
  Index capacity() const { return held_->capacity(); }
  /// See Context.
  Index vocab() const { return held_->vocab(); }
  /// See Context.
  Index state_bytes() const { return held_->state_bytes(); }
  /// See Context.
  Index position(Index sequence) const { return held_->position(sequence); }
  /// See Context.
  StateLayout state_layout() const { return held_->state_layout(); }
  /// See Context.
  std::uint64_t fingerprint() const { return held_->fingerprint(); }
  /// See Context.
  Index add() { return held_->add(); }
  /// See Context.
  void remove(Index sequence) { held_->remove(sequence); }
  void reset() { held_->reset(); }
  /// See Context.
  std::vector<float> state() const { return held_->state(); }
  /// See Context.
  std::vector<float> state(Index sequence) const { return held_->state(sequence); }
  /// See Context.
  void restore(std::span<const float> numbers) { held_->restore(numbers); }
  /// See Context.
  void restore(Index sequence, std::span<const float> numbers, Index position = 0) {
    held_->restore(sequence, numbers, position);
  }
  /// See Context.
  AnyContext fork() const { return AnyContext(held_->fork()); }

 private:
  friend class StateRing<AnyModel>;

  struct Ring {
    virtual ~Ring() = default;
    virtual Index kept() const = 0;
    virtual void push() = 0;
    virtual void back(Index pushes) = 0;
  };
  template <class M>
  struct HeldRing final : Ring {
    StateRing<M> ring;
    HeldRing(Context<M>& context, Index most) : ring(context, most) {}
    Index kept() const override { return ring.kept(); }
    void push() override { ring.push(); }
    void back(Index pushes) override { ring.back(pushes); }
  };

  struct Interface {
    virtual ~Interface() = default;
    virtual std::span<const float> step(std::span<const Token> tokens) = 0;
    virtual std::span<const float> prefill(std::span<const Token> tokens) = 0;
    virtual std::span<const float> prefill(Index sequence, std::span<const Token> tokens) = 0;
    virtual void sequence(std::span<const Token> tokens, std::span<float> logits) = 0;
    virtual Index batch() const = 0;
    virtual Index capacity() const = 0;
    virtual Index vocab() const = 0;
    virtual Index state_bytes() const = 0;
    virtual Index position(Index sequence) const = 0;
    virtual StateLayout state_layout() const = 0;
    virtual std::uint64_t fingerprint() const = 0;
    virtual Index add() = 0;
    virtual void remove(Index sequence) = 0;
    virtual void reset() = 0;
    virtual std::vector<float> state() const = 0;
    virtual std::vector<float> state(Index sequence) const = 0;
    virtual void restore(std::span<const float> numbers) = 0;
    virtual void restore(Index sequence, std::span<const float> numbers, Index position) = 0;
    virtual std::unique_ptr<Interface> fork() const = 0;
    virtual std::unique_ptr<Ring> ring(Index most) = 0;
  };

  template <class M>
  struct Held final : Interface {
    using compute = typename M::compute;
    Context<M> context;
    std::vector<float> logits;  // converted, if the model does not compute in float

    explicit Held(Context<M> made) : context(std::move(made)) {}

    static void convert(std::span<const compute> numbers, std::span<float> to) {
      std::transform(numbers.begin(), numbers.end(), to.begin(), [](compute x) { return static_cast<float>(x); });
    }
    static std::vector<float> floats(std::span<const compute> numbers) {
      std::vector<float> converted(numbers.size());
      convert(numbers, converted);
      return converted;
    }
    std::span<const float> as_floats(std::span<const compute> numbers) {
      if constexpr (std::is_same_v<compute, float>) {
        return numbers;
      } else {
        logits.resize(numbers.size());
        convert(numbers, logits);
        return logits;
      }
    }
    std::span<const float> step(std::span<const Token> tokens) override { return as_floats(context.step(tokens)); }
    std::span<const float> prefill(std::span<const Token> tokens) override {
      return as_floats(context.prefill(tokens));
    }
    std::span<const float> prefill(Index sequence, std::span<const Token> tokens) override {
      return as_floats(context.prefill(sequence, tokens));
    }
    void sequence(std::span<const Token> tokens, std::span<float> to) override {
      if constexpr (std::is_same_v<compute, float>) {
        context.sequence(tokens, to);
      } else {
        std::vector<compute> numbers(to.size());
        context.sequence(tokens, numbers);
        convert(numbers, to);
      }
    }
    Index batch() const override { return context.batch(); }
    Index capacity() const override { return context.capacity(); }
    Index vocab() const override { return context.vocab(); }
    Index state_bytes() const override { return context.state_bytes(); }
    Index position(Index sequence) const override { return context.position(sequence); }
    StateLayout state_layout() const override { return context.state_layout(); }
    std::uint64_t fingerprint() const override { return context.fingerprint(); }
    Index add() override { return context.add(); }
    void remove(Index sequence) override { context.remove(sequence); }
    void reset() override { context.reset(); }
    std::vector<float> state() const override { return floats(context.state()); }
    std::vector<float> state(Index sequence) const override { return floats(context.state(sequence)); }
    void restore(std::span<const float> numbers) override {
      context.restore(std::vector<compute>(numbers.begin(), numbers.end()));
    }
    void restore(Index sequence, std::span<const float> numbers, Index position) override {
      context.restore(sequence, std::vector<compute>(numbers.begin(), numbers.end()), position);
    }
    std::unique_ptr<Interface> fork() const override { return std::make_unique<Held>(context.fork()); }
    std::unique_ptr<Ring> ring(Index most) override { return std::make_unique<HeldRing<M>>(context, most); }
  };

  explicit AnyContext(std::unique_ptr<Interface> held) : held_(std::move(held)) {}

  std::unique_ptr<Interface> held_;
  Stamp stamp_;
};

/// The ring of states of a type-erased context.
template <>
class StateRing<AnyModel> {
 public:
  /// See StateRing; for a context of any model.
  StateRing(AnyContext& context, Index most)
      : context_(&context), stamp_(context.stamp_.number()), ring_(context.held_->ring(most)) {}

  /// States that are kept.
  Index kept() const { return replaced() ? 0 : ring_->kept(); }
  /// Keeps the present states.
  void push() { present().push(); }
  /// Goes back by that many pushes. Errors: fewer are kept.
  void back(Index pushes) { present().back(pushes); }

 private:
  bool replaced() const { return context_->stamp_.number() != stamp_; }
  AnyContext::Ring& present() {
    expects(!replaced(), "rwkv: the context of the ring was moved, or replaced by another");
    return *ring_;
  }

  const AnyContext* context_;
  std::uint64_t stamp_;
  std::unique_ptr<AnyContext::Ring> ring_;
};
/// Of a context of any model.
StateRing(AnyContext&, Index)->StateRing<AnyModel>;

/// A type-erased model, for inference. Movable, not copyable, as the model in it.
class AnyModel {
 public:
  using compute = float;  ///< of its logits

  /// Takes a model of any type.
  template <class Net>
  requires(!std::is_same_v<Net, AnyModel>) explicit AnyModel(Net net)
      : held_(std::make_unique<Held<Net>>(std::move(net))) {}

  /// See Model.
  const ModelSizes& sizes() const { return held_->sizes(); }
  /// See Model.
  AnyContext context(const ContextOptions& options = {}) const { return held_->context(options); }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual const ModelSizes& sizes() const = 0;
    virtual AnyContext context(const ContextOptions& options) const = 0;
  };
  template <class Net>
  struct Held final : Interface {
    Net net;
    explicit Held(Net made) : net(std::move(made)) {}
    const ModelSizes& sizes() const override { return net.sizes(); }
    AnyContext context(const ContextOptions& options) const override { return AnyContext(net.context(options)); }
  };

  std::unique_ptr<const Interface> held_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
