#pragma once
/// The layers of a model divided among ranks, to run it (pipeline parallelism).
///
/// Each rank holds the weights and the states of some consecutive layers. Of a token only its activations cross from rank
/// to rank: one row of the residual stream, and what else crosses the layers of the version (see SideStreams). In a step
/// the ranks follow one another. A prompt passes in chunks, so that the ranks work side by side as the threads of a cascade
/// do (model/cascade.hpp):
///
///     rank 2             0  1  2  3
///     rank 1          0  1  2  3
///     rank 0       0  1  2  3           time goes to the right
///
/// Of R ranks and K chunks, R + K - 1 ticks of this clock take the time of R K on one rank. After each tick, every rank
/// hands its activations on.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/dequantised.hpp"
#include "rwkv/backend/memory.hpp"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/block/side_streams.hpp"
#include "rwkv/core/arena.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/fwd.hpp"
#include "rwkv/io/checkpoint.hpp"
#include "rwkv/io/names.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/model/composition.hpp"
#include "rwkv/model/state.hpp"
#include "rwkv/system/crc32.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/data_parallel.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// How a pipeline is made.
struct PipelineOptions {
  Index batch = 1;   ///< sequences side by side
  Index chunk = 64;  ///< tokens of each sequence that pass a rank at a time: few, so that all ranks soon have work
};

namespace detail {

/// What one of several ranks runs of a model: its layers; the first also the embedding, the last the head.
template <class Net>
struct RankLayers {
  typename Net::Parts parts;  // the body has these layers alone
  ModelSizes sizes;           // of the whole model
  typename Net::backend backend;
  std::shared_ptr<const void> owner{};  // of weights that no one else keeps

  /// The share of a rank in the layers of a model, or in those of an unbound one.
  RankLayers(const Net& model, int rank, int size) : parts(model.parts), sizes(model.sizes()), backend(model.device()) {
    auto& layers = parts.body.parts;
    static_assert(
        requires { layers.erase(layers.begin()); },
        "rwkv: a pipeline divides a Stack whose depth is known at run time, without a number in its type");
    const Index count = std::ssize(layers);
    expects(size <= count, "rwkv: ", size, " ranks cannot share ", count, count == 1 ? " layer" : " layers");
    layers.erase(layers.begin() + (rank + 1) * count / size, layers.end());
    layers.erase(layers.begin(), layers.begin() + rank * count / size);
  }

  std::vector<StoredParameter> parameters(int rank, int size) {
    std::vector<StoredParameter> list;
    const ListStoredParameters<typename Net::compute> visitor{list, TakesQuantised<typename Net::backend>};
    if (rank == 0) decltype(parts.embedding)::visit(parts.embedding, std::string(), visitor);
    decltype(parts.body)::visit(parts.body, std::string(), visitor);
    if (rank + 1 == size) decltype(parts.head)::visit(parts.head, std::string(), visitor);
    return list;
  }
};

}  // namespace detail

/// Runs a model whose layers are divided among the ranks of a communicator, as evenly as can be. Every rank has a pipeline,
/// and all call every function, but for plain questions, with the same arguments. The bits are those of a Context whose
/// chunk is as long, on any number of ranks.
///
/// An error on one rank is one on all, as by together(); a Watch of any rank may stop a prompt. Then the states are as they
/// were before. When ranks or messages are lost, the verbs of the communicator say so.
template <class Net, class Comm>
class Pipeline {
  static_assert(Communicator<Comm>);
  using Body = decltype(Net::Parts::body);
  using backend = typename Net::backend;
  using Layers = detail::RankLayers<Net>;
  using Making = detail::JointWork<Comm>;
  static_assert(host_reaches<backend>,
                "rwkv: ranks exchange activations in host memory; run a pipeline on a backend that works there");

 public:
  /// In which activations and logits are.
  using compute = typename Net::compute;

  /// Of a model in memory, which must outlive it; it is the same on all ranks.
  /// Errors    more ranks than layers, a batch or chunk below 1, ranks with other models or options, out of memory
  Pipeline(const Net& model, Comm comm, const PipelineOptions& options = {})
      : Pipeline{of_model(model, comm, options), comm, options, Making(comm, no_memory)} {}

  /// Of a file, of which each rank loads its layers alone; see load_checkpoint. Where it is large, or LoadOptions::access
  /// says so, the file is mapped, and pages of other layers are not read.
  /// Errors    those of load_checkpoint and those above
  static Pipeline load(const std::filesystem::path& path, Comm comm, const PipelineOptions& options = {},
                       const LoadOptions& how = {}, backend be = {}) {
    return Pipeline{of_file(path, comm, options, how, be), comm, options, Making(comm, no_memory)};
  }

