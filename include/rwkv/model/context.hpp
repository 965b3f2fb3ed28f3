#pragma once
/// Runs a model: holds the states of a batch of sequences, and scratch.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/scratch.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/stamp.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/model/cascade.hpp"
#include "rwkv/model/fingerprint.hpp"
#include "rwkv/model/state.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a context is made.
struct ContextOptions {
  Index batch = 1;     ///< the most sequences side by side
  Index chunk = 256;   ///< tokens of each sequence that prefill takes at a time; scratch memory grows with it
  bool record = true;  ///< whether step replays a recording, on backends that can record
  LayerOrder order = LayerOrder::automatic;  ///< of a prompt; see model/cascade.hpp
};

/// A sampler that draws in the memory of the logits, such as CudaSampler. A call queues in `be` the choice of a token
/// for every row of logits [batch, vocab]. An optional `check()` throws an Error if a choice was impossible. An
/// optional `owner()` returns a shared pointer to everything that the queued work refers to; then calls can be
/// recorded. For generate() it also has `bar(first, last)`: tokens that are never drawn.
template <class S, class B, class T>
concept DrawsInPlace = requires(S& sampler, B& be, Mat<const T> logits, Token* tokens) {
  sampler(be, logits, tokens);
};

namespace detail {
struct NoRecording {};
template <class B>
struct recording_of {
  using type = NoRecording;
};
template <class B>
requires requires { typename B::Recording; }
struct recording_of<B> {
  using type = typename B::Recording;
};
}  // namespace detail

/// Runs a model on some sequences side by side. The constructor allocates their states and scratch; `step` allocates
/// nothing. The constructor, `add` and `remove` record the step that `step` replays; a step with a sampler is recorded
/// when it first runs after one of these. Contexts of one model are independent and may run on different threads.
template <class M>
class Context {
 public:
  using backend = typename M::backend;
  using compute = typename M::compute;
  /// Between embedding and head.
  using Body = decltype(M::Parts::body);
  static constexpr Index Width = Body::Width;

  /// Of a model, which must outlive it. Errors: a batch below 1, out of memory.
  Context(const M& model, const ContextOptions& options)
      : Context(model.parts, model.owner_, model.backend_, options, model.sizes_) {
    expects(owner_ != nullptr, "rwkv: the model has no weights: it is unbound, or was moved from");
    reset();
    record();
  }

  /// How many sequences run: as many as fit, until some are removed.
  Index batch() const { return batch_; }
  /// The most sequences.
  Index capacity() const { return options_.batch; }
  /// Logits of a sequence.
  Index vocab() const { return vocab_; }
  /// The sizes of the model.
  const ModelSizes& sizes() const { return sizes_; }
  /// Bytes of all states.
  Index state_bytes() const { return state_.bytes(); }
  /// Bytes of scratch.
  Index scratch_bytes() const { return scratch_memory_.bytes(); }

  /// The backend of this context; on a backend with streams (queues), it has its own stream.
  const backend& runs_on() const { return backend_; }

  /// How many tokens the state of a sequence has seen: 0 after `reset` and `add`, and what `restore` was told.
  Index position(Index sequence) const {
    check_sequence(sequence);
    return positions_[static_cast<std::size_t>(sequence)];
  }

  /// Sets every sequence to the state before its first token.
  void reset() {
    parts_.body.reset(backend_, state_.views);
    std::fill(positions_.begin(), positions_.end(), 0);
    has_logits_ = false;
  }

  /// Adds a sequence, in the state before its first token; returns its number.
  /// Errors: the context is full.
  Index add() {
    expects(batch_ < capacity(), "rwkv: the context is full: it holds ", capacity(), " sequences");
    auto state = state_.sequence(parts_.body, batch_);
    resize(batch_ + 1);
    parts_.body.reset(backend_, state);
    positions_[static_cast<std::size_t>(batch_ - 1)] = 0;
    return batch_ - 1;
  }
  /// Removes a sequence; the last sequence takes its number.
  void remove(Index sequence) {
    check_sequence(sequence);
    const Index last = batch_ - 1;
    resize(last);
    for (const Mat<compute>& tensor : state_.tensors) {
      if (sequence != last) backend_.copy(row_of(tensor, last), row_of(tensor, sequence));
    }
    positions_[static_cast<std::size_t>(sequence)] = positions_[static_cast<std::size_t>(last)];
  }

