#pragma once
// Trains an RWKV on a text file, whole, by an adapter or by its initial state, or says how well a model predicts one; on any
// backend that can train, by one process or several.
#include <rwkv/rwkv.hpp>
#include <rwkv/train/data_parallel.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../backend_for.hpp"
#include "../curve.hpp"
#include "../options.hpp"
#include "../paths.hpp"
#include "../program.hpp"
#include "../progress.hpp"
#include "../stop.hpp"

namespace example {

using namespace rwkv;

/// The recipe of the model that lies beside this file.
struct Settings {
  std::string text = RWKV_EXAMPLE_TEXT, out = "shakespeare-bf16.safetensors", vocabulary, from, evaluate, curve;
  std::string adapter, state;  ///< of the model that is evaluated
  std::optional<double> adapter_alpha;
  std::string version = "7";
  ModelSizes sizes{.vocab = 256, .width = 160, .depth = 4, .head_size = 16};
  Index low_rank = 8;
  std::string decay = "cosine";
  TrainerOptions trainer{.shape = {.batch = 2, .length = 256},
                         .rate = {.peak = 3e-3, .final = 1e-4, .steps = 14400, .warmup = 300},
                         .optimizer = {.weight_decay = 0.3},
                         .average = 0.998};
  Index accumulate = 1, evaluate_every = 1000, save_every = 1000, patience = 5, window = 0;
  double held_out = 0.1;
  int threads = 2;
  bool resume = false, streams = false, recompute = false;
  Sharing sharing;  ///< of a step by several ranks
  bool any_order = false;

  /// The file from which an interrupted run goes on.
  std::filesystem::path run_file() const { return beside_model(".run.safetensors"); }
  /// The factors by themselves, of a run that trains factors.
  std::filesystem::path adapter_file() const { return beside_model(".adapter.safetensors"); }
  bool trains_factors() const { return !trainer.lora.matrices.empty() || !trainer.miss.matrices.empty(); }
  std::filesystem::path curve_file() const { return curve.empty() ? beside_model(".csv") : curve; }

  /// The model's path with another ending. Only .safetensors is one: behind the last dot of `a-0.1` stands a part of its
  /// name.
  std::string beside_model(const std::string& ending) const {
    constexpr std::string_view own = ".safetensors";
    return (out.ends_with(own) ? out.substr(0, out.size() - own.size()) : out) + ending;
  }
};

/// The text as tokens, and the size of their vocabulary.
struct Text {
  TokenData tokens;
  Index vocab;
};

inline Text read_text(const Settings& settings) {
  if (settings.vocabulary.empty()) return {TokenData::open(settings.text, TokenWidth::bits8), 256};
  const auto tokenizer = Tokenizer::open(settings.vocabulary);
  const Bytes bytes = read_file(settings.text);
  const std::string_view characters(reinterpret_cast<const char*>(bytes.view().data()), bytes.view().size());
  return {TokenData(tokenizer.encode(characters), settings.text), tokenizer.size()};
}

/// Whether a model in a file has the vocabulary of the text.
inline void check_vocabulary(const Settings& settings, const std::string& model, Index of_text, Index of_model) {
  expects(!settings.vocabulary.empty() || of_model == 256, model, ": the model has a vocabulary of ", of_model,
          " tokens; pass its vocabulary file with --vocab");
  expects(of_text <= of_model, settings.vocabulary, ": a vocabulary of ", of_text, " tokens does not fit a model of ",
          of_model);
}

/// FNV-1a of all tokens.
inline std::uint64_t hash_of(const TokenData& data) {
  std::uint64_t hash = stream_of("");
  for (Index i = 0; i < data.size(); ++i) hash = (hash ^ static_cast<std::uint32_t>(data[i])) * 0x100000001b3u;
  return hash;
}

/// What a run knows of its past beside the weights.
struct History {
  Index evaluated = 0;  ///< the step of the last evaluation
  Index best_step = 0;
  double best = std::numeric_limits<double>::infinity();
  Index worse = 0;            ///< evaluations since the best one
  double sum = 0, count = 0;  ///< losses since the last line of the curve
  double seconds = 0;
  std::string curve{curve_head};