  /// The sizes of the whole model.
  const ModelSizes& sizes() const { return layers_.sizes; }
  /// Bytes of the states of this rank's layers.
  Index state_bytes() const { return state_.bytes(); }
  /// Bytes of the weights that this rank runs.
  Index weight_bytes() const {
    Index bytes = 0;
    Layers copy = layers_;  // descriptors; the numbers are not copied
    for (const StoredParameter& parameter : copy.parameters(rank_, size_)) bytes += parameter.bytes();
    return bytes;
  }

  /// Sets every sequence to the state before its first token.
  void reset() { layers_.parts.body.reset(layers_.backend, state_.views); }

  /// The states of this rank's layers as plain numbers, for restore() of the same rank.
  std::vector<compute> state() const {
    const auto numbers = state_.numbers();
    return {numbers.data, numbers.data + Index(numbers.cols)};
  }
  /// Puts them back. Unlike the other functions, a rank may call it alone.
  /// Errors    another number of numbers
  void restore(std::span<const compute> numbers) {
    const auto state = state_.numbers();
    expects(std::ssize(numbers) == Index(state.cols), "rwkv: a state of ", numbers.size(),
            " numbers does not fit layers whose states have ", Index(state.cols));
    be().copy(matrix(numbers.data(), 1, std::ssize(numbers)), state);
  }

  /// Advances every sequence by one token and returns the logits that follow, [batch, vocab], on every rank, valid until
  /// the next call.
  /// Errors    a number of tokens other than `batch`, and those of prefill
  std::span<const compute> step(std::span<const Token> tokens) & {
    expects(std::ssize(tokens) == options_.batch, "rwkv: step takes one token for each of the ", options_.batch,
            " sequences of the pipeline, not ", tokens.size());
    return prefill(tokens);
  }
  /// Advances the only sequence by a token; see above.
  std::span<const compute> step(Token token) & { return step(std::span<const Token>(&token, 1)); }

  /// Advances every sequence by the same number of tokens. Returns the logits after the last token, [batch, vocab], on
  /// every rank, valid until the next call.
  /// Shapes    tokens: [batch, time]
  /// Errors    no token, a number of tokens that is no multiple of the batch, a token outside the vocabulary, other tokens
  ///           on another rank; Cancelled by a Watch. The states are left as they were
  std::span<const compute> prefill(std::span<const Token> tokens) & {
    together(comm_, "tokens", [&] {
      check(tokens);
      return std::uint64_t{detail::crc32(std::as_bytes(tokens))} << 32 | tokens.size();
    });
    be().copy(Mat<const compute>(state_.numbers()), before_.numbers());
    Undo undo{*this};
    const Index time = std::ssize(tokens) / options_.batch, chunks = (time + options_.chunk - 1) / options_.chunk;
    detail::Reporting reporting(Phase::prefill, time, chunks * std::ssize(layers_.parts.body.parts) * layers_in_part,
                                time > 1);
    detail::Outcome outcome;
    for (Index tick = 0; tick < chunks + size_ - 1; ++tick) {
      const Index mine = tick - rank_;
      if (mine >= 0 && mine < chunks && outcome.kind == detail::Outcome::done) {
        outcome = detail::outcome_of([&] {
          run(tokens, time, mine * options_.chunk);
          if (mine + 1 == chunks) reporting.finish();
        });
      }
      const bool is_last = tick + 1 == chunks + size_ - 1;
      if (!is_last && !hand_on(time, tick, outcome.kind == detail::Outcome::done)) break;
    }
    together(comm_, "states", [&] {
      if (outcome.thrown) std::rethrow_exception(outcome.thrown);
      return std::uint64_t{0};
    });
    undo.needed = false;
    comm_.broadcast(std::as_writable_bytes(std::span(logits_)), size_ - 1);
    return logits_;
  }

 private:
  static constexpr std::string_view no_memory = "rwkv: there was no memory for the states of its layers";

  using Flag = std::array<std::uint64_t, 8>;  // a cache line, so that the activations behind it are aligned
  static constexpr bool crosses_values = uses_side_streams<Body>, crosses_embedding = reads_tokens<Body>;
  static constexpr Index layers_in_part = std::remove_reference_t<decltype(std::declval<Body&>().parts[0])>::layers;

  /// Puts the states back, unless a call succeeds.
  struct Undo {
    Pipeline& pipeline;
    bool needed = true;

    ~Undo() {
      if (needed) pipeline.be().copy(Mat<const compute>(pipeline.before_.numbers()), pipeline.state_.numbers());
    }
  };

  /// What crosses from rank to rank, for some tokens of each sequence; views without memory in a dry pass.
  struct Activations {
    Seq<compute, Body::Width> x, first_value, embedding;
  };

