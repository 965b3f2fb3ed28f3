/// Long operations report to a Watch and are stopped by it. Oracle: the same operation unwatched; the files, the states and
/// the weights from before.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "setup.hpp"

using namespace rwkv;

namespace {

using Net = config::SmallNet<>;
using Reports = std::vector<Progress>;
namespace fs = std::filesystem;

/// A watch that is told everything and stops at report number `stop`.
struct Recorder {
  Reports reports{};
  int stop = -1;
  Watch watch{[this](const Progress& progress) {
                reports.push_back(progress);
                return std::ssize(reports) - 1 != stop;
              },
              std::chrono::steady_clock::duration::zero()};

  explicit Recorder(int at = -1) : stop(at) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
};

/// The phases that were reported, in order; each goes up to its total.
std::vector<Phase> phases(const Reports& reports) {
  std::vector<Phase> list;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const Progress& at = reports[i];
    CHECK(at.done >= 0);
    CHECK(at.done <= at.total);
    CHECK(at.rate >= 0);
    const bool last = i + 1 == reports.size() || reports[i + 1].phase != at.phase || reports[i + 1].done < at.done;
    if (last) CHECK(at.done == at.total);
    if (list.empty() || list.back() != at.phase) list.push_back(at.phase);
  }
  return list;
}

/// Stops an operation at its first, second, ... report until it comes to its end; `unchanged` is called after each stop.
/// Returns how often it was stopped.
int stopped_everywhere(Phase phase, const std::function<void()>& operation, const std::function<void()>& unchanged) {
  for (int at = 0;; ++at) {
    CAPTURE(at);
    bool stopped = false;
    {
      Recorder recorder(at);
      try {
        operation();
      } catch (const Cancelled& cancelled) {
        stopped = true;
        CHECK(std::string(cancelled.what()).starts_with("rwkv: "));
        CHECK(std::string(cancelled.what()).find(" was stopped at ") != std::string::npos);
        CHECK(std::ssize(recorder.reports) == at + 1);  // nothing is asked twice
      }
      bool seen = false;
      for (const Progress& progress : recorder.reports) seen |= progress.phase == phase;
      if (!stopped) CHECK(seen);
    }
    if (!stopped) return at;
    unchanged();
  }
}

/// Draws nothing, and keeps the logits that it is shown.
struct Logits {
  std::vector<float> numbers{};
  void operator()(Net::backend&, Mat<const float> logits, Token* tokens) {
    numbers.assign(logits.data, logits.data + logits.rows * logits.cols);
    std::fill_n(tokens, static_cast<std::size_t>(logits.rows), Token{0});
  }
};

struct Folder {
  fs::path path = fs::temp_directory_path() / "rwkv-progress-test";
  Folder() {
    fs::remove_all(path);
    fs::create_directory(path);
  }
  ~Folder() { fs::remove_all(path); }

  /// Every file and its bytes.
  std::map<std::string, std::string> content() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::directory_iterator(path)) {
      std::ifstream file(entry.path(), std::ios::binary);
      all[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
    }
    return all;
  }
};

std::vector<float> weights(const Net& net) {
  std::vector<float> all;
  for (const auto& parameter : net.parameters()) {
    all.insert(all.end(), parameter.numbers().begin(), parameter.numbers().end());
  }
  return all;
}

std::vector<Token> prompt(Index length) {
  std::vector<Token> tokens;
  for (Index i = 0; i < length; ++i) tokens.push_back(static_cast<Token>(i * 7 % 29));
  return tokens;
}

}  // namespace

TEST_CASE("progress: files are saved and loaded as without a watch, or not at all") {
  const Folder folder;
  const auto net = config::initialized<Net>(config::small_sizes);
  const fs::path saved = folder.path / "saved.safetensors", again = folder.path / "again.safetensors";
  save_checkpoint(net, saved);
  {
    Recorder recorder;
    save_checkpoint(net, again);
    CHECK(phases(recorder.reports) == std::vector{Phase::save});
    CHECK(weights(load_checkpoint<Net>(again)) == weights(net));
    CHECK(recorder.reports.back().phase == Phase::load);
  }
  const auto before = folder.content();
  CHECK(before.at("saved.safetensors") == before.at("again.safetensors"));
  const auto unchanged = [&] { CHECK(folder.content() == before); };
  const Net other(config::small_sizes);
  CHECK(stopped_everywhere(
            Phase::load, [&] { static_cast<void>(load_checkpoint<Net>(saved)); }, unchanged) > 3);
  CHECK(stopped_everywhere(
            Phase::load, [&] { static_cast<void>(load_checkpoint<Net>(saved, {.access = Access::mapped})); },
            unchanged) > 1);
  int stops = 0;
  for (int at = 0; at >= 0; ++at) {
    Recorder recorder(at);
    try {
      save_checkpoint(other, again);
      at = -2;
    } catch (const Cancelled&) {
      unchanged();
      ++stops;
    }
  }
  CHECK(stops > 0);
  CHECK(weights(load_checkpoint<Net>(again)) == weights(other));
}

