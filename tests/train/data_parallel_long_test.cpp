/// Several ranks train with the bits of one.
#include <doctest/doctest.h>
#include <rwkv/train/thread_comm.hpp>

#include <chrono>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>

#include "rank_errors.hpp"
#include "setup.hpp"

using namespace rwkv;
using config::content_of;
using config::initialized;
using config::sentence_of;
using config::small_sizes;
using config::TemporaryPath;
using Net = config::SmallNet<>;
using RankTrainer = Trainer<Net, Keep, ThreadComm>;

namespace {

struct Outcome {
  std::vector<double> losses;
  std::vector<float> weights;
  std::string file;

  bool operator==(const Outcome&) const = default;
};

TrainerOptions options_of_twelve() {
  TrainerOptions options = config::small_options();
  options.shape = {.batch = 12, .length = 7};
  return options;
}

/// Steps [begin, end) of a run of several ranks, which goes on from a file if there is one and ends in it. A step has
/// `parts` batches; some positions have no target.
Outcome run(int ranks, const TrainerOptions& options, const Sharing& sharing, const std::filesystem::path& path,
            Index begin, Index end, bool streams = false, Index parts = 2) {
  std::mutex mutex;
  Outcome first;
  run_ranks(ranks, [&](ThreadComm comm) {
    auto net = initialized<Net>(small_sizes);
    if (begin > 0) net.parameters()[0].numbers()[0] = 0.5f;  // the file decides
    RankTrainer trainer(net, options, comm, sharing);
    if (begin > 0) trainer.resume(path);
    const auto text = config::made_up_text(900, small_sizes.vocab);
    std::vector<Batch> batches(static_cast<std::size_t>(parts));
    Outcome mine;
    for (Index step = begin; step < end; ++step) {
      for (Index p = 0; p < parts; ++p) {
        Batch& batch = batches[static_cast<std::size_t>(p)];
        if (streams) ContiguousStreams(text, options.shape).fill(step * parts + p, batch);
        else RandomWindows(text, options.shape, Seed{5}).fill(step * parts + p, batch);
        for (std::size_t i = 0; i < 9; ++i) batch.targets[i] = no_target;  // the whole first sequence, and more
      }
      mine.losses.push_back(trainer.step(batches));
    }
    trainer.save(path);
    mine.weights = config::all_weights(net);
    if (comm.rank() == 0) mine.file = content_of(path);
    const std::lock_guard lock(mutex);
    if (comm.rank() == 0) first = mine;
  });
  return first;
}

/// What work throws: a word for the type, and the sentence.
std::string thrown_by(const std::function<void()>& work) {
  try {
    work();
  } catch (const Cancelled& error) {
    return join("Cancelled: ", error.what());
  } catch (const Error& error) {
    return join("Error: ", error.what());
  } catch (int) {
    return "int";
  }
  return "nothing";
}

}  // namespace

TEST_CASE(
    "any number of threads as ranks gives the losses, weights and file of one, also when it changes in the middle") {
  auto options = options_of_twelve();
  Sharing sharing;
  bool streams = false;
  Index parts = 2;
  SUBCASE("windows") {}
  SUBCASE("grains of three sequences, streams that carry the state, an average") {
    sharing.grain = 3;
    options.average = 0.9;
    streams = true;
    parts = 3;
  }
  SUBCASE("low-rank factors") {
    options.lora = {.matrices = "blocks.*.{att,ffn}.{key,value}.weight", .rank = 3};
    streams = true;
  }
  SUBCASE("MiSS, with an average") {
    options.miss = {.matrices = "blocks.*.{att,ffn}.{key,value}.weight", .rank = 5};
    options.average = 0.9;
  }
  SUBCASE("the initial state, with an average") {
    options.tune_state = true;
    options.average = 0.9;
  }
  SUBCASE("frozen parameters") {
    options.frozen = "{emb,head}.weight";
    parts = 1;
  }
  const TemporaryPath path("rwkv_ranks.safetensors");
  const Outcome one = run(1, options, sharing, path, 0, 5, streams, parts);
  CHECK(one.losses.size() == 5);
  for (const int ranks : {2, 3, 4}) {
    if (12 % (sharing.grain * ranks) != 0) continue;
    CAPTURE(ranks);
    CHECK(run(ranks, options, sharing, path, 0, 5, streams, parts) == one);
    run(ranks, options, sharing, path, 0, 2, streams, parts);
    const int others = ranks == 4 ? 1 : ranks == 3 ? 4 : 3;
    if (12 % (sharing.grain * others) != 0) continue;
    const Outcome resumed = run(others, options, sharing, path, 2, 5, streams, parts);
    CHECK(resumed.weights == one.weights);
    CHECK(resumed.file == one.file);
    CHECK(std::equal(resumed.losses.begin(), resumed.losses.end(), one.losses.begin() + 2));
  }
}

TEST_CASE("threads as ranks in any order and a process alone agree up to rounding") {
  const auto options = options_of_twelve();
  const TemporaryPath path("rwkv_ranks_rounding.safetensors");
  const Outcome tree = run(1, options, {}, path, 0, 6);
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> alone(net, options);
  std::vector<double> losses;
  const auto text = config::made_up_text(900, small_sizes.vocab);
  std::vector<Batch> batches(2);
  for (Index step = 0; step < 6; ++step) {
    for (Index p = 0; p < 2; ++p) {
      Batch& batch = batches[static_cast<std::size_t>(p)];
      RandomWindows(text, options.shape, Seed{5}).fill(step * 2 + p, batch);
      for (std::size_t i = 0; i < 9; ++i) batch.targets[i] = no_target;
    }
    losses.push_back(alone.step(batches));
  }
  for (const int ranks : {1, 2, 3}) {
    const Outcome any = run(ranks, options, {.sum = GradientSum::any_order}, path, 0, 6);
    for (std::size_t i = 0; i < losses.size(); ++i) {
      CHECK(any.losses[i] == doctest::Approx(losses[i]).epsilon(1e-5));
      CHECK(tree.losses[i] == doctest::Approx(losses[i]).epsilon(1e-5));
    }
  }
}

TEST_CASE("the moments are divided among threads as ranks, and the average is exchanged on all") {
  auto options = options_of_twelve();
  options.average = 0.9;
  Index whole = 0;
  for (const int ranks : {1, 4}) {
    std::mutex mutex;
    Index sum = 0, largest = 0;
    run_ranks(ranks, [&](ThreadComm comm) {
      auto net = initialized<Net>(config::shared_sizes);
      RankTrainer trainer(net, options, comm, {.grain = 3});
      config::train(trainer, options.shape, config::shared_sizes.vocab, 0, 2);
      const auto trained = config::all_weights(net);
      trainer.exchange_average();
      const auto average = config::all_weights(net);
      trainer.exchange_average();
      const std::lock_guard lock(mutex);
      CHECK(config::all_weights(net) == trained);
      CHECK(average != trained);
      sum += trainer.moment_bytes();
      largest = std::max(largest, trainer.moment_bytes());
    });
    if (ranks == 1) whole = sum;
    CHECK(sum == whole);
    CHECK(largest < whole / ranks + whole / 4);
  }
}