  /// Advances every sequence by one token and returns the logits that follow, [batch, vocab], valid until the next
  /// call.
  /// Errors: a token outside the vocabulary, or a number of tokens other than `batch`; the state is left as it was.
  std::span<const compute> step(std::span<const Token> tokens) & {
    expects(std::ssize(tokens) == batch(), "rwkv: step takes one token for each of the ", batch(),
            " sequences of the context, not ", tokens.size());
    if constexpr (can_record) {
      if (recording_) {
        check_tokens(tokens);
        replay(*recording_, tokens);
        has_logits_ = true;
        return logits();
      }
    }
    return prefill(tokens);
  }
  /// Advances the only sequence by a token; see above.
  std::span<const compute> step(Token token) & { return step(std::span<const Token>(&token, 1)); }

  /// Draws the next token of every sequence from the logits of the previous call, in their memory. Returns [batch],
  /// valid until the next call.
  /// Errors: the previous call was no prefill or step, or the state was changed since; the errors of the sampler, after
  /// which `drawn()` has the tokens of all sequences that the error does not name
  template <DrawsInPlace<backend, compute> S>
  std::span<const Token> draw(S& sampler) & {
    expects(has_logits_, "rwkv: there are no logits to draw a token from; run a prompt or a step first");
    queue_draw(sampler);
    backend_.sync();
    check_draw(sampler);
    return drawn();
  }
  /// Advances every sequence by one token and draws the next. The logits are not copied to the host. If the sampler can
  /// be recorded, step and draw are one recording.
  /// Errors: those of `step`; those of the sampler. If only its `check()` throws, the sequences have advanced, and
  /// `drawn()` has the tokens of all sequences that the error does not name
  template <DrawsInPlace<backend, compute> S>
  std::span<const Token> step(std::span<const Token> tokens, S& sampler) & {
    expects(std::ssize(tokens) == batch(), "rwkv: step takes one token for each of the ", batch(),
            " sequences of the context, not ", tokens.size());
    check_tokens(tokens);
    if constexpr (can_record && requires { sampler.owner(); }) {
      if (options_.record) {
        if (!drawing_ || drawing_owner_ != sampler.owner()) {
          drawing_.reset();
          drawing_owner_ = sampler.owner();
          drawing_.emplace(backend_.record([&] {
            queue_step();
            queue_draw(sampler);
          }));
        }
        replay(*drawing_, tokens);
        has_logits_ = true;
        check_draw(sampler);
        return drawn();
      }
    }
    take_tokens(0, tokens);
    queue_step();
    backend_.sync();
    count(1);
    has_logits_ = true;
    return draw(sampler);
  }
  /// The tokens of the last draw, [batch], if nothing ran since.
  std::span<const Token> drawn() & {
    return std::span<const Token>(tokens_.numbers()).first(static_cast<std::size_t>(batch_));
  }

  /// Advances every sequence by the same number of tokens, in chunks that run in parallel over time. Returns the logits
  /// after the last token, [batch, vocab], valid until the next call.
  /// Shapes    tokens: [batch, time]
  /// Errors: no token, a number of tokens that is no multiple of the batch, a token outside the vocabulary; Cancelled by a
  /// Watch. The state is left as it was, and so are the logits. Under a Watch a prompt runs in shorter chunks, and a model
  /// whose schedule is Scan or Chunked may then have other last bits.
  std::span<const compute> prefill(std::span<const Token> tokens) & { return prefill(tokens, NoTap{}); }
  /// The same, and calls tap(layer, x, state) after every layer of every chunk: x [batch, tokens of the chunk, width] is
  /// what the layer leaves in the residual stream, state its state after the chunk, whose tensors layer.visit_state(state,
  /// "", visitor) lists. Both are views in the memory of the backend, and hold during the call. With a chunk of 1 the tap
  /// sees every token. It must not run or change this context. After an error of the tap, layers have seen different
  /// numbers of tokens: reset or restore the context.
  template <class Tap>
  std::span<const compute> prefill(std::span<const Token> tokens, Tap&& tap) & {
    run(tokens, LogitsOfLast{*this}, tap);
    has_logits_ = true;
    return logits();
  }

