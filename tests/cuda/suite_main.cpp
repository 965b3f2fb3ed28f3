/// The typed test cases and those of the kernels on a device. What they allocate themselves must be memory that both
/// the host and the device reach, so in this program everything is: operator new hands out managed memory.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

namespace {

/// Blocks of managed memory by their size, a power of two; given back blocks are used again and never freed.
class ManagedPool {
 public:
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t size = std::bit_ceil(bytes + header < smallest ? smallest : bytes + header);
    Block*& free = free_[std::countr_zero(size)];
    if (free == nullptr) return start(fresh(size), size);
    Block* const block = free;
    free = block->next;
    return start(block, size);
  }
  void give(void* pointer) {
    if (pointer == nullptr) return;
    const std::lock_guard lock(mutex_);
    auto* const block = reinterpret_cast<Block*>(static_cast<std::byte*>(pointer) - header);
    Block*& free = free_[std::countr_zero(block->size)];
    block->next = free;
    free = block;
  }

 private:
  struct Block {
    std::size_t size;
    Block* next;
  };
  static constexpr std::size_t header = 256, smallest = 512, region = std::size_t{256} << 20;

  static void* start(void* memory, std::size_t size) {
    auto* const block = static_cast<Block*>(memory);
    block->size = size;
    return static_cast<std::byte*>(memory) + header;
  }
  void* fresh(std::size_t size) {
    if (size > left_) {
      left_ = size > region ? size : region;
      void* memory = nullptr;
      if (cudaMallocManaged(&memory, left_) != cudaSuccess) std::abort();
      next_ = static_cast<std::byte*>(memory);
    }
    left_ -= size;
    return std::exchange(next_, next_ + size);
  }

  std::mutex mutex_;
  Block* free_[64] = {};
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
};

bool has_device() {
  static const bool found = [] {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  }();
  return found;
}

ManagedPool& pool() {
  static ManagedPool* const pool = new (std::malloc(sizeof(ManagedPool))) ManagedPool;
  return *pool;
}

void* managed(std::size_t bytes) {
  if (!has_device()) {
    if (void* const memory = std::malloc(bytes)) return memory;
    throw std::bad_alloc();
  }
  // A test may allocate while its thread records a stream.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  void* const memory = pool().take(bytes);
  cudaThreadExchangeStreamCaptureMode(&mode);
  return memory;
}
void give_back(void* pointer) {
  if (!has_device()) std::free(pointer);
  else pool().give(pointer);
}

}  // namespace

void* operator new(std::size_t bytes) { return managed(bytes); }
void* operator new(std::size_t bytes, std::align_val_t) { return managed(bytes); }
void operator delete(void* pointer) noexcept { give_back(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { give_back(pointer); }
void operator delete(void* pointer, std::align_val_t) noexcept { give_back(pointer); }
void operator delete(void* pointer, std::size_t, std::align_val_t) noexcept { give_back(pointer); }

int main(int count, char** arguments) {
  if (!has_device()) {
    std::puts("skipped: there is no CUDA device");
    return 77;
  }
  const int result = doctest::Context(count, arguments).run();
  std::fflush(nullptr);
  std::_Exit(result);  // what still lies in managed memory may be gone before it is destroyed
}
