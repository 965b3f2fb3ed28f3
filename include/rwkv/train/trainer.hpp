#pragma once
/// Training of a model: gradients, clipping, AdamW, averaging, low-rank adaptation, and checkpoints that resume
/// exactly.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/flat_rows.hpp"
#include "rwkv/backend/scratch.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/finite.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/io/adapter.hpp"
#include "rwkv/model/composition.hpp"
#include "rwkv/model/fingerprint.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/system/glob.hpp"
#include "rwkv/train/adamw.hpp"
#include "rwkv/train/average.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/gradient.hpp"
#include "rwkv/train/lora.hpp"
#include "rwkv/train/run_file.hpp"
#include "rwkv/train/token_data.hpp"
#include "rwkv/train/trainer_options.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// What one of several ranks does in a step; see data_parallel.hpp.
template <class T, class B, class C>
class Share;
template <Communicator C>
class JointWork;

/// The place of a Share where one process trains alone: all sequences of a batch are its own, in one pass.
class Alone {
 public:
  Alone(SelfComm, const Sharing&, const BatchShape& shape) : sequences_(shape.batch) {}
  Index grain() const { return sequences_; }
  Index rows() const { return sequences_; }

 private:
  Index sequences_;
};

/// The place of a JointWork there.
struct LoneWork {
  LoneWork(SelfComm, std::string_view) {}
  void done() {}
};

}  // namespace detail

/// Trains a model in place, one step at a time. A step is a pure function of the run so far, the options and the batch,
/// for any number of threads. So equal runs give equal bits.
///
/// P says what a pass keeps: Keep or Recompute. With a communicator of several ranks, each has a trainer for its own copy
/// of the model, and all call every function, but for plain questions, with the same arguments; each takes its share of
/// the batch. By default the ranks' number does not change a bit; see Sharing. An error on one rank is one on all: an Error,
/// or Cancelled where a Watch of that rank says so. What else one throws, such as std::bad_alloc, the others throw as an
/// Error.
template <class Net, class P, class Comm>
class Trainer {
  using backend = typename Net::backend;
  using Body = decltype(Net::Parts::body);
  static_assert(Communicator<Comm>);
  static constexpr bool alone = std::is_same_v<Comm, SelfComm>;
  using Share = std::conditional_t<alone, detail::Alone, detail::Share<typename Net::compute, backend, Comm>>;
  using Making = std::conditional_t<alone, detail::LoneWork, detail::JointWork<Comm>>;

 public:
  /// In which gradients and moments are.
  using scalar = typename Net::compute;

  /// `sharing` matters to several ranks; SelfComm computes the gradient of a batch in one pass.
  /// Errors    settings that make no sense; patterns that select nothing, or all; ranks with other options, weights or
  ///           versions of the library, or too many for the batch
  Trainer(Net& net, const TrainerOptions& options, Comm comm = {}, const Sharing& sharing = {})
      : Trainer{net, agreed(net, options, comm, sharing), comm, sharing,
                Making(comm, "rwkv: there was no memory for its trainer, or nothing to train")} {}

  /// One step: gradient, clipping, update. A batch that is not fresh continues from the state after the previous batch.
  /// Returns the loss before the update, in nats per token.
  /// Errors    a batch of another shape, tokens outside the vocabulary, and a loss or gradient that is not finite: the
  ///           error names the step and the first tensor to blame; Cancelled by a Watch. Everything is as it was before the
  ///           step
  double step(const Batch& batch) { return step(std::span<const Batch>(&batch, 1)); }

  /// One step over several batches whose gradients are averaged (gradient accumulation), for batches larger than
  /// memory.
  double step(std::span<const Batch> parts) {
    if constexpr (alone) check(parts);
    else
      share_.together([&] { return join("batches in training step ", steps_); },
                      [&] { return check(parts), Share::hash_of(steps_, parts); });
    backend_.copy(Mat<const scalar>(carried().numbers()), before_.numbers());
    const Index tokens = std::ssize(parts) * options_.shape.batch * options_.shape.length;
    const Index passes = std::ssize(parts) * share_.rows() / share_.grain();
    detail::Reporting reporting(Phase::train, tokens, passes * depth_ * 3);  // forwards once, backwards twice the work
    Undo undo{*this};
    const double loss = add_gradients(parts, reporting);
    const double norm = std::sqrt(squares(scratch_.arena()));
    if constexpr (alone) reporting.finish();
    if (!is_finite(loss) || !is_finite(norm)) {
      fail("rwkv: training step ", steps_, ": the loss is ", loss, ", the gradient's norm ", norm, "; ",
           first_not_finite());
    }
    undo.needed = false;
    norm_ = norm;
    update(options_.rate(steps_));
    ++steps_;
    return loss;
  }