  std::map<std::string, std::string> notes() const {
    return {{"evaluated", join(evaluated)},
            {"best_step", join(best_step)},
            {"best", join(best)},
            {"worse", join(worse)},
            {"sum", join(sum)},
            {"count", join(count)},
            {"seconds", join(seconds)},
            {"curve", curve}};
  }

  void restore(const std::map<std::string, std::string>& notes, const std::string& file) {
    const auto read = [&](const char* key, auto& number) {
      const auto found = notes.find(key);
      expects(found != notes.end(), file, ": this run was not written by this program: it has no '", key, "'");
      const std::string& digits = found->second;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
      expects(error == std::errc() && end == digits.data() + digits.size(), file, ": '", key, "' is no number");
    };
    read("evaluated", evaluated);
    read("best_step", best_step);
    read("best", best);
    read("worse", worse);
    read("sum", sum);
    read("count", count);
    read("seconds", seconds);
    const auto lines = notes.find("curve");
    expects(lines != notes.end(), file, ": this run was not written by this program: it has no 'curve'");
    curve = lines->second;
  }
};

/// One training run. P says what a pass keeps.
///
/// Whatever happens between two saves happens again, to the bit, when the run goes on from the first of them: batches
/// follow from the number of the step, and the model file is written before the run file that counts on it. Of several
/// ranks, the first evaluates and writes.
template <class Net, class P, class Comm>
class Run {
 public:
  Run(const Settings& settings, Net net, const TokenData& training, std::optional<TokenData> held_out, Comm comm)
      : settings_(settings), comm_(comm), net_(std::move(net)), held_out_(std::move(held_out)),
        source_(source(settings, training)), trainer_(net_, settings.trainer, comm, settings.sharing),
        batches_(static_cast<std::size_t>(settings.accumulate)),
        identity_{
            {"text", join(training.size(), " tokens of hash ", hash_of(training), ", held out ", settings.held_out)},
            {"batches", join(settings.streams ? "in streams" : "at random", ", seed ", settings.trainer.seed.value,
                             ", accumulate ", settings.accumulate)},
            {"evaluation", join("every ", settings.evaluate_every, " steps, patience ", settings.patience,
                                settings.window > 0 ? join(", windows of ", settings.window) : std::string())},
            {"model", std::filesystem::path(settings.out).filename().string()}} {}

  /// Trains to the end or until the program is asked to stop. Returns the exit status.
  int operator()() {
    if (settings_.resume) resume();
    else begin();
    started_ = began_ - history_.seconds;
    first_ = trainer_.steps();
    int asked = 0;  // to stop, by a signal
    while ((asked = any_rank_stopped()) == 0) {
      if (evaluation_is_due()) {
        evaluate();
        if ((asked = any_rank_stopped()) != 0) break;
      }
      if (is_finished()) break;
      if (trainer_.steps() % settings_.save_every == 0 && trainer_.steps() > first_) save();
      step();
    }
    save();
    if (asked != 0) {
      progress_.print(text("stopped after step %td of %td; the same command with --resume goes on", trainer_.steps(),
                           settings_.trainer.rate.steps));
      return 128 + asked;
    }
    if (held_out_) {
      progress_.print(text("best validation loss %.4f, after step %td", history_.best, history_.best_step));
    }
    if (is_first()) progress_.print(plot_curve(settings_.curve_file()));
    progress_.print((settings_.trainer.tune_state ? "the initial state is in " : "the model is in ") + settings_.out);
    if (settings_.trains_factors()) progress_.print("its factors alone are in " + settings_.adapter_file().string());
    return 0;
  }

 private:
  using Source = std::variant<RandomWindows, ContiguousStreams>;

