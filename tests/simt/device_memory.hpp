#pragma once
/// The memory of the emulated device. It is accessible only while the device works: host code that follows a device
/// pointer dies, as it would with a GPU. Accesses up to a page beyond an allocation die too, or, if they are writes
/// just behind its end, are reported when the device stops.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "emulator.hpp"

namespace simt::detail {

/// One range of addresses for all allocations. Where the processor has protection keys, all share one, and opening them
/// sets a register; elsewhere it takes a system call, which is slow if there is much memory. What is not allocated maps
/// an empty file, which raises a signal at every access whatever the protection is: guard pages stay closed when the
/// range around them opens.
class DeviceMemory {
 public:
  static constexpr std::size_t alignment = 256;  // of every allocation; what CUDA promises
  static constexpr int poison = 0xff;            // new memory is NaN

  struct Allocation {
    std::size_t bytes;
    int device;
  };

  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  /// The only instance. Never destroyed: destructors at the end of the program may still free memory.
  static DeviceMemory& instance() {
    static DeviceMemory& memory = *new DeviceMemory;
    return memory;
  }

  /// The end of the allocation, rounded up to its alignment, touches a guard page. Null if there is no room.
  void* allocate(std::size_t bytes, int device) {
    if (allocations_.empty()) next_ = base_;
    const std::size_t pages = round_up(round_up(bytes, alignment), page_);
    if (pages + page_ > static_cast<std::size_t>(base_ + range_bytes - next_)) return nullptr;
    std::byte* const piece = next_ + page_;  // after a guard page; the next allocation brings the one behind
    map(piece, pages, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, PROT_READ | PROT_WRITE);
    std::memset(piece, poison, pages);
    if (key_ >= 0) pkey_mprotect(piece, pages, PROT_READ | PROT_WRITE, key_);
    else if (opened_ == 0) mprotect(piece, pages, PROT_NONE);
    next_ = piece + pages;
    std::byte* const start = next_ - round_up(bytes, alignment);
    allocations_[start] = {bytes, device};
    return start;
  }

  /// Returns the bytes that `pointer` was allocated with; 0 if it was not.
  std::size_t free(void* pointer) {
    const auto found = allocations_.find(static_cast<std::byte*>(pointer));
    if (found == allocations_.end()) return 0;
    const std::size_t bytes = found->second.bytes, pages = round_up(round_up(bytes, alignment), page_);
    reserve(found->first + round_up(bytes, alignment) - pages, pages);
    allocations_.erase(found);
    return bytes;
  }

  /// The allocation that `pointer` lies in, and its start; null if there is none.
  const std::pair<std::byte* const, Allocation>* find(const void* pointer) const {
    const auto after = allocations_.upper_bound(static_cast<std::byte*>(const_cast<void*>(pointer)));
    if (after == allocations_.begin()) return nullptr;
    const auto& candidate = *std::prev(after);
    return pointer < candidate.first + candidate.second.bytes ? &candidate : nullptr;
  }
  /// Whether the address could be device memory, allocated or not.
  bool in_range(const void* pointer) const { return pointer >= base_ && pointer < base_ + range_bytes; }

  /// The device works, and its memory is accessible, while an Open lives.
  class Open {
   public:
    Open() {
      if (instance().opened_++ == 0) instance().protect(false);
    }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    ~Open() {
      if (--instance().opened_ == 0) instance().protect(true);
    }
  };

  /// Throws if anything was written between an allocation and its guard page. Call it while an Open lives.
  void check_ends() {
    for (const auto& [start, allocation] : allocations_) {
      std::byte* const end = start + allocation.bytes;
      const std::size_t gap = round_up(allocation.bytes, alignment) - allocation.bytes;
      if (std::memcmp(end, untouched_, gap) != 0) {
        std::memset(end, poison, gap);  // reported once
        throw Error("simt: a write behind the end of an allocation of " + std::to_string(allocation.bytes) +
                    " bytes of device memory");
      }
    }
  }

 private:
  static constexpr std::size_t range_bytes = std::size_t{1} << 37;

  static std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

  DeviceMemory() : key_(pkey_alloc(0, PKEY_DISABLE_ACCESS)), empty_(memfd_create("simt guard", MFD_CLOEXEC)) {
    if (empty_ < 0) throw std::runtime_error("simt: memfd_create failed");
    void* const range = mmap(nullptr, range_bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, empty_, 0);
    if (range == MAP_FAILED) throw std::runtime_error("simt: no addresses for the memory of the device");
    base_ = next_ = static_cast<std::byte*>(range);
    std::memset(untouched_, poison, sizeof untouched_);
    struct sigaction action = {};
    action.sa_sigaction = &explain;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &of_others_[0]);
    sigaction(SIGBUS, &action, &of_others_[1]);
  }

  /// Reports the access and restores the previous handler, which gets the same fault again.
  static void explain(int, siginfo_t* info, void*) {
    const DeviceMemory& memory = instance();
    if (memory.in_range(info->si_addr)) {
      const char* const text = memory.opened_ == 0 ? "simt: the host touches device memory\n"
                                                   : "simt: a kernel touches memory outside of every allocation\n";
      [[maybe_unused]] const auto written = write(STDERR_FILENO, text, std::strlen(text));
    }
    sigaction(SIGSEGV, &memory.of_others_[0], nullptr);
    sigaction(SIGBUS, &memory.of_others_[1], nullptr);
  }

  void map(std::byte* at, std::size_t bytes, int flags, int file, int protection) const {
    const std::ptrdiff_t offset = file < 0 ? 0 : at - base_;  // so that neighbours become one mapping
    if (mmap(at, bytes, protection, flags, file, offset) == MAP_FAILED) throw std::runtime_error("simt: mmap failed");
  }
  void reserve(std::byte* at, std::size_t bytes) {
    const bool open = key_ < 0 && opened_ > 0;
    map(at, bytes, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, empty_, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  void protect(bool closed) {
    if (key_ >= 0) pkey_set(key_, closed ? PKEY_DISABLE_ACCESS : 0);
    else if (next_ != base_)
      mprotect(base_, static_cast<std::size_t>(next_ - base_), closed ? PROT_NONE : PROT_READ | PROT_WRITE);
  }

  const int key_;  // of the protection; -1: the processor has none
  const int empty_;
  std::byte *base_ = nullptr, *next_ = nullptr;  // addresses are not used again while anything is allocated
  const std::size_t page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::map<std::byte*, Allocation> allocations_;
  std::byte untouched_[alignment];
  int opened_ = 0;
  struct sigaction of_others_[2] = {};
};

}  // namespace simt::detail
