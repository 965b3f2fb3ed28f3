#pragma once
/// A stack of its own to run a function on, and the switches to and from it; for the emulator.
#include <ucontext.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN
#elif defined(__SANITIZE_THREAD__)
#define SIMT_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN
#elif __has_feature(thread_sanitizer)
#define SIMT_TSAN
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace simt::detail {

/// Runs a function piece by piece. Address and thread sanitizer are told of every switch, so both keep working.
class Fibre {
 public:
  Fibre() = default;
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;
  ~Fibre() { forget(); }

  /// Prepares a run of `body` from its beginning; a run that has not ended is dropped without unwinding.
  void start(std::function<void()> body) {
    body_ = std::move(body);
    ended_ = false;
    forget();
#ifdef SIMT_TSAN
    sanitizer_ = __tsan_create_fiber(0);
#endif
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_.get();
    own_.uc_stack.ss_size = stack_bytes;
    makecontext(&own_, &Fibre::run, 0);
  }
  bool ended() const { return ended_; }

  /// Runs until the body suspends or ends; throws what the body threw.
  void resume() {
    resumed = this;
#ifdef SIMT_ASAN
    void* host_fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&host_fake_stack, stack_.get(), stack_bytes);
#endif
#ifdef SIMT_TSAN
    host_sanitizer_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(sanitizer_, 0);
#endif
    swapcontext(&host_, &own_);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  /// Called by the body: returns to whoever resumed it.
  void suspend() {
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(ended_ ? nullptr : &sanitizer_, host_stack_, host_stack_bytes_);
#endif
#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(host_sanitizer_, 0);
#endif
    swapcontext(&own_, &host_);
    arrive();
  }

 private:
  static constexpr std::size_t stack_bytes = std::size_t{128} << 10;
  static inline Fibre* resumed = nullptr;  // makecontext passes no pointer

  static void run() {
    Fibre& fibre = *resumed;
    fibre.arrive();
    try {
      fibre.body_();
    } catch (...) {
      fibre.failure_ = std::current_exception();
    }
    fibre.ended_ = true;
    fibre.suspend();
  }
  void arrive() {
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(sanitizer_, &host_stack_, &host_stack_bytes_);
#endif
  }
  void forget() {
#ifdef SIMT_TSAN
    if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
#endif
    sanitizer_ = nullptr;
  }

  std::unique_ptr<std::byte[]> stack_{new std::byte[stack_bytes]};  // not cleared: only pages in use take memory
  ucontext_t own_ = {}, host_ = {};
  std::function<void()> body_;
  std::exception_ptr failure_;
  bool ended_ = true;
  [[maybe_unused]] void* sanitizer_ = nullptr;  // the fibre's handle, or its fake stack
  [[maybe_unused]] void* host_sanitizer_ = nullptr;
  [[maybe_unused]] const void* host_stack_ = nullptr;
  [[maybe_unused]] std::size_t host_stack_bytes_ = 0;
};

}  // namespace simt::detail