TEST_CASE("threads as ranks that disagree, and bad input, are one sentence on every rank that changes nothing") {
  const auto options = options_of_twelve();
  const auto text = config::made_up_text(900, small_sizes.vocab);
  const auto made = [&](const std::function<void(int, TrainerOptions&, Net&, Sharing&)>& change) {
    return sentence_of(2, [&](ThreadComm comm) {
      auto net = initialized<Net>(small_sizes);
      auto own = options;
      Sharing sharing;
      change(comm.rank(), own, net, sharing);
      RankTrainer(net, own, comm, sharing);
    });
  };
  CHECK(made([](int rank, TrainerOptions& own, Net&, Sharing&) { own.optimizer.beta1 = rank == 1 ? 0.8 : 0.9; }) ==
        "rank 1 of 2: rwkv: the ranks must train alike: optimizer is 'betas 0.9 0.99, epsilon 1e-08, weight decay 0.1, "
        "rates of the tables' on rank 0, optimizer is 'betas 0.8 0.99, epsilon 1e-08, weight decay 0.1, rates of the "
        "tables' here");
  CHECK(made([](int rank, TrainerOptions& own, Net&, Sharing&) { own.clip = rank == 1 ? -1 : 1; }) ==
        "rank 1 of 2: rwkv: the limit of the gradient's norm must not be negative, as -1 is");
  CHECK(made([](int, TrainerOptions& own, Net&, Sharing&) { own.clip = -1; }) ==
        "rwkv: the limit of the gradient's norm must not be negative, as -1 is");
  CHECK(made([](int rank, TrainerOptions&, Net& net, Sharing&) {
          if (rank == 1) net.parameters()[2].numbers()[0] += 1;
        }).starts_with("rank 1 of 2: rwkv: the ranks must train alike: blocks.0.ln0.bias of [20] has the checksum "));
  CHECK(made([](int, TrainerOptions& own, Net&, Sharing&) { own.shape.batch = 9; }) ==
        "rwkv: 2 ranks cannot share 9 sequences evenly; pass a batch that is a multiple of 2");
  CHECK(made([](int, TrainerOptions&, Net&, Sharing& sharing) { sharing.grain = 5; }) ==
        "rwkv: 2 ranks cannot share 12 sequences evenly, 5 at a time; pass a batch that is a multiple of 10");
  CHECK(made([](int, TrainerOptions& own, Net&, Sharing&) { own.shape.batch = -2; }) ==
        "rwkv: a batch of -2 sequences has nothing to learn from");
  CHECK(made([](int, TrainerOptions&, Net&, Sharing& sharing) { sharing.grain = 0; }) ==
        "rwkv: a batch of 12 sequences has no grains of 0");
  CHECK(made([](int rank, TrainerOptions&, Net&, Sharing& sharing) { sharing.grain = rank + 1; })
            .starts_with("rank 1 of 2: rwkv: the ranks must train alike: gradient is 'clip 1, l2 wrap, head chunk 256, "
                         "summed by a tree over grains of 1' on rank 0, gradient is '"));

  // A run that is refused a step, a save or a file goes on as if nothing had happened.
  const TemporaryPath path("rwkv_ranks_refused.safetensors");
  std::string undisturbed;
  for (const bool disturbed : {false, true}) {
    run_ranks(2, [&](ThreadComm comm) {
      auto net = initialized<Net>(small_sizes);
      RankTrainer trainer(net, options, comm);
      const auto refused = [&](const std::string& sentence, const std::function<void()>& work) {
        if (!disturbed) return;
        std::string what = "nothing";
        try {
          work();
        } catch (const Error& error) {
          what = error.what();
        }
        CHECK(what == sentence);
      };
      const ContiguousStreams streams(text, options.shape);
      Batch batch;
      streams.fill(0, batch);
      trainer.step(batch);
      streams.fill(1, batch);  // goes on from the state after the first
      REQUIRE(!batch.fresh);
      refused("rwkv: rank 1 of 2 has other batches in training step 1 than rank 0", [&] {
        Batch other = batch;
        if (comm.rank() == 1) other.tokens[3] = (other.tokens[3] + 1) % 29;
        trainer.step(other);
      });
      refused("rank 0 of 2: rwkv: token 29 at position 5 is outside the vocabulary of 29", [&] {
        Batch other = batch;
        if (comm.rank() == 0) other.tokens[5] = 29;
        trainer.step(other);
      });
      const std::string nowhere = "/no/such/folder/run.safetensors";
      if (disturbed) {
        std::string what;
        try {
          trainer.save(nowhere);
        } catch (const Error& error) {
          what = error.what();
        }
        CHECK(what.starts_with("rank 0 of 2: /no/such/folder/run.safetensors"));
      }
      refused(nowhere + ": cannot open the file: No such file or directory", [&] { trainer.resume(nowhere); });
      refused(
          "rwkv: training step 1: the loss is nan, the gradient's norm nan; head.weight is the first tensor that is not "
          "finite, at element 0",
          [&] {
            auto numbers = net.parameters().back().numbers();
            const float kept = numbers[0];
            numbers[0] = std::numeric_limits<float>::quiet_NaN();
            try {
              trainer.step(batch);
            } catch (...) {
              numbers[0] = kept;
              throw;
            }
          });
      trainer.step(batch);
      trainer.save(path);
      if (comm.rank() != 0) return;
      if (!disturbed) undisturbed = content_of(path);
      else CHECK(content_of(path) == undisturbed);
    });
  }
}

