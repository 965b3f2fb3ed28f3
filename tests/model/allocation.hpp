#pragma once
/// What programs about allocation share: global operator new is replaced, and Eigen's malloc guard is on. Such a program
/// stands alone, because a replaced operator new affects the whole program.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#define EIGEN_RUNTIME_NO_MALLOC
#include <doctest/doctest.h>

#include <stdexcept>
// Eigen's guard is an assertion, which NDEBUG would remove.
#define eigen_assert(holds) \
  if (!(holds)) throw std::logic_error("Eigen allocated memory")

#include <rwkv/blocks.hpp>

#include <atomic>
#include <cstdlib>
#include <new>

#include "live.hpp"

namespace {
std::atomic<long> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  // aligned_alloc wants a multiple of the alignment.
  if (void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)) return memory;
  throw std::bad_alloc();
}
}  // namespace

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmismatched-new-delete"  // g++ inlines one of each pair and misses that both are replaced
#endif
void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  try {
    return operator new(size, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

using rwkv::Index;

template <class V, class S>
void check_steps() {
  using Net = rwkv::LanguageModel<V, S, rwkv::Cpu>;
  for (const int threads : {1, 2}) {
    for (const Index width : {5, 64, 700}) {
      const auto net = config::live<Net>(
          {.vocab = 300, .width = width, .depth = 2, .head_size = width == 64 ? 16 : width / 5}, rwkv::Cpu(threads));
      for (const Index batch : {1, 5, 40}) {
        auto context = net.context({.batch = batch, .chunk = 3});
        const std::vector<rwkv::Token> tokens(static_cast<std::size_t>(batch), 7);
        const std::vector<rwkv::Token> prompt(static_cast<std::size_t>(batch * 5), 7);
        rwkv::StateRing ring(context, 2);
        CAPTURE(width);
        CAPTURE(threads);
        const long before = allocations;
        Eigen::internal::set_is_malloc_allowed(false);
        for (int i = 0; i < 3; ++i) context.step(tokens);
        context.prefill(prompt);
        ring.push();
        ring.back(1);
        context.reset();
        Eigen::internal::set_is_malloc_allowed(true);
        CHECK(allocations == before);
      }
    }
  }
}