  Pipeline(Layers layers, const Comm& comm, const PipelineOptions& options, Making&& making)
      : comm_(comm), rank_(comm.rank()), size_(comm.size()), options_(options), layers_(std::move(layers)),
        state_(layers_.backend, layers_.parts.body, options.batch),
        before_(layers_.backend, layers_.parts.body, options.batch),
        tokens_(static_cast<std::size_t>(options.batch * options.chunk)),
        logits_(static_cast<std::size_t>(options.batch * layers_.sizes.vocab)), flags_(std::size_t(size_)),
        to_(std::size_t(size_)), from_(std::size_t(size_)) {
    for (auto& message : messages_) {
      message = Memory<backend>(be(), Index{sizeof(Flag)} + activation_bytes(options.chunk));
    }
    scratch_ = scratch_for(be(), [&](Arena ws) {
      const Activations all = activations(nullptr, options_.chunk);
      run_layers(ws, {}, all);
      if (is_last()) head_of_last(ws, all.x);
    });
    reset();
    making.done();
  }

  /// Errors on all ranks, where one has any; the layers of this rank if not.
  static Layers of_model(const Net& model, Comm& comm, const PipelineOptions& options) {
    std::vector<Layers> layers;
    together(comm, "models or options of a pipeline", [&] {
      layers.push_back(checked(model, comm, options));
      for (const StoredParameter& parameter : layers[0].parameters(comm.rank(), comm.size())) {
        expects(parameter.data != nullptr, "rwkv: the model has no weights: it is unbound, or was moved from");
      }
      return fingerprint(model.stored_parameters(), options);
    });
    return std::move(layers[0]);
  }
  static Layers of_file(const std::filesystem::path& path, Comm& comm, const PipelineOptions& options,
                        const LoadOptions& how, const backend& be) {
    std::vector<Layers> layers;
    together(comm, "models or options of a pipeline", [&] {
      expects(how.adapters.empty(), "rwkv: a pipeline takes no adapters; save the model with them, and load that");
      const TensorFile file = open_tensors(path, {how.access, how.verify_checksums});
      detail::check_composition(file, composition<Net>(), how);
      const OfficialNames names(file);
      Net whole = detail::unbound_for<Net>(names, be);
      const auto all = whole.stored_parameters();
      LoadOptions without_values = how;  // those of other layers are not read
      without_values.check_values = false;
      detail::check_fit(all, names, without_values);
      Layers own = checked(whole, comm, options);
      auto parameters = own.parameters(comm.rank(), comm.size());
      own.owner = detail::bind_to_file(parameters, names, detail::weight_memory(own.backend));
      if (how.check_values) {
        std::vector<std::string> list;
        for (const StoredParameter& parameter : parameters) {
          const auto* bytes = static_cast<const std::byte*>(parameter.data);
          detail::add_not_finite(parameter, parameter.dtype, {bytes, static_cast<std::size_t>(parameter.bytes())},
                                 list);
        }
        detail::expect_finite(list);
      }
      if (how.note) {
        for (const std::string& note : detail::notes_on(names, whole.sizes())) how.note(note);
      }
      layers.push_back(std::move(own));
      return fingerprint(all, options);
    });
    return std::move(layers[0]);
  }
  static Layers checked(const Net& model, const Comm& comm, const PipelineOptions& options) {
    expects(options.batch > 0, "rwkv: a pipeline needs a batch above zero, not ", options.batch);
    expects(options.chunk > 0, "rwkv: a pipeline needs a chunk above zero, not ", options.chunk);
    constexpr Index most_tokens = Index{1} << 31;
    expects(options.batch <= most_tokens / options.chunk, "rwkv: a batch of ", options.batch, " with chunks of ",
            options.chunk, " is more than ", most_tokens, " tokens at a time");
    return Layers(model, comm.rank(), comm.size());
  }
  /// A number that other models and options do not have. It does not depend on the weights.
  static std::uint64_t fingerprint(const std::vector<StoredParameter>& parameters, const PipelineOptions& options) {
    std::string text = join(options.batch, ' ', options.chunk);
    for (const StoredParameter& parameter : parameters) text += join(' ', parameter.name, parameter.shape.span());
    return stream_of(text);
  }

  backend& be() { return layers_.backend; }
  bool is_first() const { return rank_ == 0; }
  bool is_last() const { return rank_ + 1 == size_; }

