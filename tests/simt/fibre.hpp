#pragma once
/// Stacks to run functions on, and switches between them. The emulator switches so often that a switch must not cost
/// more than a function call.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

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
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

// Saves the callee-saved registers and the stack pointer, and resumes another stack that did the same. Other processors
// use ucontext, which makes a system call at every switch.
#if defined(__ELF__) && defined(__x86_64__) && !defined(SIMT_ASAN) && !defined(SIMT_TSAN)
#define SIMT_SWITCH
asm(R"(
  .pushsection .text.simt_switch,"axG",@progbits,simt_switch,comdat
  .weak simt_switch
  .type simt_switch,@function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch, .-simt_switch
  .popsection
)");
#elif defined(__ELF__) && defined(__aarch64__) && !defined(SIMT_ASAN) && !defined(SIMT_TSAN)
#define SIMT_SWITCH
asm(R"(
  .pushsection .text.simt_switch,"axG",%progbits,simt_switch,comdat
  .weak simt_switch
  .type simt_switch,%function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size simt_switch, .-simt_switch
  .popsection
)");
#else
#include <ucontext.h>
#endif
#ifdef SIMT_SWITCH
extern "C" void simt_switch(void** save, void* next);
#endif

namespace simt::detail {

/// A suspended execution: of the host thread, or of a Fibre with its own stack. Address and thread sanitizer are
/// told of every switch, so that they keep working.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /// Suspends `from`, which resumes when someone switches to it.
  static void go(Context& from, Context& to) {
#ifdef SIMT_ASAN
    left = &from;
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#ifdef SIMT_TSAN
    if (from.sanitizer_ == nullptr) from.sanitizer_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.sanitizer_, 0);
#endif
#ifdef SIMT_SWITCH
    simt_switch(&from.stack_pointer_, to.stack_pointer_);
#else
    swapcontext(&from.registers_, &to.registers_);
#endif
    from.arrive();
  }

 protected:
  void arrive() {
#ifdef SIMT_ASAN
    // Where the host's stack lies is known only once it was left.
    __sanitizer_finish_switch_fiber(fake_stack_, &left->bottom_, &left->bytes_);
#endif
  }

#ifdef SIMT_SWITCH
  void* stack_pointer_ = nullptr;
#else
  ucontext_t registers_ = {};
#endif
#ifdef SIMT_ASAN
  static inline Context* left = nullptr;
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  std::size_t bytes_ = 0;
#endif
#ifdef SIMT_TSAN
  void* sanitizer_ = nullptr;
#endif
};

/// A context with a stack, on which it runs a function that never returns.
class Fibre : public Context {
 public:
  /// `number` shifts the stack a little: stacks that all begin at the same place of a page would share a few lines of
  /// the cache.
  explicit Fibre(std::size_t number) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    constexpr std::size_t line = 64, lines = 96;
    bytes_of_map_ = page + stack_bytes + lines * line;
    bytes_of_map_ = (bytes_of_map_ + page - 1) / page * page;
    void* const memory = mmap(nullptr, bytes_of_map_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("simt: no memory for a stack");
    map_ = static_cast<std::byte*>(memory);
    mprotect(map_, page, PROT_NONE);  // an overflow is a fault
    begin_ = map_ + page;
    end_ = map_ + bytes_of_map_ - number * 11 % lines * line;
  }
  ~Fibre() {
    forget();
    munmap(map_, bytes_of_map_);
  }

  /// The next switch to this fibre calls `body`. The function that ran here before is dropped without unwinding.
  void start(void (*body)()) {
    forget();
    body_ = body;
#ifdef SIMT_TSAN
    sanitizer_ = __tsan_create_fiber(0);
#endif
#ifdef SIMT_ASAN
    bottom_ = begin_;
    bytes_ = static_cast<std::size_t>(end_ - begin_);
    fake_stack_ = nullptr;
    __asan_unpoison_memory_region(begin_, bytes_);
#endif
#ifdef SIMT_SWITCH
#ifdef __x86_64__
    constexpr std::size_t saved = 6, entry = 6, frame = 8;  // the registers, the return address, and what aligns it
#else
    constexpr std::size_t saved = 20, entry = 11, frame = 20;  // x30, among the registers, is where to go
#endif
    static_assert(frame >= saved && frame > entry);
    auto* const words = reinterpret_cast<std::uintptr_t*>(end_) - frame;
    for (std::size_t i = 0; i < frame; ++i) words[i] = 0;
    words[entry] = reinterpret_cast<std::uintptr_t>(&Fibre::run);
    stack_pointer_ = words;
#else
    getcontext(&registers_);
    registers_.uc_stack.ss_sp = begin_;
    registers_.uc_stack.ss_size = static_cast<std::size_t>(end_ - begin_);
    makecontext(&registers_, &Fibre::run, 0);
#endif
  }
  /// Switches to this fibre. The first time after start() it begins with `body`.
  void resume(Context& from) {
    entered = this;
    go(from, *this);
  }

  /// Prefetches the memory that the next switch will read.
  void prefetch() const {
#ifdef SIMT_SWITCH
    __builtin_prefetch(stack_pointer_);
    __builtin_prefetch(static_cast<const std::byte*>(stack_pointer_) + 64);
#endif
  }

 private:
  static constexpr std::size_t stack_bytes = std::size_t{256} << 10;
  static inline Fibre* entered = nullptr;  // a body takes no argument

  static void run() {
    entered->arrive();
    entered->body_();
    std::abort();
  }
  void forget() {
#ifdef SIMT_TSAN
    if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
    sanitizer_ = nullptr;
#endif
  }

  std::byte *map_ = nullptr, *begin_ = nullptr, *end_ = nullptr;
  std::size_t bytes_of_map_ = 0;
  void (*body_)() = nullptr;
};

}  // namespace simt::detail