  /// Advances one sequence by tokens of its own; the others stay where they are, and so do the logits that `draw` needs
  /// of them. Returns the logits after the last token, [vocab], valid until the next call. A sequence that was added joins
  /// the others by all of its prompt but the last token, which is its token of the next step.
  /// Errors: no such sequence, no token, a token outside the vocabulary; the state is left as it was.
  std::span<const compute> prefill(Index sequence, std::span<const Token> tokens) & {
    check_sequence(sequence);
    const Alone alone(*this, sequence);
    const bool had_logits = has_logits_;
    run(tokens, LogitsOfLast{*this});
    has_logits_ = had_logits;
    return logits();
  }

  /// Like prefill, but writes the logits after every token.
  /// Shapes    tokens: [batch, time]   logits: [batch, time, vocab]
  void sequence(std::span<const Token> tokens, std::span<compute> logits) {
    expects(std::ssize(logits) == std::ssize(tokens) * vocab_, "rwkv: the logits of ", tokens.size(), " tokens are ",
            std::ssize(tokens) * vocab_, " numbers, the room given is for ", logits.size());
    run(tokens, [&](Arena ws, Seq<compute, Width> x, Index begin, Index time) {
      for (Index b = 0; b < x.batch; ++b) {
        for (Index t = 0; t < x.time; t += head_rows(x.time)) {
          const Index rows = std::min(head_rows(x.time), x.time - t);
          compute* const to = logits.data() + (b * time + begin + t) * vocab_;
          const Seq<const compute, Width> part{x.row(b, t), 1, rows, x.width};
          if constexpr (host_reaches<backend>) {
            parts_.head.forward(backend_, ws, part, Seq<compute>{to, 1, rows, vocab_});
          } else {
            Arena scratch = ws;
            const Seq<compute> here{scratch.template take<compute>(rows * vocab_), 1, rows, vocab_};
            parts_.head.forward(backend_, scratch, part, here);
            backend_.copy(here.flat(), matrix(to, rows, vocab_));
          }
        }
      }
    });
  }

  /// The state of all sequences as plain numbers, for `restore` of a context of the same model and capacity. The
  /// numbers do not say how many tokens they have seen: `restore` is told, or every sequence counts from 0.
  /// Errors: `restore` refuses another number of numbers, NaN, or a negative position, and leaves the state as it was.
  std::vector<compute> state() const {
    std::vector<compute> numbers(static_cast<std::size_t>(state_bytes()) / sizeof(compute));
    backend be = backend_;
    be.copy(Mat<const compute>(state_.numbers()), matrix(numbers.data(), 1, std::ssize(numbers)));
    be.sync();
    return numbers;
  }
  /// The state of one sequence, for `restore` of a sequence of any context of the same model.
  std::vector<compute> state(Index sequence) const {
    check_sequence(sequence);
    std::vector<compute> numbers(static_cast<std::size_t>(state_bytes() / capacity()) / sizeof(compute));
    backend be = backend_;
    compute* next = numbers.data();
    for (const Mat<compute>& tensor : state_.tensors) {
      be.copy(Mat<const compute>(row_of(tensor, sequence)), matrix(next, 1, tensor.cols));
      next += tensor.cols;
    }
    be.sync();
    return numbers;
  }
  /// Puts the state of one sequence back, and the number of tokens it has seen.
  /// Errors    no such sequence, another size, NaN
  void restore(Index sequence, std::span<const compute> numbers, Index position = 0) {
    check_sequence(sequence);
    expects(position >= 0 && position <= most_tokens_seen, "rwkv: a position counts tokens, from 0 to ",
            most_tokens_seen, ", so it is not ", position);
    const Index wanted = state_bytes() / capacity() / Index{sizeof(compute)};
    expects(std::ssize(numbers) == wanted, "rwkv: a state of ", numbers.size(),
            " numbers does not fit a sequence whose state has ", wanted);
    check_numbers(numbers, 1);
    const compute* next = numbers.data();
    for (const Mat<compute>& tensor : state_.tensors) {
      backend_.copy(matrix(next, 1, tensor.cols), row_of(tensor, sequence));
      next += tensor.cols;
    }
    backend_.sync();
    positions_[static_cast<std::size_t>(sequence)] = position;
    has_logits_ = false;
  }
  /// Puts the states of all sequences back, as state() gave them; positions begin at 0.
  /// Errors    another size, NaN
  void restore(std::span<const compute> numbers) {
    const auto state = state_.numbers();
    expects(std::ssize(numbers) == state.cols, "rwkv: a state of ", numbers.size(),
            " numbers does not fit a context whose state has ", Index(state.cols));
    check_numbers(numbers, capacity());
    backend_.copy(matrix(numbers.data(), 1, std::ssize(numbers)), state);
    backend_.sync();
    std::fill(positions_.begin(), positions_.end(), 0);
    has_logits_ = false;
  }