  void check(std::span<const Token> tokens) const {
    expects(!tokens.empty(), "rwkv: there is no token to run: the prompt is empty");
    expects(std::ssize(tokens) % options_.batch == 0, "rwkv: ", tokens.size(), " tokens do not divide into ",
            options_.batch, " sequences");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      expects(tokens[i] >= 0 && tokens[i] < sizes().vocab, "rwkv: token ", tokens[i], " at position ", i,
              " is outside the vocabulary of ", sizes().vocab);
    }
  }

  /// Of `count` tokens of each sequence.
  Index activation_bytes(Index count) const {
    return options_.batch * count * sizes().width * (1 + crosses_values + crosses_embedding) * Index{sizeof(compute)};
  }
  Activations activations(std::byte* memory, Index count) const {
    const auto width = layers_.parts.embedding.dims.width;
    compute* next = reinterpret_cast<compute*>(memory);
    const auto take = [&](bool crosses) -> Seq<compute, Body::Width> {
      compute* const data = crosses ? next : nullptr;
      if (data != nullptr) next += options_.batch * count * Index(width);
      return {data, options_.batch, count, width};
    };
    Activations all;
    all.x = take(true);
    all.first_value = take(crosses_values);
    all.embedding = take(crosses_embedding);
    return all;
  }

  /// Runs the layers of this rank on the tokens of each sequence from `begin` on.
  void run(std::span<const Token> tokens, Index time, Index begin) {
    const Index count = std::min(options_.chunk, time - begin);
    for (Index b = 0; b < options_.batch; ++b) {
      std::copy_n(tokens.begin() + b * time + begin, count, tokens_.begin() + b * count);
    }
    Arena ws = scratch_.arena();
    const Activations all = activations(messages_[0].data() + sizeof(Flag), count);
    run_layers(ws, std::span<const Token>(tokens_).first(static_cast<std::size_t>(options_.batch * count)), all);
    if (is_last() && begin + count == time) head_of_last(ws, all.x);
    be().sync();
  }
  void run_layers(Arena ws, std::span<const Token> tokens, const Activations& all) {
    Seq<const compute, Body::Width> in = all.x;
    if (is_first()) {
      const auto embedded = crosses_embedding ? all.embedding : all.x;
      layers_.parts.embedding.forward(be(), tokens, embedded);
      in = embedded;
    }
    SideStreams<compute> side;
    side.tokens = tokens;
    side.embedding = all.embedding;
    side.first_value = all.first_value;
    side.provided = !is_first();  // by the first layer that uses it, and all parts of a stack are of one type
    forward_beside(layers_.parts.body, be(), ws, side, in, state_.views, all.x);
  }
  void head_of_last(Arena ws, Seq<compute, Body::Width> x) {
    const Seq<compute, Body::Width> last{ws.take<compute>(x.batch * Index(x.width)), x.batch, 1, x.width};
    be().copy(x.at(x.time - 1), last.flat());
    layers_.parts.head.forward(be(), ws, last, Seq<compute>{logits_.data(), x.batch, 1, sizes().vocab});
  }

  /// Ends a tick: what this rank has computed in it goes to the next, and to all ranks whether all is well here. Returns
  /// whether it is on all.
  bool hand_on(Index time, Index tick, bool well) {
    const auto bytes_made_by = [&](Index rank) {
      const Index begin = (tick - rank) * options_.chunk;
      return begin < 0 || begin >= time ? 0 : activation_bytes(std::min(options_.chunk, time - begin));
    };
    Flag mine{well ? 0u : 1u};
    std::byte *const made = messages_[0].data(), *const comes = messages_[1].data();
    std::copy_n(std::as_bytes(std::span(mine)).data(), sizeof(Flag), made);
    const auto message = [&](std::byte* memory, Index rank) {
      return std::span(memory, sizeof(Flag) + static_cast<std::size_t>(bytes_made_by(rank)));
    };
    for (Index q = 0; q < size_; ++q) {
      const auto nth = static_cast<std::size_t>(q);
      to_[nth] = q == rank_ + 1 ? message(made, rank_) : std::span(made, sizeof(Flag));
      from_[nth] = q == rank_ - 1 ? message(comes, q) : std::as_writable_bytes(std::span(flags_[nth]));
    }
    comm_.all_to_all(to_, from_);
    if (!is_first()) {
      auto& flag = flags_[static_cast<std::size_t>(rank_ - 1)];
      std::copy_n(comes, sizeof(Flag), std::as_writable_bytes(std::span(flag)).data());
      if (bytes_made_by(rank_ - 1) > 0) std::swap(messages_[0], messages_[1]);
    }
    return std::all_of(flags_.begin(), flags_.end(), [](const Flag& flag) { return flag[0] == 0; });
  }

  Comm comm_;
  int rank_, size_;
  PipelineOptions options_;
  Layers layers_;
  BodyState<Body> state_, before_;
  std::vector<Token> tokens_;  // of a chunk
  std::vector<compute> logits_;
  Memory<backend>
      messages_[2];  // a flag and activations: what this rank works on, and where those of the next tick arrive
  Memory<backend> scratch_;
  std::vector<Flag> flags_;  // of all ranks
  std::vector<std::span<const std::byte>> to_;
  std::vector<std::span<std::byte>> from_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