TEST_CASE(
    "the watch of one of the threads as ranks stops all, and what else it throws is an Error on the others; the run goes on") {
  const auto options = options_of_twelve();
  const auto text = config::made_up_text(900, small_sizes.vocab);
  const TemporaryPath path("rwkv_ranks_watched.safetensors");
  for (const int ranks : {1, 2}) {
    CAPTURE(ranks);
    std::string undisturbed;
    for (const bool disturbed : {false, true}) {
      run_ranks(ranks, [&](ThreadComm comm) {
        auto net = initialized<Net>(small_sizes);
        RankTrainer trainer(net, options, comm);
        const ContiguousStreams streams(text, options.shape);
        Batch batch;
        streams.fill(0, batch);
        trainer.step(batch);
        streams.fill(1, batch);
        // What this rank throws if `answer` watches the work of rank `by`.
        const auto watched = [&](int by, const std::function<bool(const Progress&)>& answer,
                                 const std::function<void()>& work) {
          std::optional<Watch> watch;
          if (comm.rank() == by) watch.emplace(answer, std::chrono::steady_clock::duration::zero());
          return thrown_by(work);
        };
        const auto stop = [](const Progress&) { return false; };
        const auto broken = [](const Progress&) -> bool { throw 7; };
        const auto step = [&] { trainer.step(batch); };
        const auto save = [&] { trainer.save(path); };
        const int last = ranks - 1;
        const auto name = [&](int rank) {
          return ranks == 1 ? std::string() : join("rank ", rank, " of ", ranks, ": ");
        };
        if (disturbed) {
          const std::string before = content_of(path);
          CHECK(watched(last, stop, step).starts_with("Cancelled: " + name(last) + "rwkv: train was stopped at "));
          CHECK(watched(0, stop, save).starts_with("Cancelled: " + name(0) + "rwkv: save was stopped at "));
          const std::string foreign = "Error: rank 1 of 2: it threw something that is no std::exception";
          CHECK(watched(last, broken, step) == (comm.rank() == last ? "int" : foreign));
          CHECK(watched(0, broken, save) ==
                (comm.rank() == 0 ? "int" : "Error: rank 0 of 2: it threw something that is no std::exception"));
          CHECK(content_of(path) == before);
        }
        step();
        save();
        if (comm.rank() != 0) return;
        if (!disturbed) undisturbed = content_of(path);
        else CHECK(content_of(path) == undisturbed);
      });
    }
  }
  // What ends a constructor on one rank alone.
  run_ranks(2, [](ThreadComm comm) {
    const std::string thrown = thrown_by([&] {
      detail::JointWork making(comm, "nothing is there");
      if (comm.rank() == 1) throw 7;
      making.done();
    });
    CHECK(thrown == (comm.rank() == 1 ? "int" : "Error: rank 1 of 2: nothing is there"));
  });
}

TEST_CASE("threads as ranks: a rank that ends early or aborts ends the others in a sentence") {
  for (const bool aborts : {false, true}) {
    std::mutex mutex;
    std::vector<std::string> sentences;
    run_ranks(3, [&](ThreadComm comm) {
      if (comm.rank() == 1) {
        if (aborts) comm.abort("the disk is full");
        return;
      }
      try {
        double sum = 1;
        comm.all_reduce(std::span(&sum, 1));
      } catch (const Error& error) {
        const std::lock_guard lock(mutex);
        sentences.push_back(error.what());
      }
      double sum = 1;  // later verbs do not take those who wait no more for ranks
      CHECK_THROWS_AS(comm.all_reduce(std::span(&sum, 1)), Error);
    });
    CHECK(sentences == std::vector<std::string>(2, aborts ? "the disk is full" : "rwkv: rank 1 has ended"));
  }
  CHECK_THROWS_WITH_AS(run_ranks(2,
                                 [](ThreadComm comm) {
                                   if (comm.rank() == 1) fail("nothing works");
                                   comm.broadcast({}, 0);
                                 }),
                       "nothing works", Error);
  CHECK_THROWS_WITH_AS(run_ranks(0, [](ThreadComm) {}), "rwkv: there must be at least one rank, not 0", Error);
}