  static Source source(const Settings& settings, const TokenData& data) {
    if (settings.streams) return ContiguousStreams(data, settings.trainer.shape);
    return RandomWindows(data, settings.trainer.shape, settings.trainer.seed);
  }

  bool is_first() const { return comm_.rank() == 0; }

  /// The signal that asked any of the ranks to stop, or 0.
  int any_rank_stopped() {
    const std::vector<int> all = gather_each(comm_, static_cast<int>(stopped));
    return *std::max_element(all.begin(), all.end());
  }

  /// Does what the first rank does for all. Its errors are those of all.
  template <class Work>
  void first_does(const Work& work) {
    together(comm_, "files", [&] {
      if (is_first()) work();
      return std::uint64_t{0};
    });
  }

  void begin() {
    first_does([&] {
      refuse_unfinished_run();
      if (settings_.trains_factors()) save_adapter(trainer_.adapter(), settings_.adapter_file());  // if its file can be
    });
    progress_.print(text("%td parameters, %td steps of %td tokens", net_.parameter_count(),
                         settings_.trainer.rate.steps, tokens_of_a_step()));
    // Shows at once whether the run can be kept.
    save();
  }

  void refuse_unfinished_run() const {
    const auto path = settings_.run_file();
    FileStatus found;
    expects(!system_files().status(path, found), path.string(), ": cannot be examined");
    if (found.kind == FileStatus::Kind::regular) {
      const TensorFile file = open_tensors(path);
      const auto model = file.metadata().find("note.model");
      if (model != file.metadata().end()) {
        expects(model->second == identity_.at("model"), path.string(), ": this is the run of the model '",
                model->second, "'; pass another --out");
      }
      const auto finished = file.metadata().find("note.finished");
      expects(finished != file.metadata().end() && finished->second == "yes", path.string(),
              ": a run that has not ended; go on with --resume, or remove the file to start anew");
    }
  }

  void resume() {
    const auto path = settings_.run_file();
    first_does([&] {
      FileStatus file;
      expects(!system_files().status(path, file) && file.kind != FileStatus::Kind::missing, path.string(),
              ": there is no such file, so no run to go on with");
    });
    const auto notes = trainer_.resume(path);
    for (const auto& [key, here] : identity_) {
      const auto found = notes.find(key);
      const std::string there = found == notes.end() ? "nothing" : found->second;
      expects(there == here, path.string(), ": the run in the file has other settings: ", key, " is '", there,
              "' there and '", here,
              "' here; the same options go on with it, and --from a model with a new --out begins another run");
    }
    history_.restore(notes, path.string());
    progress_.print(text("going on after step %td of %td", trainer_.steps(), settings_.trainer.rate.steps));
  }

  void save() {
    history_.seconds = now() - started_;
    auto notes = history_.notes();
    notes.insert(identity_.begin(), identity_.end());
    notes["finished"] = is_finished() ? "yes" : "no";
    trainer_.save(settings_.run_file(), notes);
    first_does([&] {
      write_atomically(system_files(), settings_.curve_file(), [&](FileWriter& file) { file.write(history_.curve); });
    });
  }

  bool is_finished() const {
    return !evaluation_is_due() && (trainer_.steps() >= settings_.trainer.rate.steps ||
                                    (settings_.patience > 0 && history_.worse >= settings_.patience));
  }

  bool evaluation_is_due() const {
    const Index n = trainer_.steps();
    return n > history_.evaluated && (n % settings_.evaluate_every == 0 || n == settings_.trainer.rate.steps);
  }

