#pragma once
/// How far a long operation is, and how to stop it.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>

#include "rwkv/core/error.hpp"
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What a long operation does.
enum class Phase : unsigned char {
  load,      ///< bytes of a file: read, checked, converted, each counted from 0
  save,      ///< bytes of a file that is written
  prefill,   ///< tokens of a prompt
  generate,  ///< tokens of a text
  train,     ///< tokens of a training step, forwards and backwards
  quantise,  ///< bytes of the weights that are quantised
};

/// The word for a phase, such as "load".
constexpr std::string_view name_of(Phase phase) {
  constexpr std::string_view names[] = {"load", "save", "prefill", "generate", "train", "quantise"};
  return names[static_cast<std::size_t>(phase)];
}

/// How far an operation is.
struct Progress {
  Phase phase;  ///< what it does
  Index done;   ///< bytes or tokens, as the phase says
  Index total;  ///< of them; what `done` is in the end
  double rate;  ///< of them per second, so far
};

/// An operation was stopped by a Watch. What it would have changed is as it was before: no file is half written, and the
/// object goes on.
class Cancelled : public Error {
 public:
  using Error::Error;
};

class Watch;

namespace detail {

/// What is counted: bytes of files and weights, passes of layers over all tokens at a time, tokens of a text.
enum class Unit : unsigned char { bytes, layers, tokens };

constexpr Unit unit_of(Phase phase) {
  if (phase == Phase::generate) return Unit::tokens;
  return phase == Phase::prefill || phase == Phase::train ? Unit::layers : Unit::bytes;
}

/// An operation, or a part of it, that reports to the watch of this thread.
class Reporting {
 public:
  /// Reports up to `total` while `units` units are counted; if not `active`, nothing.
  Reporting(Phase phase, Index total, Index units, bool active = true);
  Reporting(Phase phase, Index total) : Reporting(phase, total, total) {}
  Reporting(const Reporting&) = delete;
  Reporting& operator=(const Reporting&) = delete;
  ~Reporting();

  /// Counts, and reports now and then; false if the watch says so.
  bool advance(Index count);
  /// Counts what is left; what follows can no longer be stopped.
  void finish() {
    if (!advance(std::max<Index>(0, units_ - counted_))) cancel();
    watch_ = nullptr;
  }
  Unit unit() const { return unit_of(phase_); }
  [[noreturn]] void cancel() const {
    RWKV_THROW(Cancelled(join("rwkv: ", name_of(phase_), " was stopped at ", done(), " of ", total_)));
  }

 private:
  Index done() const {
    if (counted_ >= units_) return total_;
    return units_ == total_ ? counted_ : counted_ * total_ / units_;
  }

  Watch* watch_;
  Reporting* outer_;
  Phase phase_;
  Index total_, units_, counted_ = 0;
  std::chrono::steady_clock::time_point begin_{}, last_{};
};

constinit inline thread_local Watch* watch_of_thread = nullptr;
constinit inline thread_local Reporting* reporting_of_thread = nullptr;

/// Counts for the reporting of this thread, if there is one of that unit; throws Cancelled where its watch says so.
inline void advance(Unit unit, Index count) {
  Reporting* const reporting = reporting_of_thread;
  if (reporting != nullptr && reporting->unit() == unit && !reporting->advance(count)) reporting->cancel();
}

}  // namespace detail

/// While it lives, the long operations of its thread report to it: loading, saving, prefill, generate(), training steps and
/// quantising. It calls call(Progress) every 20 ms or so, and at the end of each; where that returns false, the operation
/// throws Cancelled (generate() returns Finish::cancelled). Without a watch nothing is counted.
///
///     const rwkv::Watch watch([&](const rwkv::Progress& at) { return show(at.done, at.total), !stopped; });
///     auto net = rwkv::load_checkpoint<Net>(path);
///
/// Between two calls the CPU computes for some hundredths of a second; of other backends at most a layer of a few tokens runs,
/// of a training step a layer of its tokens. Of several, the watch made last counts. It is destroyed on the thread that made
/// it. What `call` itself runs is not watched.
class [[nodiscard]] Watch {
 public:
  /// Errors    those of `call` leave the operation, which then is as if stopped
  explicit Watch(std::function<bool(const Progress&)> call,
                 std::chrono::steady_clock::duration every = std::chrono::milliseconds(20))
      : call_(std::move(call)), every_(every), outer_(std::exchange(detail::watch_of_thread, this)) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    Watch** link = &detail::watch_of_thread;
    while (*link != nullptr && *link != this) link = &(*link)->outer_;
    if (*link == this) *link = outer_;
  }

 private:
  friend class detail::Reporting;
  std::function<bool(const Progress&)> call_;
  std::chrono::steady_clock::duration every_;
  Watch* outer_;
};

namespace detail {

inline Reporting::Reporting(Phase phase, Index total, Index units, bool active)
    : watch_(active ? watch_of_thread : nullptr), outer_(reporting_of_thread), phase_(phase), total_(total),
      units_(units) {
  if (watch_ == nullptr) return;
  begin_ = last_ = std::chrono::steady_clock::now();
  reporting_of_thread = this;
}

inline Reporting::~Reporting() { reporting_of_thread = outer_; }

/// While it lives, nothing of this thread is watched.
struct Unwatched {
  Watch* watch = std::exchange(watch_of_thread, nullptr);
  Reporting* reporting = std::exchange(reporting_of_thread, nullptr);

  Unwatched() = default;
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
  ~Unwatched() {
    watch_of_thread = watch;
    reporting_of_thread = reporting;
  }
};

inline bool Reporting::advance(Index count) {
  if (watch_ == nullptr) return true;
  const bool ends = counted_ < units_ && counted_ + count >= units_;
  counted_ += count;
  const auto now = std::chrono::steady_clock::now();
  if (!ends && now - last_ < watch_->every_) return true;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const Unwatched during_the_call;
  return watch_->call_({phase_, done(), total_, seconds > 0 ? static_cast<double>(done()) / seconds : 0});
}

/// Whether operations of this thread are watched.
inline bool is_watched() { return watch_of_thread != nullptr; }

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv
