#pragma once
/// Times cases on the device and prints each beside its floor and its goal, as Markdown and as CSV.
#include <chrono>
#include <cstdio>
#include <functional>
#include <regex>
#include <string>

#include "ceilings.cuh"

namespace bench {

/// What one call does, at the least: every operand read once, every result written once.
struct Work {
  enum Unit { fma, mma };

  double read = 0, written = 0;  ///< bytes
  double flops = 0;
  Unit unit = fma;  ///< what computes them
};

struct Case {
  std::string kernel, shape, number;
  Work work{};
  double goal = 0;  ///< the most times the floor that it may take; 0: no goal

  std::string name() const { return kernel + "/" + shape + "/" + number; }
};

/// The goal that a share of a ceiling is.
constexpr double share(double part) { return 1 / part; }

struct Options {
  std::string filter, csv;
  bool quick = false;  ///< smaller shapes, fewer of them
  bool eager = false;  ///< kernels one by one instead of recorded
};

class Suite {
 public:
  Suite(Cuda be, const Options& options);
  Suite(const Suite&) = delete;
  Suite& operator=(const Suite&) = delete;
  ~Suite();

  Cuda& backend() { return backend_; }
  const Ceilings& ceilings() const { return ceilings_; }
  bool quick() const { return options_.quick; }
  /// Whether a row failed.
  bool failed() const { return failed_; }

  /// Matrix units have been seen to compute so many operations per second, perhaps more than by mma.sync.
  void saw_matrix_rate(double rate) { ceilings_.mma = std::max(ceilings_.mma, rate); }

  /// Prints the device and its ceilings.
  void print_device();
  void section(const std::string& title) {
    section_ = title;
    head_due_ = true;
  }

  /// How many sets of `bytes` the calls of a case must use in turn, so that none finds its data in the L2 cache.
  Index sets(double bytes) const;

  /// Runs run() if the case is selected. An error becomes a row.
  void run(const Case& what, const std::function<void()>& run);
  /// Prints a row that says why there is no number for a case; for run().
  void skip(const Case& what, const std::string& reason) { say(what, "skipped: " + reason); }

  /// Seconds of call(set) on the device, one number for each repetition, each the mean over many calls that use the
  /// sets in turn.
  std::vector<double> seconds_of(Index sets, const std::function<void(Index)>& call);

  /// Times call(set) and prints the row.
  void measure(const Case& what, Index sets, const std::function<void(Index)>& call) {
    report(what, seconds_of(sets, call));
  }
  /// Prints the row of a case that was timed elsewhere, with a remark.
  void report(const Case& what, const std::vector<double>& seconds, const std::string& remark = "");

  double floor_of(const Work& work) const;
  static constexpr int repeats = 25;

 private:
  const char* limit_of(const Work& work) const;
  double memory_seconds(const Work& work) const;
  void head();
  void say(const Case& what, const std::string& text);

  Cuda backend_;
  Options options_;
  std::regex filter_;
  Ceilings ceilings_;
  std::string section_;
  std::FILE* csv_ = nullptr;
  bool head_due_ = false, failed_ = false;
};

/// Seconds of call() on the host's clock, by the median of repetitions that each take some milliseconds. For what ends
/// with its result on the host.
template <class Call>
std::vector<double> host_seconds_of(const Call& call) {
  using Clock = std::chrono::steady_clock;
  const auto time = [&](Index rounds) {
    const auto begin = Clock::now();
    for (Index i = 0; i < rounds; ++i) call();
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(rounds);
  };
  time(3);
  const auto rounds = std::clamp<Index>(static_cast<Index>(5e-3 / time(2)), 1, 50);
  std::vector<double> seconds;
  for (int r = 0; r < Suite::repeats; ++r) seconds.push_back(time(rounds));
  return seconds;
}

/// The parts of the program.
void add_recurrences(Suite& suite);
void add_norms(Suite& suite);
void add_shifts(Suite& suite);
void add_rows(Suite& suite);
void add_products(Suite& suite);
void add_time_scan(Suite& suite);
void add_decode(Suite& suite);
void add_training(Suite& suite);

/// "8x1024x768"
template <class... N>
std::string by(N... sizes) {
  std::string text;
  ((text += (text.empty() ? "" : "x") + std::to_string(sizes)), ...);
  return text;
}

template <class T>
constexpr const char* number_name() {
  if constexpr (sizeof(T) == 2) return "bf16";
  else return "fp32";
}

}  // namespace bench