  void step() {
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      const Index n = trainer_.steps() * settings_.accumulate + static_cast<Index>(i);
      std::visit([&](const auto& source) { source.fill(n, batches_[i]); }, source_);
    }
    const double begun = now(), loss = trainer_.step(batches_);
    training_seconds_ += now() - begun;
    history_.sum += loss;
    history_.count += 1;
    smooth_ = trainer_.steps() == first_ + 1 ? loss : 0.95 * smooth_ + 0.05 * loss;
    const Index rows = 1000;  // of the curve, about
    if (trainer_.steps() % std::max<Index>(1, settings_.trainer.rate.steps / rows) == 0 && !evaluation_is_due()) {
      add_to_curve("");
    }
    progress_.update([&] { return status(); });
  }

  /// Judges the model, or its moving average, and keeps it if it is the best so far. Does nothing when interrupted.
  void evaluate() {
    const bool average = settings_.trainer.average > 0;
    if (average) trainer_.exchange_average();
    struct {
      double loss = 0;
      int asked = 0;
    } judged;
    first_does([&] {
      if (held_out_) {
        EvaluationStart<typename Net::compute> start{.window = settings_.window};
        if (settings_.trainer.tune_state) start.state = trainer_.initial_state();
        const auto show = [&](Index done) {
          progress_.update(
              [&] { return text("%s  validation %td of %td", status().c_str(), done, held_out_->size()); });
          return stopped == 0;
        };
        judged.loss = rwkv::evaluate(net_, *held_out_, show, start);
      }
      judged.asked = stopped;
    });
    comm_.broadcast(std::as_writable_bytes(std::span(&judged, 1)), 0);
    const double loss = judged.loss;
    if (judged.asked == 0) {
      expects(is_finite(loss), "rwkv: after training step ", trainer_.steps() - 1, " the validation loss is ", loss);
      const bool best = !held_out_ || loss < history_.best;
      if (best) {
        first_does([&] { save_result(); });
        history_.best = loss;
        history_.best_step = trainer_.steps();
      }
      history_.worse = best ? 0 : history_.worse + 1;
      history_.evaluated = trainer_.steps();
      if (held_out_) progress_.print(text("%s  validation %.4f%s", status().c_str(), loss, best ? " (best)" : ""));
      add_to_curve(held_out_ ? join(loss) : "");
    }
    if (average) trainer_.exchange_average();
  }

  /// Writes what the run is for.
  void save_result() const {
    if (settings_.trainer.tune_state) {
      auto context = net_.context();
      context.restore(0, trainer_.initial_state());
      save_state(context, 0, settings_.out);
      return;
    }
    save_checkpoint<bf16>(net_, settings_.out);
    if (settings_.trains_factors()) save_adapter(trainer_.adapter(), settings_.adapter_file());
  }

  void add_to_curve(const std::string& validation) {
    history_.curve += join(trainer_.steps(), ",", trainer_.steps() * tokens_of_a_step(), ",",
                           history_.sum / history_.count, ",", validation, ",", text("%.1f", now() - started_), "\n");
    history_.sum = history_.count = 0;
  }

  Index tokens_of_a_step() const {
    return settings_.accumulate * settings_.trainer.shape.batch * settings_.trainer.shape.length;
  }

  std::string status() const {
    const auto done = static_cast<double>(trainer_.steps() - first_);
    const double elapsed = now() - began_;
    const double left =
        done > 0 ? elapsed / done * static_cast<double>(settings_.trainer.rate.steps - trainer_.steps()) : 0;
    return text("step %td of %td  loss %.4f  %.0f tokens/s  gradient %.3g  %s left", trainer_.steps(),
                settings_.trainer.rate.steps, smooth_,
                done * static_cast<double>(tokens_of_a_step()) / std::max(training_seconds_, 1e-9),
                trainer_.gradient_norm(), clock_time(left).c_str());
  }

  const Settings& settings_;
  Comm comm_;
  Net net_;
  std::optional<TokenData> held_out_;
  Source source_;
  Trainer<Net, P, Comm> trainer_;
  std::vector<Batch> batches_;
  std::map<std::string, std::string> identity_;  ///< what decides the run beside what the trainer knows
  History history_;
  Progress progress_;
  double began_ = now();     ///< of this process
  double started_ = began_;  ///< of the run, as if it had never been interrupted
  double training_seconds_ = 0, smooth_ = 0;
  Index first_ = 0;  ///< the step at which this process took over
};