  /// A second context that starts from the state of this one.
  Context fork() const {
    Context other(parts_, owner_, backend_, options_, sizes_);
    other.resize(batch_);
    backend be = backend_;
    be.sync();
    other.backend_.copy(Mat<const compute>(state_.numbers()), other.state_.numbers());
    other.backend_.copy(matrix(static_cast<const compute*>(logits_), batch_, vocab_),
                        matrix(other.logits_, batch_, vocab_));
    other.positions_ = positions_;
    other.has_logits_ = has_logits_;
    other.backend_.sync();
    return other;
  }

  /// Calls visitor(name, view) for every state tensor, view [batch, numbers per sequence].
  template <class Visitor>
  void visit_state(Visitor&& visitor) {
    parts_.body.visit_state(state_.views, std::string(),
                            [&](const std::string& name, Index, Mat<compute>& view) { visitor(name, view); });
  }
  /// Tells models apart by their weights: a hash over names, shapes and some numbers of every parameter. The same for the
  /// same weights on any backend, in any number type that holds them exactly.
  std::uint64_t fingerprint() const {
    auto parts = parts_;  // descriptors; the numbers are not copied
    std::vector<StoredParameter> parameters;
    M::visit(parts, ListStoredParameters<compute>{parameters});
    return detail::fingerprint_of(parameters, sizes_, backend_);
  }
  /// What the numbers of `state(sequence)` are.
  StateLayout state_layout() const {
    StateLayout layout{detail::version_of<decltype(M::Parts::body)>, sizes_, dtype_of<compute>(), {}};
    auto views = state_.views;
    parts_.body.visit_state(views, std::string(), [&](const std::string& name, Index numbers, Mat<compute>&) {
      layout.tensors.push_back({name, numbers});
    });
    return layout;
  }

 private:
  friend class StateRing<M>;

  Context(const typename M::Parts& parts, std::shared_ptr<const void> owner, const backend& be,
          const ContextOptions& options, const ModelSizes& sizes)
      : parts_(parts), owner_(std::move(owner)), backend_(own(be)), options_(checked(options)), sizes_(sizes),
        batch_(options.batch), vocab_(sizes.vocab), width_(sizes.width), state_(backend_, parts_.body, options.batch),
        host_logits_(backend_, host_reaches<backend> ? 0 : static_cast<std::size_t>(options.batch * sizes.vocab)),
        tokens_(backend_, static_cast<std::size_t>(options.batch * options.chunk)),
        positions_(static_cast<std::size_t>(options.batch)) {
    if constexpr (RunsInCascade<Body>) {
      if (unwatched_tile_tokens(options.chunk) < options.chunk) workers_ = cascade_workers(backend_);
    }
    scratch_memory_ = scratch_for(backend_, [&](Arena ws) { run_largest(ws); });
    logits_memory_ = Memory<backend>(backend_, options.batch * vocab_ * Index{sizeof(compute)});
    logits_ = reinterpret_cast<compute*>(logits_memory_.data());
  }

  struct NoTap {};
  /// Writes the logits after the last token.
  struct LogitsOfLast {
    Context& context;
    void operator()(Arena ws, Seq<compute, Width> x, Index begin, Index time) const {
      if (begin + x.time != time) return;
      context.head_of_last(ws, x);
      context.fetch_logits();
    }
  };
  /// While it lives, a sequence is the whole batch.
  struct Alone {
    Context& context;
    Index sequence, batch = context.batch_, position = context.position(sequence);
    typename Body::State views = context.state_.views;

