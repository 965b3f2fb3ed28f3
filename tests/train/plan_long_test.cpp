/// A plan against runs: what ranks send, to the byte, and what they hold.
#include <doctest/doctest.h>
#include <rwkv/train/plan.hpp>
#include <rwkv/train/thread_comm.hpp>

#include <mutex>

#include "setup.hpp"

using namespace rwkv;

namespace {

/// The CPU, with a count of the bytes that a rank holds.
class Weighed : public Cpu {
 public:
  template <class T>
  T* allocate(Index count) {
    *bytes_ += count * Index{sizeof(T)};
    return Cpu::allocate<T>(count);
  }
  Index allocated() const { return *bytes_; }

 private:
  std::shared_ptr<Index> bytes_ = std::make_shared<Index>(0);
};

}  // namespace

TEST_CASE("ranks send what was planned, and hold it") {
  using Net = LanguageModel<config::AnyVersion, float, Weighed>;
  using Planned = LanguageModel<config::AnyVersion, float, Unbacked<Cpu>>;
  auto options = config::small_options();
  options.average = 0.5;
  for (const auto& [ranks, rows, grain] : {std::tuple<int, Index, Index>{1, 4, 2}, {2, 3, 1}, {3, 2, 2}, {4, 1, 1}}) {
    CAPTURE(ranks);
    options.shape = {.batch = ranks * rows, .length = 17};
    const RunShape run{.ranks = ranks, .rows = rows, .length = 17, .grain = grain, .average = true};
    const RankPlan plan = plan_of_rank<Planned, Keep>(config::shared_sizes, run);
    std::mutex mutex;
    Index sent = 0, held = 0, updated = 0;
    run_ranks(ranks, [&, grain = grain](ThreadComm threads) {
      Net net(config::shared_sizes, Weighed());
      initialize(net, Seed{4});
      CountedComm<ThreadComm> comm(threads);
      Trainer<Net, Keep, CountedComm<ThreadComm>> trainer(net, options, comm, {.grain = grain});
      config::train(trainer, options.shape, config::shared_sizes.vocab, 0, 1);
      const Index before = comm.sent();
      config::train(trainer, options.shape, config::shared_sizes.vocab, 1, 2);
      const std::lock_guard lock(mutex);
      sent = std::max(sent, comm.sent() - before);
      held = std::max(held, net.device().allocated());
      updated = std::max(updated, trainer.moment_bytes());
    });
    CHECK(plan.parameters * 4 == plan.weights);
    CHECK(plan.moments == updated);
    CHECK(plan.sent() == sent);
    // The numbers that come from other ranks are in no memory of a backend; the norm's scratch is not planned.
    const Index received = plan.held() - held;
    CHECK(received <= plan.sums);
    CHECK(static_cast<double>(received) >= -0.01 * static_cast<double>(held));
  }
}

TEST_CASE("a plan of a model that no machine holds takes none of its memory, and says what cannot be") {
  using Planned = LanguageModel<config::AnyVersion, float, Unbacked<Cpu>>;
  const ModelSizes large{.vocab = 50277, .width = 5120, .depth = 40};
  const RankPlan one = plan_of_rank<Planned, Keep>(large, {.length = 512});
  const RankPlan many = plan_of_rank<Planned, Keep>(large, {.ranks = 64, .length = 512});
  CHECK(one.parameters > 14'000'000'000);
  CHECK(one.sent() == 0);
  CHECK(many.weights == one.weights);
  CHECK(many.tape == one.tape);
  CHECK(static_cast<double>(many.moments) == doctest::Approx(static_cast<double>(one.moments) / 64).epsilon(0.01));
  CHECK_THROWS_WITH_AS((plan_of_rank<Planned, Keep>(large, {.rows = 3, .grain = 2})),
                       "rwkv: 3 sequences of a rank are no whole passes of 2", Error);
  CHECK_THROWS_WITH_AS((plan_of_rank<Planned, Keep>(large, {.ranks = 0})),
                       "rwkv: 0 ranks with 1 sequences each have nothing to learn from", Error);
}