/// What the run writes must be no file that it reads, no two of them the same, and each in a place where a file can be.
inline void check_paths(const Settings& settings) {
  const auto ending = std::filesystem::path(settings.out).extension();
  for (const char* other : {".pth", ".pt", ".bin", ".gguf", ".ckpt"}) {
    expects(ending != other, settings.out, ": the model is written as .safetensors; pass an --out with that ending");
  }
  check_is_no_run(settings.out);
  std::vector<std::filesystem::path> others{settings.text, settings.from, settings.vocabulary};
  for (const std::filesystem::path& written :
       {std::filesystem::path(settings.out), settings.run_file(), settings.adapter_file(), settings.curve_file(),
        std::filesystem::path(settings.curve_file()).replace_extension(".svg")}) {
    for (const auto& other : others) {
      expects(other.empty() || !is_same_file(other, written), written.string(),
              ": the run would write over this file; pass another --out or --curve");
    }
    check_target(written);
    others.push_back(written);
  }
}

/// What a rank needs before it meets the others.
template <class Net>
struct Prepared {
  Net net;
  TokenData training;
  std::optional<TokenData> held_out;
};

template <class Net, class Backend>
Prepared<Net> prepare(const Settings& settings) {
  check_paths(settings);
  const auto [tokens, vocab] = read_text(settings);
  const auto kept = static_cast<Index>(static_cast<double>(tokens.size()) * settings.held_out);
  std::optional<TokenData> held_out;
  if (settings.held_out > 0) {
    expects(kept >= 2, settings.text, ": of its ", tokens.size(), " tokens ", kept,
            " would be held out, too few to predict any; pass more text, or --held-out 0");
    held_out = tokens.slice(tokens.size() - kept, tokens.size());
  }
  ModelSizes sizes = settings.sizes;
  sizes.vocab = vocab;
  const Index rank = settings.low_rank;
  sizes.ranks = {.mix = rank, .w = rank, .a = rank, .v = rank, .g = 4 * rank};
  const auto backend = backend_for<Backend>(settings.threads);
  Net net =
      settings.from.empty() ? Net(sizes, backend) : load_checkpoint<Net>(settings.from, {Access::loaded}, backend);
  if (settings.from.empty()) initialize(net, settings.trainer.seed);
  else check_vocabulary(settings, settings.from, vocab, net.sizes().vocab);
  return {std::move(net), tokens.slice(0, tokens.size() - kept), std::move(held_out)};
}

/// Trains a model of the version V.
template <class V, class Backend, class Comm>
int train_version(const Settings& settings, Comm comm) {
  using Net = LanguageModel<V, float, Backend>;
  std::optional<Prepared<Net>> run;
  together(comm, "text", [&] {
    run.emplace(prepare<Net, Backend>(settings));
    return hash_of(run->training);
  });
  const auto with = [&]<class P>(P) {
    return Run<Net, P, Comm>(settings, std::move(run->net), run->training, run->held_out, comm)();
  };
  return settings.recompute ? with(Recompute()) : with(Keep());
}

