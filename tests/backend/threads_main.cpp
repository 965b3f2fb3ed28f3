/// Threads that cannot be started are one error that leaves nothing behind: where the system refuses them, and where any
/// allocation fails.
#include <rwkv/backend/cpu/threads.hpp>
#include <rwkv/check/limits.hpp>

#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <system_error>
#include <thread>

namespace {

std::atomic<int> allocations_left{-1};  // until one fails; -1: none does

int bad = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("BAD: %s\n", what.c_str());
  ++bad;
}

std::ptrdiff_t threads_of_this_process() {
  std::ptrdiff_t count = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) ++count;
  return count;
}

/// A thread that was joined may be seen for a moment.
bool is_alone() {
  for (int i = 0; i < 1000; ++i) {
    if (threads_of_this_process() == 1) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

/// The error of starting that many threads, or "".
std::string error_of(int count) {
  try {
    const rwkv::Threads threads(count);
    allocations_left = -1;
    std::atomic<rwkv::Index> sum{0};
    threads.run(100, [&](rwkv::Index tile) { sum += tile; });
    check(sum == 4950, "tiles are missing");
    return "";
  } catch (const rwkv::Error& error) {
    return error.what();
  }
}

/// The error of measuring with that many threads, or "".
std::string error_of_measuring(int count) {
  try {
    rwkv::fma_peak(count);
    return "";
  } catch (const std::system_error& error) {
    return error.what();
  }
}

/// The error of 1024 threads, which do not fit into `room` bytes of addresses beside those in use.
std::string error_within(rlim_t room, std::string (&error_of_threads)(int)) {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before = {};
  if (getrlimit(RLIMIT_AS, &before) != 0) return "";
  const rlimit limit{pages * 4096 + room, before.rlim_max};
  if (setrlimit(RLIMIT_AS, &limit) != 0) return "";
  const std::string error = error_of_threads(1024);
  setrlimit(RLIMIT_AS, &before);
  return error;
}

}  // namespace

void* operator new(std::size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
  std::error_code none;
  if (!std::filesystem::is_directory("/proc/self/task", none)) {
    std::puts("skipped: the threads of this process cannot be counted");
    return 0;
  }
  const std::string start = "rwkv: 1024 threads could not be started: ";
  for (const unsigned mebibytes : {0u, 4u, 20u, 100u, 600u}) {
    const std::string error = error_within(rlim_t{mebibytes} << 20, error_of);
    if (error.empty() && bad == 0) {
      std::puts("skipped: the system limits no threads");
      return 0;
    }
    std::printf("%u MiB: %s\n", mebibytes, error.c_str());
    check(error.starts_with(start), "another sentence");
    check(is_alone(), "threads are left");
  }
  for (const unsigned mebibytes : {100u, 600u}) {
    check(!error_within(rlim_t{mebibytes} << 20, error_of_measuring).empty(), "a measurement without its threads");
    check(is_alone(), "threads of a measurement are left");
  }

  int failures = 0;
  for (std::string error = "none yet"; !error.empty(); ++failures) {
    allocations_left = failures;
    error = error_of(5);
    allocations_left = -1;
    check(error.empty() || error == "rwkv: 5 threads could not be started: not enough memory", error);
    check(is_alone(), "threads are left");
  }
  std::printf("%d allocations\n", failures - 1);
  check(failures > 5, "too few allocations failed");

  check(error_of(1) == "" && error_of(3) == "" && error_of(1024) == "", "threads are refused without a limit");
  for (const int wrong : {-1, 0, 1025}) {
    check(error_of(wrong) == rwkv::join("rwkv: the number of threads must be in [1, 1024], not ", wrong), "bounds");
  }
  std::printf("%d bad\n", bad);
  return bad == 0 ? 0 : 1;
}