TEST_CASE("progress: quantising ends with the whole file or none") {
  const Folder folder;
  const auto net = config::initialized<Net>({.vocab = 64, .width = 32, .depth = 1});
  const fs::path path = folder.path / "quantised.safetensors";
  {
    Recorder recorder;
    CHECK(save_quantised(net, path).size() > 2);
    CHECK(recorder.reports.front().phase == Phase::quantise);
    CHECK(recorder.reports.back().phase == Phase::save);
    CHECK(recorder.reports.back().done == recorder.reports.back().total);
  }
  const auto whole = folder.content();
  fs::remove(path);
  CHECK(stopped_everywhere(
            Phase::quantise, [&] { static_cast<void>(save_quantised(net, path)); },
            [&] { CHECK(folder.content().empty()); }) > 3);
  CHECK(folder.content() == whole);
}

TEST_CASE("progress: a prompt that is stopped has not been read, of one sequence or of several") {
  const auto net = config::initialized<Net>(config::small_sizes, 2);
  for (const Index batch : {1, 2}) {
    CAPTURE(batch);
    auto context = net.context({.batch = batch, .chunk = 8}), plain = net.context({.batch = batch, .chunk = 8});
    const auto tokens = prompt(20 * batch), start = prompt(2 * batch);
    context.prefill(start), plain.prefill(start);
    const auto want = plain.prefill(tokens);
    {
      auto watched = context.fork();
      Recorder recorder;
      const auto got = watched.prefill(tokens);
      CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
      CHECK(phases(recorder.reports) == std::vector{Phase::prefill});
      CHECK(recorder.reports.back().total == 20);
    }
    const auto state = context.state();
    const int stops = stopped_everywhere(
        Phase::prefill, [&] { context.prefill(tokens); },
        [&] {
          CHECK(context.state() == state);
          CHECK(context.position(0) == 2);
        });
    CHECK(stops >= 3 * 2);  // pieces and layers
    CHECK(context.position(batch - 1) == 22);
    CHECK(context.state() == plain.state());
  }
  // A sequence of its own beside another.
  auto context = net.context({.batch = 2, .chunk = 8});
  const auto tokens = prompt(9);
  const auto before = context.state();
  CHECK(stopped_everywhere(
            Phase::prefill, [&] { context.prefill(1, tokens); },
            [&] {
              CHECK(context.state() == before);
              CHECK(context.position(1) == 0);
            }) > 1);
  CHECK(context.position(0) == 0);
  CHECK(context.position(1) == 9);
}

TEST_CASE("progress: a prompt that is stopped leaves the logits to draw from") {
  const auto net = config::initialized<Net>(config::small_sizes, 2);
  auto context = net.context({.batch = 2, .chunk = 8});
  const auto tokens = prompt(9), both = prompt(18);
  Logits before, now;
  CHECK_THROWS_AS(context.draw(before), Error);  // before the first prompt there are none
  CHECK(stopped_everywhere(
            Phase::prefill, [&] { context.prefill(both); }, [&] { CHECK_THROWS_AS(context.draw(before), Error); }) > 1);
  context.draw(before);
  const auto unchanged = [&] {
    context.draw(now);
    CHECK(now.numbers == before.numbers);
  };
  unchanged();
  CHECK(stopped_everywhere(
            Phase::prefill, [&] { context.prefill(1, tokens); }, unchanged) > 1);
  context.draw(before);
  CHECK(now.numbers != before.numbers);
  CHECK(stopped_everywhere(
            Phase::prefill, [&] { context.prefill(both); }, unchanged) > 1);
  const Watch broken([](const Progress& at) { return at.done < at.total ? true : throw 7; });
  context.draw(before);
  CHECK_THROWS_AS(context.prefill(both), int);
  unchanged();
}

TEST_CASE("progress: generate returns where it was stopped") {
  const auto net = config::initialized<config::SmallNet<>>({.vocab = 256, .width = 20, .depth = 2});
  const auto words = Tokenizer::bytes();
  Sampler pick{.temperature = 0};
  const auto text = [&](int stop, GenerateStats& stats, Reports& reports) {
    auto context = net.context();
    std::string all;
    Recorder recorder(stop);
    stats =
        generate(context, words, "some prompt", 12, pick, [&](std::string_view piece) { return all += piece, true; });
    reports = recorder.reports;
    return all;
  };
  GenerateStats stats;
  Reports reports;
  const std::string whole = text(-1, stats, reports);
  CHECK(stats.finish == Finish::length);
  CHECK(phases(reports) == std::vector{Phase::prefill, Phase::generate});
  for (int stop = 0; stop < std::ssize(reports); ++stop) {
    Reports some;
    const std::string part = text(stop, stats, some);
    CHECK(whole.starts_with(part));
    const bool at_end = stop + 1 == std::ssize(reports);
    if (!at_end) CHECK(stats.finish == Finish::cancelled);
    CHECK(std::ssize(some) == stop + 1);
    CHECK(stats.new_tokens == (some.back().phase == Phase::generate ? some.back().done : 0));
  }
}