template <class Backend>
int evaluate(const Settings& settings) {
  LoadOptions options;
  if (!settings.adapter.empty())
    options.adapters.push_back(load_adapter(settings.adapter, {.alpha = settings.adapter_alpha}));
  const AnyModel net = load_model(settings.evaluate, backend_for<Backend>(settings.threads), options);
  EvaluationStart<float> start{.window = settings.window};
  if (!settings.state.empty()) {
    auto context = net.context();
    load_initial_state(context, 0, settings.state);
    start.state = context.state(0);
  }
  const auto [tokens, vocab] = read_text(settings);
  check_vocabulary(settings, settings.evaluate, vocab, net.sizes().vocab);
  Progress progress;
  const double begun = now();
  const auto show = [&, size = tokens.size()](Index done) {
    progress.update([&] {
      const double elapsed = now() - begun, part = static_cast<double>(done) / static_cast<double>(size);
      return text("token %td of %td  %.0f tokens/s  %s left", done, size, static_cast<double>(done) / elapsed,
                  clock_time(elapsed / part - elapsed).c_str());
    });
    return stopped == 0;
  };
  const double loss = evaluate(net, tokens, show, start);
  if (stopped != 0) return 128 + stopped;
  progress.print(text("%td tokens predicted in %s", tokens.size() - 1, clock_time(now() - begun).c_str()));
  std::cout << "loss " << join(loss) << '\n';
  return 0;
}

template <class Backend, class Comm>
void describe(Options& options, Settings& settings) {
  // The limits of sizes are far above what trains today; the products that count memory stay within their type.
  auto& [shape, rate, optimizer, clip, l2_wrap, average, frozen, lora, miss, tune_state, seed, head_chunk, order] =
      settings.trainer;
  options.add("--text", settings.text, "text to train on");
  options.show_default("tinyshakespeare.txt");
  options.add("--out", settings.out, "model to write, .safetensors in bf16");
  options.add("--vocab", settings.vocabulary, "World vocabulary; without it a token is a byte");
  options.add("--from", settings.from, "checkpoint to start from");
  options.add("--version", settings.version, "RWKV version of a new model", version_names());
  options.add("--depth", settings.sizes.depth, "layers", 1, 1024);
  options.add("--width", settings.sizes.width, "channels", 1, 65536);
  options.add("--head-size", settings.sizes.head_size, "channels of a head, from RWKV-5 on; 0: 64", 0, 256);
  options.add("--ffn", settings.sizes.ffn, "hidden units of the channel mix; 0: 4 width, in RWKV-5.2 and 6 3.5", 0,
              262144);
  options.add("--low-rank-dim", settings.low_rank,
              "of the low-rank products, in RWKV-6 and 7; four times it for the gate; 0: the official ones", 0, 1024);
  options.add("--batch", shape.batch, "sequences of a batch", 1, 4096);
  options.add("--length", shape.length, "tokens of a sequence", 1, 65536);
  options.add("--accumulate", settings.accumulate, "batches of a step", 1, 65536);
  options.add("--steps", rate.steps, "length of the run", 1);
  options.add("--rate", rate.peak, "peak learning rate");
  options.add("--final-rate", rate.final, "learning rate at the end");
  options.add("--warmup", rate.warmup, "steps up to the peak");
  options.add("--decay", settings.decay, "cosine, linear, exponential or constant",
              {"cosine", "linear", "exponential", "constant"});
  options.add("--weight-decay", optimizer.weight_decay, "of matrices, times the learning rate");
  options.add("--clip", clip, "largest norm of the gradient; 0: no limit");
  options.add("--average", average, "decay of the moving average that is saved; 0: none");
  options.add("--streams", settings.streams, "read the text in order and carry the state");
  options.add("--recompute", settings.recompute, "less memory, one more forward pass");
  options.add("--freeze", frozen, "parameters to leave alone, as {emb,head}.*");
  options.add("--lora", lora.matrices, "matrices to train by low-rank factors, as **.key.weight");
  options.add("--miss", miss.matrices, "matrices to train by MiSS, one factor for each");
  options.add("--rank", lora.rank, "of the factors", 1, 65536);
  options.add("--alpha", lora.alpha, "scale of the factors, divided by the rank");
  options.add("--tune-state", tune_state, "train the initial state alone; --out is its file");
  options.add("--window", settings.window,
              "judge in windows of so many tokens; 0: in one pass, or --length with a state", 0, 1 << 30);
  options.add("--held-out", settings.held_out, "part of the text kept for validation, at its end", 0, 1);
  options.add("--evaluate-every", settings.evaluate_every, "steps", 1);
  options.add("--patience", settings.patience, "stop after so many worse evaluations; 0: never", 0);
  options.add("--save-every", settings.save_every, "steps", 1);
  options.add(
      "--resume", settings.resume,
      "go on with the run beside the model, by the same options; to train it further: --from it to a new --out");
  options.add("--curve", settings.curve, "losses as CSV; default: beside the model");
  options.add("--seed", seed.value, "equal seeds give equal models");
  if constexpr (Threaded<Backend>) {
    options.add("--threads", settings.threads, "any number gives the same bits", 1, 1024);
  }
  if constexpr (!std::is_same_v<Comm, SelfComm>) {
    options.add("--grain", settings.sharing.grain,
                "sequences of a pass; for equal grains, any number of ranks has the same bits", 1, 4096);
    options.add("--any-order", settings.any_order, "add the gradients of ranks in MPI's order, with bits of its own");
  }
  options.add("--evaluate", settings.evaluate, "train nothing: print the loss of this model on the text");
  options.add("--adapter", settings.adapter, "factors to evaluate it with; --alpha in place of their file's");
  options.add("--state", settings.state, "initial state to evaluate it with, at the start of each window");
}