    Alone(Context& whole, Index nth) : context(whole), sequence(nth) {
      context.state_.views = context.state_.sequence(context.parts_.body, nth);
      context.batch_ = 1;
      context.logits_ += nth * context.vocab_;
    }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;
    ~Alone() {
      context.state_.views = views;
      context.batch_ = batch;
      context.logits_ -= sequence * context.vocab_;
      const Index taken = context.position(sequence) - position;
      context.count(-taken);  // of all, and then of this one again
      context.positions_[static_cast<std::size_t>(sequence)] += taken;
    }
  };
  /// A prompt that a Watch may stop: in pieces that take a layer a moment; if it is stopped, the states go back. The last
  /// report comes before logits are written over.
  struct Watched {
    Context& context;
    bool active, had_logits = context.has_logits_;
    Index chunk;
    detail::Reporting reporting;
    std::vector<compute> before{};

    Watched(Context& runs, Index time)
        : context(runs), active(time > 1 && detail::is_watched()), chunk(active ? runs.piece() : runs.options_.chunk),
          reporting(Phase::prefill, time, runs.sizes_.depth * ((time + chunk - 1) / chunk), active) {
      if (active) before = context.state();
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    // NOLINTNEXTLINE(bugprone-exception-escape): the copy fails only where the device is lost, and with it the program
    ~Watched() {
      if (before.empty()) return;
      context.has_logits_ = had_logits;
      context.backend_.copy(matrix(std::as_const(before).data(), 1, std::ssize(before)), context.state_.numbers());
      context.backend_.sync();
    }
    void finish() {
      if (!active) return;
      context.backend_.sync();
      reporting.finish();
      before.clear();
    }
  };
  /// As many tokens as keep a layer busy for a moment.
  Index piece() const {
    constexpr Index most_multiplications = 1'000'000'000, per_token = 12;  // times width^2, in a layer
    const Index for_a_token = std::max<Index>(1, per_token * width_ * width_ * batch());
    return std::clamp<Index>(most_multiplications / for_a_token, 1, options_.chunk);
  }
  static constexpr bool can_record = !std::is_same_v<typename detail::recording_of<backend>::type, detail::NoRecording>;

  /// A backend with a queue gives every context a queue of its own.
  static backend own(const backend& be) {
    if constexpr (requires { be.independent(); }) return be.independent();
    else return be;
  }

  static Mat<compute> row_of(const Mat<compute>& tensor, Index nth) {
    return {tensor.row(nth), 1, tensor.cols, tensor.stride};
  }
  void check_sequence(Index sequence) const {
    expects(sequence >= 0 && sequence < batch_, "rwkv: there is no sequence ", sequence, " in a context of ", batch_);
  }
  /// Refuses NaN in a state of so many sequences. An infinity may be what a cell keeps.
  void check_numbers(std::span<const compute> numbers, Index sequences) const {
    const auto found = std::find_if(numbers.begin(), numbers.end(), [](compute number) { return is_nan(number); });
    if (found == numbers.end()) return;
    Index at = found - numbers.begin();
    for (const StateTensor& tensor : state_layout().tensors) {
      if (at < sequences * tensor.numbers)
        fail("rwkv: ", tensor.name, " of the state has NaN at ", at % tensor.numbers);
      at -= sequences * tensor.numbers;
    }
  }
  /// After an error the batch is unchanged, but steps may run without a recording.
  void resize(Index batch) {
    auto views = state_.first(parts_.body, batch);  // memory may end here, before anything changes
    struct Undo {
      Context& context;
      typename Body::State& views;
      Index batch = context.batch_;
      bool needed = true;

      void exchange(Index shown) {
        context.state_.exchange(views, shown);
        context.batch_ = shown;
      }
      ~Undo() {
        if (needed) exchange(batch);
      }
    } undo{*this, views};
    recording_.reset();
    drawing_.reset();
    drawing_owner_.reset();
    undo.exchange(batch);
    record();
    undo.needed = false;
    has_logits_ = false;
    sequences_.renew();
  }

  /// Records a step of all sequences. A replay reads the tokens in tokens_ at that time and writes the logits.
  void record() {
    if constexpr (can_record) {
      if (!options_.record || batch_ == 0) return;
      recording_.emplace(backend_.record([&] {
        queue_step();
        fetch_logits();
      }));
    }
  }
  template <class R>
  void replay(const R& recording, std::span<const Token> tokens) {
    take_tokens(0, tokens);
    backend_.replay(recording);
    backend_.sync();
    count(1);
  }
  /// Counts tokens that every sequence has taken.
  void count(Index tokens) {
    for (Index& position : positions_) position += tokens;
  }