  /// Steps taken so far.
  Index steps() const { return steps_; }
  /// The norm of the whole gradient in the last step, before clipping.
  double gradient_norm() const { return norm_; }
  /// The learning rate of the next step.
  double learning_rate() const { return options_.rate(steps_); }
  /// What it steps by: losses and gradients; of several ranks, those of this rank's last pass.
  const Gradient<Net, P>& gradient() const { return gradient_; }
  /// Bytes of moments and averages on this rank.
  Index moment_bytes() const { return moments_.bytes(); }
  /// Bytes of factors with their gradients and of the matrices without them; of a run that tunes the state, of its gradient.
  Index factor_bytes() const { return memory_.bytes(); }

  /// The trained initial state of one sequence, in host memory, for Context::restore() of a context of batch 1.
  std::vector<scalar> initial_state() const {
    const auto numbers = initial_.numbers();
    backend be = backend_;
    const OnHost read(be, std::span<const scalar>(numbers.data, static_cast<std::size_t>(Index(numbers.cols))));
    return {read.begin(), read.end()};
  }

  /// The trained factors, for save_adapter(), in float. While the average is exchanged, the average of the factors.
  /// Errors    a run without factors
  Adapter adapter() const {
    expects(!adapted_.empty(), "rwkv: this run trains no factors of matrices, so it has no adapter");
    Adapter adapter{"the adapter of a run", {}, base_};
    backend be = backend_;
    const auto floats = [&](Mat<scalar> m) {
      const OnHost numbers(be, std::span<const scalar>(m.data, static_cast<std::size_t>(m.rows * m.cols)));
      return std::vector<float>(numbers.begin(), numbers.end());
    };
    for (std::size_t i = 0; i < adapted_.size(); ++i) {
      const AdaptedMatrix<scalar>& m = adapted_[i];
      const bool is_miss = m.da.data == nullptr;
      adapter.matrices.push_back({adapted_names_[i], m.w.rows, is_miss ? 0 : Index(m.w.cols), m.b.cols, m.scale,
                                  is_miss ? std::vector<float>() : floats(m.a), floats(m.b)});
    }
    return adapter;
  }

  /// Swaps the trained parameters and their moving average, to evaluate or save the average. A second call swaps back;
  /// until then the run can neither step nor be saved.
  void exchange_average() {
    expects(options_.average > 0, "rwkv: this run keeps no moving average");
    for (const Tuned& tuned : tuned_) {
      const auto value = tuned.tokens(tuned.value), average = tuned.tokens(tuned.average);
      backend_.rows(Exchanged{}, arg::in(value), arg::in(average), arg::out(value), arg::out(average));
    }
    if constexpr (!alone) share_.spread(backend_);
    merge();
    backend_.sync();  // contexts read the weights in other streams
    exchanged_ = !exchanged_;
  }

  /// Writes everything the run depends on as .safetensors, atomically: weights under their own names, moments, average,
  /// factors, carried state, the number of the step, a checksum of every tensor and one of all texts. `notes` are
  /// stored as texts, with `note.` in front of their keys. Of several ranks, the first writes the file; it has the same
  /// bytes for any number of ranks, and any number resumes from it.
  ///
  /// Files beside it that are named .rwkv-N.tmp, as a save that was killed leaves them, are removed where no process holds
  /// their lock. So processes on several machines may save to one folder only if its file system keeps locks between them.
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& notes = {},
            FileSystem& files = system_files()) const {
    expects(!exchanged_, "rwkv: the model holds the moving average; call exchange_average() again before saving");
    auto texts = settings();
    texts["step"] = join(steps_);
    if (!adapted_.empty()) texts["base.high"] = join(base_ >> 32), texts["base.low"] = join(base_ & 0xffffffffu);
    for (const auto& [key, text] : notes) texts["note." + key] = text;
    backend be = backend_;
    if constexpr (alone) {
      save_run<scalar>(be, path, contents(), texts, files);
    } else {
      std::deque<std::vector<scalar>> whole;
      const auto tensors = collected(whole);
      share_.together("files", [&] {
        if (share_.is_first()) save_run<scalar>(be, path, tensors, texts, files);
        return std::uint64_t{0};
      });
    }
  }

  /// Resumes from a file of save(): the next steps give the same bits as in the run that wrote it. Returns its notes. What a
  /// save that was killed left beside the file is removed, of several ranks by the first.
  /// Errors    a file that is damaged, of another model, or of a run with other settings: nothing changes
  std::map<std::string, std::string> resume(const std::filesystem::path& path, FileSystem& files = system_files()) {
    expects(!exchanged_, "rwkv: the model holds the moving average; call exchange_average() again before resuming");
    const auto tensors = contents();
    std::optional<RunFile<scalar>> file;
    if constexpr (alone) {
      file.emplace(path, tensors, settings(), files);
      detail::remove_abandoned_beside(path, files);
    } else {
      share_.together([&] { return "contents of " + path.filename().string(); },
                      [&] {
                        file.emplace(path, tensors, settings(), files);
                        if (share_.is_first()) detail::remove_abandoned_beside(path, files);
                        return file->fingerprint();
                      });
    }
    auto notes = file->texts_after("note.");
    if (!adapted_.empty()) {
      base_ = static_cast<std::uint64_t>(file->number("base.high")) << 32 |
              static_cast<std::uint64_t>(file->number("base.low"));
    }
    steps_ = file->number("step");
    file->copy_to(backend_, tensors);
    if constexpr (!alone) file->copy_to(backend_, own_state());
    return notes;
  }

 private:
  /// After agreed().
  Trainer(Net& net, const TrainerOptions& options, const Comm& comm, const Sharing& sharing, Making&& making)
      : options_(options), share_(comm, sharing, options.shape), backend_(net.device()), body_(net.parts.body),
        gradient_(net, {share_.grain(), options.shape.length, options.head_chunk, options.l2_wrap, options.order},
                  [&](const TensorSpec& spec) { return !options.tune_state && detail::is_trained(options, spec); }),
        initial_(backend_, body_, 1), carried_(backend_, body_, alone ? 0 : share_.rows()),
        before_(backend_, body_, share_.rows()), depth_(net.sizes().depth) {
    body_.reset(backend_, initial_.views);
    if (options_.tune_state) begin_tuning_of(body_, backend_, initial_.views);
    collect(net);  // an average begins with the values
    scratch_ = scratch_for(backend_, [&](Arena ws) { squares(ws); });
    start_sequences(carried());
    making.done();
  }

  /// Puts the state that is carried back, unless a step succeeds.
  struct Undo {
    Trainer& run;
    bool needed = true;

    ~Undo() {
      if (needed) run.backend_.copy(Mat<const scalar>(run.before_.numbers()), run.carried().numbers());
    }
  };
  /// One tensor that the optimiser changes; of several ranks, the part of it that this rank changes.
  struct Tuned {
    std::string name;
    ParameterTraits traits;
    Shape shape;
    std::span<scalar> value, gradient, first{}, second{}, average{};
    Index begin = 0;  // of the part, in the tensor

    Index width() const { return shape.rank == 0 ? 1 : shape.sizes[shape.rank - 1]; }
    Seq<scalar> tokens(std::span<scalar> numbers) const {
      return {numbers.data(), 1, width() == 0 ? 0 : std::ssize(numbers) / width(), width()};
    }
  };

  /// The options, after checks that the ranks train alike.
  static const TrainerOptions& agreed(Net& net, const TrainerOptions& options, Comm& comm, const Sharing& sharing) {
    if constexpr (alone) {
      static_cast<void>(net), static_cast<void>(comm), static_cast<void>(sharing);
      return detail::checked(options);
    } else {
      Share::agree_on(comm, sharing, options.shape, [&] {
        std::vector<std::string> lines;
        for (const auto& [key, text] : detail::in_words(detail::checked(options), Share::in_words(sharing))) {
          lines.push_back(key + " is '" + text + "'");
        }
        lines.push_back(join("the seed is ", options.seed.value));
        backend be = net.device();
        for (const auto& parameter : net.parameters()) {
          const OnHost numbers(be, parameter.numbers());
          lines.push_back(join(parameter.name, " of ", parameter.shape.span(), " has the checksum ",
                               Share::checksum(numbers.numbers())));
        }
        return lines;
      });
      return options;
    }
  }

  /// Throws the errors of step() that the batches alone decide.
  void check(std::span<const Batch> parts) const {
    expects(!parts.empty(), "rwkv: a training step needs a batch");
    for (const Batch& part : parts) {
      expects(part.shape == options_.shape, "rwkv: a batch of ", part.shape.batch, " sequences of ", part.shape.length,
              " tokens for a trainer of ", options_.shape.batch, " of ", options_.shape.length);
      expects(part.fresh || !options_.tune_state,
              "rwkv: the initial state is trained on batches that start from it, not on one that goes on");
      static_cast<void>(gradient_.check(part.tokens, part.targets, part.shape.batch));
    }
    expects(!exchanged_, "rwkv: the model holds the moving average; call exchange_average() again before a step");
  }

  /// The states that the next batch may continue from, of this rank's sequences. A pass of a rank has fewer sequences.
  BodyState<Body>& carried() {
    if constexpr (alone) return gradient_.state();
    else return carried_;
  }
  const BodyState<Body>& carried() const {
    if constexpr (alone) return gradient_.state();
    else return carried_;
  }

  /// Whether what is tuned are parameters, whose gradients lie one after the other.
  bool tunes_parameters() const { return adapted_.empty() && !options_.tune_state; }

  void clear_gradients() {
    gradient_.clear();
    backend_.fill(row_of(state_gradient_), scalar(0));
  }

  void pull_back() {
    for (const auto& adapted : adapted_) adapted.pull_back(backend_);
  }

  /// Computes the gradient of a step and returns its loss.
  double add_gradients(std::span<const Batch> parts, [[maybe_unused]] detail::Reporting& reporting) {
    const double share = 1 / static_cast<double>(parts.size());
    if constexpr (alone) {
      clear_gradients();
      double loss = 0;
      for (const Batch& part : parts) {
        if (part.fresh) start_sequences(carried());
        loss += share * gradient_.add(part.tokens, part.targets, share);
        sum_state_gradients();
      }
      pull_back();
      return loss;
    } else {
      const auto grain = static_cast<std::size_t>(share_.grain() * options_.shape.length);
      const auto add = [&](Index k, Index p) {
        const Batch& part = parts[static_cast<std::size_t>(p)];
        const double weight =  // of a position
            share / static_cast<double>(gradient_.check(part.tokens, part.targets, part.shape.batch));
        const auto begin = static_cast<std::size_t>((share_.first_row() + k * share_.grain()) * options_.shape.length);
        if (part.fresh) start_sequences(gradient_.state());
        else
          exchange_states(k, [&](Mat<scalar> all, Mat<scalar> pass) { backend_.copy(Mat<const scalar>(all), pass); });
        const double loss = weight * gradient_.add_weighted(std::span(part.tokens).subspan(begin, grain),
                                                            std::span(part.targets).subspan(begin, grain), weight);
        sum_state_gradients();
        exchange_states(k, [&](Mat<scalar> all, Mat<scalar> pass) { backend_.copy(Mat<const scalar>(pass), all); });
        return loss;
      };
      return share_.add_up(
          backend_, std::ssize(parts),
          [&](scalar* to) {
            if (tunes_parameters()) gradient_.write_to(to);
            clear_gradients();
          },
          add, [&] { pull_back(); }, [&] { reporting.finish(); });
    }
  }

  /// Calls copy(states of grain k among those of this rank, states of a pass) for every tensor of the state.
  template <class Copying>
  void exchange_states(Index k, const Copying& copying) {
    for (std::size_t i = 0; i < carried_.tensors.size(); ++i) {
      const Mat<scalar> all = carried_.tensors[i];
      copying(Mat<scalar>{all.row(k * share_.grain()), share_.grain(), all.cols, all.stride},
              gradient_.state().tensors[i]);
    }
  }

  /// Lists the tensors that are trained and allocates their moments, averages and factors.
  void collect(Net& net) {
    if (!options_.frozen.empty()) {
      bool found = false;
      for (const auto& parameter : net.parameters()) found |= glob_matches(options_.frozen, parameter.name);
      expects(found, "rwkv: no parameter is named like '", options_.frozen, "'");
    }
    const auto parameters = gradient_.parameters();
    const detail::Factoring factors = detail::factoring(options_);
    expects(!parameters.empty() || options_.tune_state, "rwkv: nothing is left to train",
            factors.any() ? join(": no free matrix is named like '", factors.matrices, "'") : "");
    Index count = options_.tune_state ? Index(initial_.numbers().cols) : 0;
    Index most_inputs = 0;
    for (const auto& parameter : parameters) {
      if (!factors.any()) break;
      expects(parameter.shape.rank == 2 && parameter.role != Role::vector, "rwkv: ", parameter.name, " of shape ",
              parameter.shape.span(), " is no matrix of two axes, so it has no ", factors.word());
      const Index out = parameter.shape.sizes[0], in = parameter.shape.sizes[1];
      expects(factors.rank <= (factors.is_miss ? in : std::min(in, out)), "rwkv: a rank of ", factors.rank,
              " does not fit ", parameter.name, " of shape ", parameter.shape.span());
      count += std::ssize(parameter.values) + factors.rank * (factors.is_miss ? out : out + in) * 2;
      most_inputs = std::max(most_inputs, in);
    }
    if (factors.is_miss) count += factors.rank * most_inputs;
    memory_ = zeros(count);
    auto take = taking_from(memory_);
    if (options_.tune_state) {
      const auto numbers = initial_.numbers();
      const Index size = numbers.cols;
      state_gradient_ = take(size);
      tuned_.push_back(
          {"initial_state", {.rate = 3}, Shape{{size}, 1}, {numbers.data, std::size_t(size)}, state_gradient_});
    }
    const auto shared = take(factors.is_miss ? factors.rank * most_inputs : 0);
    if (factors.is_miss) fill_miss(backend_, shared, most_inputs);
    if (factors.any()) base_ = detail::fingerprint_of(net.stored_parameters(), net.sizes(), backend_);
    for (const auto& parameter : parameters) {
      if (!factors.any()) {
        tuned_.push_back({parameter.name, parameter, parameter.shape, parameter.values, parameter.gradient});
        continue;
      }
      const Index out = parameter.shape.sizes[0], in = parameter.shape.sizes[1], rank = factors.rank;
      const auto base = take(out * in), b = take(out * rank), db = take(out * rank);
      const auto a = take(factors.is_miss ? 0 : rank * in), da = take(std::ssize(a));
      const Mat<scalar> to_rank =
          factors.is_miss ? columns_of(matrix(shared.data(), rank, most_inputs), 0, in) : matrix(a.data(), rank, in);
      const Mat<scalar> gradient_of_a = factors.is_miss ? Mat<scalar>{} : matrix(da.data(), rank, in);
      backend_.copy(row_of(parameter.values), row_of(base));
      adapted_.push_back({matrix(parameter.values.data(), out, in), matrix(parameter.gradient.data(), out, in),
                          matrix(base.data(), out, in), to_rank, matrix(b.data(), out, rank), gradient_of_a,
                          matrix(db.data(), out, rank), factors.scale});
      adapted_.back().start(backend_, options_.seed, parameter.name);
      adapted_names_.push_back(parameter.name);
      const std::string prefix = parameter.name + (factors.is_miss ? ".miss_" : ".lora_");
      bases_.push_back({prefix + "base", {out, in}, base});
      if (!factors.is_miss) tuned_.push_back({prefix + "a", {.role = Role::matrix}, Shape{{rank, in}, 2}, a, da});
      tuned_.push_back({prefix + (factors.is_miss ? "d" : "b"), {.role = Role::matrix}, Shape{{out, rank}, 2}, b, db});
    }
    for (const Tuned& tuned : tuned_) values_.push_back(tuned.value);
    if constexpr (!alone) divide();
    make_updates();
    // The checkpoint also holds the parameters that are not trained, so that it is complete.
    for (auto& parameter : net.parameters()) {
      const auto shape = parameter.shape.span();
      weights_.push_back({parameter.name, {shape.begin(), shape.end()}, parameter.numbers()});
    }
  }

  Memory<backend> zeros(Index count) {
    Memory<backend> memory(backend_, count * Index{sizeof(scalar)});
    backend_.fill(matrix(reinterpret_cast<scalar*>(memory.data()), 1, count), scalar(0));
    return memory;
  }
  static auto taking_from(const Memory<backend>& memory) {
    return [next = reinterpret_cast<scalar*>(memory.data())](Index size) mutable {
      return std::span<scalar>(std::exchange(next, next + size), std::size_t(size));
    };
  }

  /// Reduces the tuned tensors to what this rank changes of them.
  void divide() {
    if constexpr (!alone) {
      std::vector<typename Share::Tensor> tensors;
      for (const Tuned& tuned : tuned_) tensors.push_back({tuned.value, tuned.gradient, tuned.width()});
      share_.divide(backend_, std::move(tensors), tunes_parameters() ? gradient_.numbers() : nullptr);
      for (std::size_t i = 0; i < tuned_.size(); ++i) {
        const auto [first, count] = share_.part(i);
        tuned_[i].begin = first;
        tuned_[i].value = tuned_[i].value.subspan(std::size_t(first), std::size_t(count));
        tuned_[i].gradient = share_.gradient_of(i);
      }
    }
  }

  /// Allocates the moments and averages, and lists what a step does to every tensor.
  void make_updates() {
    Index count = 0;
    for (const Tuned& tuned : tuned_) count += std::ssize(tuned.value) * (options_.average > 0 ? 3 : 2);
    moments_ = zeros(count);
    auto take = taking_from(moments_);
    for (Tuned& tuned : tuned_) {
      const Index size = std::ssize(tuned.value);
      tuned.first = take(size);
      tuned.second = take(size);
      if (options_.average > 0) tuned.average = take(size);
      const auto [data, _, rows, width] = tuned.tokens(tuned.gradient);
      scalar *const p = tuned.value.data(), *const m = tuned.first.data(), *const v = tuned.second.data();
      gradients_.push_back(matrix(static_cast<const scalar*>(data), rows, width));
      updates_.push_back({{}, rows, width, {data, p, m, v}, {p, m, v}});
      if (options_.average == 0) continue;
      backend_.copy(row_of(tuned.value), row_of(tuned.average));
      averages_.push_back({{options_.average}, rows, width, {p, tuned.average.data()}, {tuned.average.data()}});
    }
  }

  static Mat<scalar> row_of(std::span<scalar> numbers) { return matrix(numbers.data(), 1, std::ssize(numbers)); }

  void merge() {
    for (const auto& adapted : adapted_) adapted.merge(backend_);
  }

  /// Copies the initial state to every sequence of `state`.
  void start_sequences(const BodyState<Body>& state) {
    for (std::size_t i = 0; i < initial_.tensors.size(); ++i) {
      const Mat<scalar> all = state.tensors[i];
      for (Index b = 0; b < all.rows; ++b) {
        backend_.copy(Mat<const scalar>(initial_.tensors[i]), Mat<scalar>{all.row(b), 1, all.cols, all.stride});
      }
    }
  }

  /// All sequences of a batch share the initial state, so its gradient is the sum of theirs.
  void sum_state_gradients() {
    if (!options_.tune_state) return;
    scalar* next = state_gradient_.data();
    for (const Mat<scalar>& d : gradient_.state_gradient().tensors) {
      for (Index b = 0; b < d.rows; ++b) {
        const Seq<scalar> sum{next, 1, 1, Index(d.cols)}, one{d.row(b), 1, 1, Index(d.cols)};
        backend_.rows(Copy{}, arg::in(one), arg::add(sum));
      }
      next += d.cols;
    }
  }

  /// The squared norm of the whole gradient.
  double squares(Arena scratch) {
    double sum = 0;
    if constexpr (!alone) {
      sum = share_.squares(backend_, scratch);
    } else if constexpr (requires { backend_.sum_of_squares(scratch, std::span<const Mat<const scalar>>()); }) {
      sum = backend_.sum_of_squares(scratch, std::span<const Mat<const scalar>>(gradients_));
    } else {
      for (const auto& gradient : gradients_) sum += backend_.sum_of_squares(scratch, gradient);
    }
    return sum;
  }

  void update(double learning_rate) {
    const double scale = options_.clip > 0 && norm_ > options_.clip ? options_.clip / (norm_ + 1e-6) : 1;
    for (std::size_t i = 0; i < tuned_.size(); ++i) {
      updates_[i].program =
          AdamWUpdate(options_.optimizer, tuned_[i].traits, learning_rate, static_cast<double>(steps_ + 1), scale);
    }
    rows_each(backend_, std::span<const Update>(updates_));
    if constexpr (!alone) share_.spread(backend_);
    if (options_.tune_state) make_valid_of(body_, backend_, initial_.views);
    if (options_.average > 0) rows_each(backend_, std::span<const Average>(averages_));
    merge();
    backend_.sync();
  }

  /// What made a step fail, and how early it is in the search for it.
  struct Blame {
    double order;
    std::string sentence;
  };

  /// Names the first tensor whose weights are not finite; if there is none, the first whose gradient is not finite.
  std::string first_not_finite() const {
    const Blame blame = own_blame();
    if constexpr (alone) {
      return blame.sentence;
    } else {
      return share_.sentence_of_least(blame.order, blame.sentence);
    }
  }

  Blame own_blame() const {
    backend be = backend_;
    const auto index = [&](std::span<const scalar> numbers) {
      const OnHost read(be, numbers);
      return std::find_if(read.begin(), read.end(), [](scalar x) { return !is_finite(x); }) - read.begin();
    };
    for (const auto& weight : weights_) {
      if (const auto i = index(weight.numbers); i < std::ssize(weight.numbers)) {
        return {-1, join(weight.name, " is the first tensor that is not finite, at element ", i)};
      }
    }
    for (std::size_t n = 0; n < tuned_.size(); ++n) {
      const Tuned& tuned = tuned_[n];
      if (const auto i = index(tuned.gradient); i < std::ssize(tuned.gradient)) {
        return {static_cast<double>(n), join("all weights are finite; the gradient of ", tuned.name,
                                             " is the first that is not, at element ", tuned.begin + i)};
      }
    }
    // All numbers are finite; the sum of squares overflowed.
    const Tuned* steepest = &tuned_.front();
    const auto most = [&](const Tuned& tuned) {
      const OnHost read(be, std::span<const scalar>(tuned.gradient));
      return std::transform_reduce(
          read.begin(), read.end(), 0.0, [](double a, double b) { return std::max(a, b); },
          [](scalar x) { return std::abs(static_cast<double>(x)); });
    };
    for (const Tuned& tuned : tuned_) steepest = most(tuned) > most(*steepest) ? &tuned : steepest;
    return {static_cast<double>(tuned_.size()) + 1 / (1 + most(*steepest)),
            join("all weights and gradients are finite; the gradient of ", steepest->name, " is the largest, with ",
                 most(*steepest))};
  }

  /// The tensors of the file of a run, in a fixed order; of several ranks, this rank's part of them without the state.
  std::vector<RunTensor<scalar>> contents() const {
    std::vector<RunTensor<scalar>> all = weights_;
    all.insert(all.end(), bases_.begin(), bases_.end());
    for (std::size_t i = 0; i < tuned_.size(); ++i) {
      const Tuned& tuned = tuned_[i];
      const auto shape = tuned.shape.span();
      const std::vector<Index> sizes(shape.begin(), shape.end());
      // Low-rank factors and the initial state are not among the model's weights above.
      if (!tunes_parameters()) all.push_back({tuned.name, sizes, values_[i]});
      all.push_back({tuned.name + ".adamw_m", sizes, tuned.first, tuned.begin});
      all.push_back({tuned.name + ".adamw_v", sizes, tuned.second, tuned.begin});
      if (options_.average > 0) all.push_back({tuned.name + ".average", sizes, tuned.average, tuned.begin});
    }
    if constexpr (alone) {
      const auto state = carried().numbers();
      all.push_back({"carried_state", {Index(state.cols)}, {state.data, std::size_t(Index(state.cols))}});
    } else {
      const Index rows = share_.rows();
      const Index own = carried().numbers().cols;
      all.push_back({"carried_state", {own / rows * options_.shape.batch}, {}});
    }
    return all;
  }

  /// The parts of the carried state that this rank holds. In the file, all sequences of a tensor of the state follow each
  /// other.
  std::vector<RunTensor<scalar>> own_state() const {
    std::vector<RunTensor<scalar>> parts;
    if constexpr (!alone) {
      Index begin = 0;
      for (const Mat<scalar>& tensor : carried_.tensors) {
        const Index cols = tensor.cols;
        parts.push_back(
            {"carried_state", {}, {tensor.data, std::size_t(tensor.rows * cols)}, begin + share_.first_row() * cols});
        begin += options_.shape.batch * cols;
      }
    }
    return parts;
  }

  /// contents() of all ranks, on the first; `whole` holds what the first rank does not.
  std::vector<RunTensor<scalar>> collected(std::deque<std::vector<scalar>>& whole) const {
    auto tensors = contents();
    if constexpr (!alone) {
      const auto each_divided = [&](const auto& call) {
        std::size_t next = weights_.size() + bases_.size();
        for (std::size_t i = 0; i < tuned_.size(); ++i) {
          if (!tunes_parameters()) ++next;  // the value, which every rank has
          for (int moments = options_.average > 0 ? 3 : 2; moments > 0; --moments, ++next) call(tensors[next], i);
        }
      };
      share_.together("memory", [&] {
        const auto make = [&](Index count) { whole.emplace_back(share_.is_first() ? std::size_t(count) : 0); };
        each_divided([&](const RunTensor<scalar>&, std::size_t i) { make(std::ssize(values_[i])); });
        make(tensors.back().shape[0]);
        return std::uint64_t{0};
      });
      auto next = whole.begin();
      each_divided([&](RunTensor<scalar>& tensor, std::size_t i) {
        const std::span<scalar> all = *next++;
        share_.collect(
            tensor.numbers, [&](Index q) { return share_.part_of(i, q); }, all);
        tensor.numbers = all;
      });
      const std::span<scalar> state = *next;
      for (const RunTensor<scalar>& part : own_state()) {
        const Index own = std::ssize(part.numbers), begin = part.first - share_.first_row() * (own / share_.rows());
        share_.collect(
            part.numbers,
            [&](Index q) {
              return typename Share::Part{begin + q * own, own};
            },
            state);
      }
      tensors.back().numbers = state;
    }
    return tensors;
  }

  /// Everything that decides what a step does, in words.
  std::map<std::string, std::string> settings() const {
    std::string sum;
    if constexpr (!alone) sum = Share::in_words(share_.sharing());
    auto all = detail::in_words(options_, sum);
    all.emplace("layers", composition<Net>());
    return all;
  }

  TrainerOptions options_;
  Share share_;
  backend backend_;
  Body body_;
  Gradient<Net, P> gradient_;
  BodyState<Body> initial_, carried_, before_;
  using Update = FlatRows<AdamWUpdate, scalar, 4, 3>;
  using Average = FlatRows<Averaged, scalar, 2, 1>;

  std::vector<Tuned> tuned_;
  std::vector<Mat<const scalar>> gradients_;  // of every tensor in tuned_
  std::vector<Update> updates_;
  std::vector<Average> averages_;
  std::vector<AdaptedMatrix<scalar>> adapted_;
  std::vector<std::string> adapted_names_;
  std::uint64_t base_ = 0;  // the fingerprint of the model before its matrices were adapted
  std::vector<RunTensor<scalar>> weights_, bases_;
  std::vector<std::span<scalar>> values_;  // whole, of every tensor in tuned_
  std::span<scalar> state_gradient_;
  Memory<backend> memory_, moments_, scratch_;
  Index depth_, steps_ = 0;
  double norm_ = 0;
  bool exchanged_ = false;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
