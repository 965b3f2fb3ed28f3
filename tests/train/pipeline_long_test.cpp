/// The layers of a model divided among ranks: the bits of one context, and one sentence for what goes wrong.
#include <doctest/doctest.h>
#include <rwkv/ranks/pipeline.hpp>
#include <rwkv/train/checksummed.hpp>
#include <rwkv/train/thread_comm.hpp>

#include <functional>
#include <limits>
#include <mutex>
#include <optional>

#include "../model/live.hpp"
#include "../versions.hpp"
#include "rank_errors.hpp"
#include "setup.hpp"

using namespace rwkv;
using config::sentence_of;
using config::TemporaryPath;
using Net = config::SmallNet<>;
using Logits = std::vector<float>;

namespace {

constexpr ModelSizes sizes{.vocab = 37, .width = 24, .depth = 5, .head_size = 8};

std::vector<Token> made_up_prompt(Index count) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) tokens.push_back(static_cast<Token>((i * i + 3 * i) % 37));
  return tokens;
}
const auto prompt = made_up_prompt(2 * 19);
const std::vector<Token> two{5, 7};

/// What something that runs gives for a prompt of two sequences, two steps, and the same from the start.
template <class Runs>
Logits answers_of(Runs& runs) {
  Logits all;
  const auto add = [&](std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); };
  for (int again = 0; again < 2; ++again) {
    add(runs.prefill(prompt));
    add(runs.step(two));
    add(runs.step(two));
    runs.reset();
  }
  return all;
}

template <class Model>
void check_bits(const Model& net, const char* name) {
  CAPTURE(name);
  auto context = net.context({.batch = 2});
  const Logits expected = answers_of(context);
  for (const int ranks : {1, 2, 3, 4}) {
    CAPTURE(ranks);
    if (ranks > std::ssize(net.parts.body.parts)) continue;
    for (const Index chunk : {1, 4, 64}) {
      CAPTURE(chunk);
      std::mutex mutex;
      int same = 0;
      run_ranks(ranks, [&](ThreadComm comm) {
        Pipeline pipeline(net, Checksummed<ThreadComm>(comm), {.batch = 2, .chunk = chunk});
        const Logits answers = answers_of(pipeline);
        const std::lock_guard lock(mutex);
        same += answers == expected;
      });
      CHECK(same == ranks);
    }
  }
}

}  // namespace

TEST_CASE("threads as ranks that divide the layers of a model have the bits of one context") {
  config::each_version([&]<class V>() {
    const auto net = config::live<LanguageModel<V, float, Cpu>>(sizes, Cpu(1));
    check_bits(net, typeid(V).name());
  });
#ifdef RWKV_TEST_ALL
  check_bits(config::live<LanguageModel<V7a, float, Cpu>>(sizes, Cpu(1)), "tokens are read in every layer");
  using Body = config::HybridsOf<Cpu>::Stack<float>;  // the first layer provides no value
  auto deep = sizes;
  deep.depth = 9;
  check_bits(config::live<Model<Embedding<float, Cpu>, Body, Head<float, Cpu>>>(deep, Cpu(2)), "chains");
#endif
}

TEST_CASE("each of the threads as ranks loads its own layers of a file, and a fault in one is a sentence on all") {
  const TemporaryPath path("rwkv_pipeline.safetensors");
  auto net = config::live<Net>(sizes, Cpu(1));
  save_checkpoint(net, path);
  auto context = net.context({.batch = 2});
  const Logits expected = answers_of(context);
  for (const Access access : {Access::loaded, Access::mapped}) {
    std::mutex mutex;
    Index bytes = 0, most = 0;
    run_ranks(3, [&](ThreadComm comm) {
      auto pipeline = Pipeline<Net, ThreadComm>::load(path, comm, {.batch = 2, .chunk = 4}, {.access = access});
      const Logits answers = answers_of(pipeline);
      const std::lock_guard lock(mutex);
      CHECK(answers == expected);
      bytes += pipeline.weight_bytes();
      most = std::max(most, pipeline.state_bytes());
    });
    CHECK(bytes == net.parameter_count() * Index{sizeof(float)});
    CHECK(most == context.state_bytes() / 5 * 2);
  }
  const auto loaded = [&](const PipelineOptions& options) {
    return sentence_of(3, [&](ThreadComm comm) { Pipeline<Net, ThreadComm>::load(path, comm, options); });
  };
  for (auto& parameter : net.parameters()) {
    if (parameter.name == "blocks.2.att.key.weight") parameter.numbers()[3] = std::numeric_limits<float>::quiet_NaN();
  }
  save_checkpoint(net, path);
  CHECK(loaded({}).starts_with("rank 1 of 3: rwkv: "));
  CHECK(loaded({}).find("blocks.2.att.key.weight") != std::string::npos);
  CHECK(loaded({.chunk = 0}) == "rwkv: a pipeline needs a chunk above zero, not 0");
  std::filesystem::remove(path);
  CHECK(loaded({}).find("cannot open the file") != std::string::npos);
}