/// The program.
template <class Backend, class Comm = SelfComm>
int train(int argc, char** argv, Comm comm = {}) {
  Settings settings;
  Options options("train", "Trains an RWKV on a text file.");
  describe<Backend, Comm>(options, settings);
  return run_program("train", [&] {
    if (!options.parse(argc, argv)) return 0;  // help was asked for
    for (const char* size : {"--version", "--depth", "--width", "--head-size", "--low-rank-dim", "--ffn"}) {
      expects(!options.given("--from") || !options.given(size), size, ": the checkpoint of --from has its own");
    }
    if (options.given("--evaluate")) {
      const std::string unused = options.given_beside(
          {"--evaluate", "--text", "--vocab", "--threads", "--adapter", "--alpha", "--state", "--window"});
      expects(unused.empty(), unused, ": --evaluate trains nothing, so it does not use this option");
      expects(!options.given("--alpha") || options.given("--adapter"),
              "--alpha: there is no --adapter that it belongs to");
      if (options.given("--alpha")) settings.adapter_alpha = settings.trainer.lora.alpha;
    } else {
      for (const char* evaluated : {"--adapter", "--state"}) {
        expects(!options.given(evaluated), evaluated, ": this is for --evaluate");
      }
    }
    settings.trainer.miss.rank = settings.trainer.lora.rank;
    settings.trainer.miss.alpha = settings.trainer.lora.alpha;
    if (settings.trainer.tune_state) {
      expects(options.given("--from"), "--tune-state: pass the model whose state is tuned by --from");
      if (!options.given("--window")) settings.window = settings.trainer.shape.length;
    }
    const std::map<std::string, LearningRate::Decay> decays{{"cosine", LearningRate::cosine},
                                                            {"linear", LearningRate::linear},
                                                            {"exponential", LearningRate::exponential},
                                                            {"constant", LearningRate::constant}};
    auto& rate = settings.trainer.rate;
    rate.decay = decays.at(settings.decay);
    // The recipe's numbers also fit runs that are shorter or slower.
    if (!options.given("--warmup")) rate.warmup = std::min(rate.warmup, rate.steps / 10);
    if (!options.given("--final-rate")) rate.final = std::min(rate.final, rate.peak);
    if (settings.any_order) settings.sharing.sum = GradientSum::any_order;
    stop_when_asked();
    if (!settings.evaluate.empty()) return evaluate<Backend>(settings);
    const auto run = [&]<class V>(V) { return train_version<V, Backend>(settings, comm); };
    if (settings.from.empty()) return with_version("RWKV-" + settings.version, run);
    return with_version_of(open_tensors(settings.from, {.verify_checksums = false}), run);
  });
}

}  // namespace example