  /// Copies tokens into tokens_; memmove, because drawn tokens are in tokens_ already.
  void take_tokens(Index at, std::span<const Token> tokens) {
    std::memmove(tokens_.numbers().data() + at, tokens.data(), tokens.size_bytes());
  }
  /// Queues a step by the tokens in tokens_, without copying the logits to the host.
  void queue_step() {
    Arena ws = scratch_memory_.arena();
    NoTap none;
    const auto x = advance(ws, 1, none);
    head_of_last(ws, x);
  }
  template <class S>
  void queue_draw(S& sampler) {
    sampler(backend_, matrix(static_cast<const compute*>(logits_), batch_, vocab_), tokens_.numbers().data());
  }
  template <class S>
  void check_draw(S& sampler) {
    if constexpr (requires { sampler.check(); }) sampler.check();
  }

  std::span<const compute> logits() {
    const auto count = static_cast<std::size_t>(batch() * vocab_);
    if constexpr (host_reaches<backend>) return {logits_, count};
    else return std::span<const compute>(host_logits_.numbers()).first(count);
  }

  static const ContextOptions& checked(const ContextOptions& options) {
    expects(options.batch > 0, "rwkv: a context needs a batch above zero, not ", options.batch);
    expects(options.chunk > 0, "rwkv: a context needs a chunk above zero, not ", options.chunk);
    constexpr Index most_tokens = Index{1} << 31;
    expects(options.batch <= most_tokens / options.chunk, "rwkv: a batch of ", options.batch, " with chunks of ",
            options.chunk, " is more than ", most_tokens, " tokens at a time");
    return options;
  }

  /// The run that needs the most scratch, for a dry pass.
  void run_largest(Arena ws) {
    const auto x = take_chunk(ws, options_.chunk);
    NoTap none;
    run_body(ws, {}, x, x.time, none);
    if (const Index tile = unwatched_tile_tokens(x.time); tile < x.time) run_body(ws, {}, x, tile, none);
    head_of_last(ws, x);
    const Index rows = head_rows(x.time);
    Arena scratch = ws;
    if (!host_reaches<backend>) scratch.template take<compute>(rows * vocab_);
    parts_.head.forward(backend_, scratch, Seq<const compute, Width>{x.data, 1, rows, x.width},
                        Seq<compute>{nullptr, 1, rows, vocab_});
  }

  Seq<compute, Width> take_chunk(Arena& ws, Index time) const {
    return {ws.take<compute>(batch() * time * width_), batch(), time, width_};
  }

  void check_tokens(std::span<const Token> tokens) const {
    expects(batch() > 0, "rwkv: there is no sequence to run: all have been removed");
    expects(!tokens.empty(), "rwkv: there is no token to run: the prompt is empty");
    expects(std::ssize(tokens) % batch() == 0, "rwkv: ", tokens.size(), " tokens do not divide into ", batch(),
            " sequences");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      expects(tokens[i] >= 0 && tokens[i] < vocab_, "rwkv: token ", tokens[i], " at position ", i,
              " is outside the vocabulary of ", vocab_);
    }
  }

  /// Runs the body chunk by chunk and calls each(scratch, x, begin, time) for every chunk: x is its residual stream,
  /// `begin` the position of its first token, `time` the number of all tokens.
  template <class Each>
  void run(std::span<const Token> tokens, const Each& each) {
    NoTap none;
    run(tokens, each, none);
  }
  template <class Each, class Tap>
  void run(std::span<const Token> tokens, const Each& each, Tap& tap) {
    check_tokens(tokens);
    const Index time = std::ssize(tokens) / batch();
    Watched watched(*this, time);
    has_logits_ = false;
    for (Index begin = 0; begin < time; begin += watched.chunk) {
      const Index length = std::min(watched.chunk, time - begin);
      const Index step = std::is_same_v<std::remove_const_t<Tap>, NoTap> ? tile_tokens(length) : length;
      for (Index at = 0; at < length; at += step) {
        const Index count = std::min(step, length - at);
        for (Index b = 0; b < batch(); ++b) {
          take_tokens(at * batch() + b * count,
                      tokens.subspan(static_cast<std::size_t>(b * time + begin + at), static_cast<std::size_t>(count)));
        }
      }
      Arena ws = scratch_memory_.arena();
      const auto x = advance(ws, length, tap);
      if (begin + length == time) watched.finish();
      for (Index at = 0; at < length; at += step) {
        each(ws, cascade_tile(x, at, step), begin + at, time);
      }
      // The next chunk overwrites these tokens, so queued work must have read them.
      if (watched.active || (!host_reaches<backend> && begin + length < time)) backend_.sync();
    }
    backend_.sync();
    count(time);
  }