TEST_CASE("what goes wrong with layers divided among threads as ranks is a sentence on all and changes nothing") {
  const auto net = config::live<Net>(sizes, Cpu(1)),
             other = config::live<Net>({.vocab = 38, .width = 24, .depth = 5}, Cpu(1));
  const auto unbound = Net::unbound(sizes, Cpu(1));
  using RankPipeline = Pipeline<Net, ThreadComm>;
  CHECK(sentence_of(6, [&](ThreadComm comm) { RankPipeline(net, comm); }) == "rwkv: 6 ranks cannot share 5 layers");
  CHECK(sentence_of(2, [&](ThreadComm comm) { RankPipeline(comm.rank() == 0 ? net : other, comm); }) ==
        "rwkv: rank 1 of 2 has other models or options of a pipeline than rank 0");
  CHECK(sentence_of(2, [&](ThreadComm comm) { RankPipeline(net, comm, {.chunk = comm.rank() + 4}); }) ==
        "rwkv: rank 1 of 2 has other models or options of a pipeline than rank 0");
  CHECK(sentence_of(2, [&](ThreadComm comm) { RankPipeline(comm.rank() == 0 ? net : unbound, comm); }) ==
        "rank 1 of 2: rwkv: the model has no weights: it is unbound, or was moved from");

  auto context = net.context({.batch = 2});
  const Logits expected = answers_of(context);
  run_ranks(3, [&](ThreadComm comm) {
    RankPipeline pipeline(net, comm, {.batch = 2, .chunk = 4});
    pipeline.prefill(two);
    const auto refused = [&](const std::string& sentence, const std::vector<Token>& tokens) {
      CHECK_THROWS_WITH_AS(pipeline.prefill(tokens), sentence.c_str(), Error);
    };
    refused("rwkv: there is no token to run: the prompt is empty", {});
    refused("rwkv: 3 tokens do not divide into 2 sequences", {1, 2, 3});
    refused("rank 1 of 3: rwkv: token 37 at position 1 is outside the vocabulary of 37",
            comm.rank() == 1 ? std::vector<Token>{1, 37} : two);
    refused("rwkv: rank 2 of 3 has other tokens than rank 0", comm.rank() == 2 ? std::vector<Token>{5, 8} : two);
    CHECK_THROWS_WITH_AS(pipeline.step(1),
                         "rwkv: step takes one token for each of the 2 sequences of the pipeline, not 1", Error);
    // A watch of any rank stops the prompt where it is.
    for (int by = 0; by < 3; ++by) {
      for (const int after : {0, 2, 4}) {
        int calls = 0;
        std::optional<Watch> watch;
        const auto call = [&](const Progress&) { return calls++ < after; };
        if (comm.rank() == by) watch.emplace(call, std::chrono::steady_clock::duration::zero());
        std::string sentence;
        try {
          pipeline.prefill(prompt);
        } catch (const Cancelled& error) {
          sentence = error.what();
        }
        CHECK(sentence.starts_with(join("rank ", by, " of 3: rwkv: prefill was stopped at ")));
      }
    }
    // The states are those after `two`.
    const auto after = pipeline.step(two);
    const Logits logits(after.begin(), after.end());
    pipeline.reset();
    pipeline.prefill(two);
    const auto again = pipeline.step(two);
    CHECK(std::equal(again.begin(), again.end(), logits.begin(), logits.end()));
    pipeline.reset();
    CHECK(answers_of(pipeline) == expected);
  });
  CHECK_THROWS_WITH_AS(run_ranks(3,
                                 [&](ThreadComm comm) {
                                   RankPipeline pipeline(net, comm);
                                   if (comm.rank() == 1) fail("the power is off");
                                   pipeline.step(1);
                                 }),
                       "the power is off", Error);
}
