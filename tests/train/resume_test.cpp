/// A resumed run has the same bits as an uninterrupted run; damaged and foreign files change nothing.
#include <doctest/doctest.h>

#include "setup.hpp"

using namespace rwkv;
using config::content_of;
using config::initialized;
using config::small_options;
using config::small_sizes;
using config::TemporaryPath;
using Net = config::SmallNet<>;

namespace {

/// Compares twelve steps in one run with five steps, a checkpoint, and seven steps of another trainer that resumes from
/// it and had other weights before.
void check_resume(const TrainerOptions& options, bool streams) {
  const TemporaryPath halfway("rwkv_resume_halfway.safetensors"), whole_end("rwkv_resume_whole.safetensors"),
      resumed_end("rwkv_resume_resumed.safetensors");
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> whole(net, options);
  const auto losses = config::train(whole, options.shape, small_sizes.vocab, 0, 12, streams);
  whole.save(whole_end);

  auto begun = initialized<Net>(small_sizes);
  {
    Trainer<Net> trainer(begun, options);
    config::train(trainer, options.shape, small_sizes.vocab, 0, 5, streams);
    trainer.save(halfway, {{"best", "1.25"}});
  }
  auto other = initialized<Net>(small_sizes);
  for (auto& parameter : other.parameters()) parameter.numbers()[0] = 0.5f;
  Trainer<Net> resumed(other, options);
  CHECK(resumed.resume(halfway) == std::map<std::string, std::string>{{"best", "1.25"}});
  CHECK(resumed.steps() == 5);
  const auto rest = config::train(resumed, options.shape, small_sizes.vocab, 5, 12, streams);
  CHECK(std::equal(rest.begin(), rest.end(), losses.begin() + 5, losses.end()));
  resumed.save(resumed_end);
  CHECK(content_of(resumed_end) == content_of(whole_end));
  CHECK(config::all_weights(other) == config::all_weights(net));
}

}  // namespace

TEST_CASE("a resumed run has the bits of an uninterrupted one") {
  SUBCASE("windows") { check_resume(small_options(), false); }
  SUBCASE("streams that carry the state") { check_resume(small_options(), true); }
  SUBCASE("a moving average") {
    auto options = small_options();
    options.average = 0.9;
    check_resume(options, false);
  }
  SUBCASE("low-rank factors") {
    auto options = small_options();
    options.lora = {.matrices = "blocks.*.{att,ffn}.{key,value}.weight", .rank = 3};
    check_resume(options, true);
  }
  SUBCASE("MiSS") {
    auto options = small_options();
    options.miss = {.matrices = "blocks.*.{att,ffn}.{key,value}.weight", .rank = 6};
    check_resume(options, false);
  }
  SUBCASE("frozen parameters") {
    auto options = small_options();
    options.frozen = "{emb,head}.weight";
    check_resume(options, false);
  }
  SUBCASE("the initial state") {
    auto options = small_options();
    options.tune_state = true;
    check_resume(options, false);
  }
}

TEST_CASE("the file of a run has the same bytes for any number of threads") {
  auto options = small_options();
  options.shape = {.batch = 4, .length = 70};
  options.average = 0.9;
  std::string first;
  for (const int threads : {1, 2, 3}) {
    CAPTURE(threads);
    const TemporaryPath path("rwkv_threads_run.safetensors");
    auto net = initialized<Net>(config::shared_sizes, threads);
    Trainer<Net> trainer(net, options);
    config::train(trainer, options.shape, config::shared_sizes.vocab, 0, 4, true);
    trainer.save(path);
    if (threads == 1) first = content_of(path);
    CHECK(content_of(path) == first);
  }
}

TEST_CASE("recomputing gives the bits of keeping") {
  auto options = small_options();
  auto kept = initialized<Net>(small_sizes), recomputed = initialized<Net>(small_sizes);
  Trainer<Net> keep(kept, options);
  Trainer<Net, Recompute> recompute(recomputed, options);
  CHECK(config::train(keep, options.shape, small_sizes.vocab, 0, 4, true) ==
        config::train(recompute, options.shape, small_sizes.vocab, 0, 4, true));
  CHECK(config::all_weights(kept) == config::all_weights(recomputed));
}