  /// The number of positions whose logits are in scratch at a time; only used where the host cannot read logits in
  /// place.
  static Index head_rows(Index time) { return host_reaches<backend> ? time : std::min<Index>(time, 32); }

  /// The tokens of a tile where `length` tokens run as a cascade; they then lie tile after tile. Otherwise `length`.
  /// A watched prompt runs layer by layer, because a layer that is stopped throws.
  Index tile_tokens(Index length) const { return detail::is_watched() ? length : unwatched_tile_tokens(length); }
  Index unwatched_tile_tokens(Index length) const {
    if constexpr (RunsInCascade<Body>) {
      const bool wanted = options_.order == LayerOrder::cascade ||
                          (options_.order == LayerOrder::automatic && cascade_pays(sizes_, length, 128));
      if (wanted && backend_.threads() > 1) return std::min(length, cascade_tile_tokens(length, backend_.threads()));
    }
    return length;
  }

  /// Runs the next `length` tokens of every sequence, read from tokens_.
  template <class Tap>
  Seq<compute, Width> advance(Arena& ws, Index length, Tap& tap) {
    const auto x = take_chunk(ws, length);
    const auto count = static_cast<std::size_t>(batch() * length);
    run_body(ws, std::span<const Token>(tokens_.numbers()).first(count), x, tile_tokens(length), tap);
    return x;
  }
  /// Sets x to the residual stream behind the body; in a cascade where a tile is shorter than x.
  template <class Tap>
  void run_body(Arena ws, std::span<const Token> tokens, Seq<compute, Width> x, [[maybe_unused]] Index tile,
                [[maybe_unused]] Tap& tap) {
    auto embedded = x;
    // Layers that read the embedding need it beside the residual stream.
    if constexpr (reads_tokens<Body>) embedded = ws.like<compute>(x, x.width);
    parts_.embedding.forward(backend_, tokens, embedded);
    if constexpr (!std::is_same_v<std::remove_const_t<Tap>, NoTap>) {
      forward_tapped(parts_.body, backend_, ws, tokens, embedded, state_.views, x, tap);
      return;
    } else if constexpr (RunsInCascade<Body>) {
      if (tile < x.time) {
        return forward_in_cascade(parts_.body, backend_, std::span(workers_), ws, tokens, embedded, tile, state_.views,
                                  x);
      }
    }
    forward_of_tokens(parts_.body, backend_, ws, tokens, embedded, state_.views, x);
  }

  void head_of_last(Arena ws, Seq<compute, Width> x) {
    Seq<compute, Width> last = x;
    if (x.time > 1) {
      last = {ws.take<compute>(x.batch * width_), x.batch, 1, x.width};
      backend_.copy(x.at(x.time - 1), last.flat());
    }
    parts_.head.forward(backend_, ws, last, Seq<compute>{logits_, x.batch, 1, vocab_});
  }
  void fetch_logits() {
    if constexpr (!host_reaches<backend>) {
      const Index count = batch_ * vocab_;
      backend_.copy(matrix(logits_, 1, count), matrix(host_logits_.numbers().data(), 1, count));
    }
  }

  typename M::Parts parts_;
  std::shared_ptr<const void> owner_;
  backend backend_;
  std::vector<backend> workers_;  // of a cascade
  ContextOptions options_;
  ModelSizes sizes_;
  Index batch_;
  Index vocab_;
  Index width_;
  BodyState<Body> state_;
  Exchange<compute, backend> host_logits_;  // copy for the host; empty where the host reads logits in place
  Exchange<Token, backend> tokens_;
  Memory<backend> scratch_memory_, logits_memory_;
  std::vector<Index> positions_;  // tokens seen, of as many sequences as fit
  Stamp sequences_;               // renewed when one is added or removed
  compute* logits_ = nullptr;
  bool has_logits_ = false;  // whether logits_ belongs to the present state
  std::shared_ptr<const void> drawing_owner_;
  std::optional<typename detail::recording_of<backend>::type> recording_, drawing_;  // of a step; of step and draw
};

}  // namespace RWKV_ABI
}  // namespace rwkv