TEST_CASE("progress: generate returns where it was stopped behind a stop string") {
  const auto net = config::initialized<Net>({.vocab = 300, .width = 20, .depth = 2});
  std::string lines;
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char digits[] = "0123456789abcdef";
    lines += std::to_string(byte + 1) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1\n";
  }
  const auto words = Tokenizer::world(lines + "257 'zyxw!' 5\n", "small");
  const auto pick = [](std::span<const float>) { return Token{257}; };
  const auto run = [&](int stop, GenerateStats& stats, Reports& reports, std::vector<float>& state) {
    auto context = net.context();
    std::string all;
    Recorder recorder(stop);
    stats = generate(context, words, "some prompt", 3, pick, [&](std::string_view piece) { return all += piece, true; },
                     {"!z", "w!"});
    reports = recorder.reports;
    state = context.state();
    CHECK(context.position(0) == stats.prompt_tokens + stats.new_tokens);
    return all;
  };
  GenerateStats stats;
  Reports reports;
  std::vector<float> state;
  CHECK(run(-1, stats, reports, state) == "zyx");
  CHECK(stats.finish == Finish::stop);
  CHECK(stats.stop == "w!");
  CHECK(stats.new_tokens == 3);
  auto plain = net.context();
  plain.prefill(words.encode("some prompt"));
  const auto prompted = plain.state();
  int stops = 0;
  for (int stop = 0; stop < std::ssize(reports); ++stop) {
    CAPTURE(stop);
    Reports some;
    run(stop, stats, some, state);
    CHECK(stats.finish == Finish::cancelled);
    CHECK(stats.stop.empty());
    CHECK(stats.new_tokens == 0);
    if (stats.prompt_tokens > 0) {
      ++stops;
      CHECK(state == prompted);
    }
  }
  CHECK(stops >= 2);
}

TEST_CASE("progress: a training step that is stopped has not been taken") {
  const auto text = config::made_up_text(900, config::small_sizes.vocab);
  const auto options = config::small_options();
  Batch batch;
  const auto run = [&](auto& trainer, Index step) {
    ContiguousStreams(text, options.shape).fill(step, batch);
    return trainer.step(batch);
  };
  auto net = config::initialized<Net>(config::small_sizes), plain = config::initialized<Net>(config::small_sizes);
  Trainer trainer(net, options);
  Trainer<Net, Recompute> other(plain, options);
  CHECK(run(trainer, 0) == run(other, 0));
  const auto before = weights(net);
  const auto state = trainer.gradient().state().numbers();
  const std::vector<float> carried(state.data, state.data + Index(state.cols));
  const auto unchanged = [&] {
    CHECK(weights(net) == before);
    CHECK(std::equal(carried.begin(), carried.end(), state.data));
    CHECK(trainer.steps() == 1);
  };
  CHECK(stopped_everywhere(
            Phase::train, [&] { run(trainer, 1); }, unchanged) >= 4);
  {
    Recorder recorder;
    run(other, 1);
    CHECK(phases(recorder.reports) == std::vector{Phase::train});
    CHECK(recorder.reports.back().total == options.shape.batch * options.shape.length);
  }
  CHECK(weights(net) == weights(plain));
}

TEST_CASE("progress: the last watch counts, and an error of its own leaves the operation") {
  const auto net = config::initialized<Net>(config::small_sizes);
  auto context = net.context();
  const auto tokens = prompt(5);
  Recorder outer;
  {
    Recorder inner;
    context.prefill(tokens);
    CHECK(!inner.reports.empty());
  }
  CHECK(outer.reports.empty());
  context.prefill(tokens);
  CHECK(!outer.reports.empty());
  const auto state = context.state();
  const Watch broken([](const Progress&) -> bool { throw 7; }, std::chrono::steady_clock::duration::zero());
  CHECK_THROWS_AS(context.prefill(tokens), int);
  CHECK(context.state() == state);
}

TEST_CASE("progress: watches end in any order, and what a watch runs itself is not watched") {
  const auto net = config::initialized<Net>(config::small_sizes);
  auto context = net.context(), other = net.context();
  const auto tokens = prompt(5);
  auto first = std::make_unique<Recorder>(), second = std::make_unique<Recorder>(),
       third = std::make_unique<Recorder>();
  first.reset();
  third.reset();
  context.prefill(tokens);
  CHECK(!second->reports.empty());
  const Reports want = std::move(second->reports);
  second.reset();
  context.prefill(tokens);

  Reports reports;
  const Watch busy(
      [&](const Progress& at) {
        reports.push_back(at);
        other.step(3);
        other.prefill(tokens);
        return true;
      },
      std::chrono::steady_clock::duration::zero());
  context.prefill(tokens);
  REQUIRE(reports.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(reports[i].done == want[i].done);
  CHECK(other.position(0) == 6 * std::ssize(want));
}