TEST_CASE("a damaged or foreign file of a run is refused and changes nothing") {
  const TemporaryPath path("rwkv_resume_damaged.safetensors");
  const std::string name = std::filesystem::path(path).string();
  const auto options = small_options();
  auto net = initialized<Net>(small_sizes);
  Trainer<Net> trainer(net, options);
  config::train(trainer, options.shape, small_sizes.vocab, 0, 3);
  trainer.save(path);
  const std::string good = content_of(path);
  const auto weights = config::all_weights(net);
  const auto write = [&](const std::string& bytes) {
    std::ofstream(std::filesystem::path(path), std::ios::binary | std::ios::trunc) << bytes;
  };
  const auto refused = [&](Trainer<Net>& by, const std::string& sentence) {
    std::string what;
    try {
      by.resume(path);
    } catch (const Error& error) {
      what = error.what();
    }
    CAPTURE(what);
    CHECK(what.starts_with(name));
    CHECK(what.find(sentence) != std::string::npos);
    CHECK(by.steps() == 3);
    CHECK(config::all_weights(net) == weights);
  };

  SUBCASE("one bit") {
    for (const std::size_t back : {1u, 500u, 4000u}) {
      std::string damaged = good;
      damaged[damaged.size() - back] = static_cast<char>(damaged[damaged.size() - back] ^ 0x10);
      write(damaged);
      refused(trainer, "the file is damaged");
    }
  }
  SUBCASE("cut off") {
    write(good.substr(0, good.size() - 100));
    refused(trainer, "past the end of the file");
  }
  SUBCASE("missing") {
    std::filesystem::remove(path);
    refused(trainer, "cannot open the file");
  }
  SUBCASE("only a model") {
    save_checkpoint(net, path);
    refused(trainer, "this is no file of a training run");
  }
  SUBCASE("other settings") {
    auto other = options;
    other.rate.peak = 1e-3;
    auto own = initialized<Net>(small_sizes);
    Trainer<Net> differing(own, other);
    config::train(differing, options.shape, small_sizes.vocab, 0, 3);
    const auto now = config::all_weights(own);
    CHECK_THROWS_WITH_AS(
        differing.resume(path),
        (name +
         ": the run in the file has other settings: rate is '0.003 to 3e-04 in 20 steps, warm-up 3 from "
         "0.01, decay cosine' there and '0.001 to 3e-04 in 20 steps, warm-up 3 from 0.01, decay cosine' here; a run "
         "goes on with the settings it began with. To train further, or otherwise, begin a new run from its model")
            .c_str(),
        Error);
    CHECK(config::all_weights(own) == now);
  }
  SUBCASE("other things that are trained") {
    auto whole = initialized<Net>(small_sizes), others = initialized<Net>(small_sizes);
    auto factors = options;
    factors.lora = {.matrices = "blocks.*.att.key.weight", .rank = 3};
    Trainer<Net> all(whole, options), low_rank(others, factors);
    low_rank.save(path);
    CHECK_THROWS_WITH_AS(
        all.resume(path),
        (name + ": the run in the file has other settings: trained is 'factors of rank 3 and alpha 16 of "
                "'blocks.*.att.key.weight'' there and 'the parameters' here; a run goes on with the settings "
                "it began with. To train further, or otherwise, begin a new run from its model")
            .c_str(),
        Error);
  }
  SUBCASE("another model") {
    auto wide = initialized<Net>({.vocab = 29, .width = 24, .depth = 2, .ffn = 33});
    Trainer<Net> other(wide, options);
    CHECK_THROWS_WITH_AS(other.resume(path),
                         (name + ": emb.weight: file has [29, 20], the run expects [29, 24]").c_str(), Error);
  }
  // Whatever was refused, the run goes on as if nothing had happened.
  auto undisturbed_net = initialized<Net>(small_sizes);
  Trainer<Net> undisturbed(undisturbed_net, options);
  const auto losses = config::train(undisturbed, options.shape, small_sizes.vocab, 0, 6);
  const auto rest = config::train(trainer, options.shape, small_sizes.vocab, 3, 6);
  CHECK(std::equal(rest.begin(), rest.end(), losses.begin() + 3, losses.end()));
  CHECK(config::all_weights(net) == config::all_weights(undisturbed_net));
}
