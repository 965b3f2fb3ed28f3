#pragma once
/// A small model, some text and a few training steps.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "../instances.hpp"

namespace config {

using rwkv::Batch;
using rwkv::Index;
using rwkv::TrainerOptions;

template <class T = float>
using SmallNet = rwkv::LanguageModel<config::AnyVersion, T, rwkv::Cpu>;

inline constexpr rwkv::ModelSizes small_sizes{.vocab = 29, .width = 20, .depth = 2, .ffn = 33};
/// Large enough for every operation to run on several threads.
inline constexpr rwkv::ModelSizes shared_sizes{.vocab = 300, .width = 136, .depth = 2};

inline rwkv::TokenData made_up_text(Index count, Index vocab) {
  std::vector<rwkv::Token> tokens;
  for (Index i = 0; i < count; ++i) {
    const double u = rwkv::Philox{.key = 3}.block(static_cast<std::uint64_t>(i)).uniform_double(0);
    // Most tokens are a function of the previous token, so that there is something to learn.
    const auto next = tokens.empty() || u < 0.3 ? static_cast<Index>(u * 1e6) : tokens.back() * 7 + 3;
    tokens.push_back(static_cast<rwkv::Token>(next % vocab));
  }
  return rwkv::TokenData(std::move(tokens));
}

template <class Net>
Net initialized(const rwkv::ModelSizes& sizes, int threads = 1) {
  Net net(sizes, rwkv::Cpu(threads));
  rwkv::initialize(net, rwkv::Seed{4});
  return net;
}

inline TrainerOptions small_options() {
  TrainerOptions options;
  options.shape = {.batch = 3, .length = 11};
  options.rate = {.peak = 3e-3, .final = 3e-4, .steps = 20, .warmup = 3};
  options.optimizer.weight_decay = 0.1;
  return options;
}

/// The losses of the steps [begin, end); `streams` carries the state.
template <class T>
std::vector<double> train(T& trainer, const rwkv::BatchShape& shape, Index vocab, Index begin, Index end,
                          bool streams = false) {
  const auto text = made_up_text(900, vocab);
  Batch batch;
  std::vector<double> losses;
  for (Index step = begin; step < end; ++step) {
    if (streams) rwkv::ContiguousStreams(text, shape).fill(step, batch);
    else rwkv::RandomWindows(text, shape, rwkv::Seed{5}).fill(step, batch);
    losses.push_back(trainer.step(batch));
  }
  return losses;
}

template <class Net>
std::vector<typename Net::storage> all_weights(const Net& net) {
  std::vector<typename Net::storage> numbers;
  for (const auto& parameter : net.parameters()) {
    numbers.insert(numbers.end(), parameter.numbers().begin(), parameter.numbers().end());
  }
  return numbers;
}

inline std::string content_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// A path for one test, removed before and after.
class TemporaryPath {
 public:
  explicit TemporaryPath(const char* name) : path_(std::filesystem::temp_directory_path() / name) { remove(); }
  ~TemporaryPath() { remove(); }
  operator const std::filesystem::path&() const { return path_; }

 private:
  void remove() const { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

}  // namespace config
