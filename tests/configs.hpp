#pragma once
/// The configurations every typed test runs in, and buffers for them.
#include <rwkv/backend/transfer.hpp>
#include <rwkv/blocks.hpp>
#ifdef RWKV_TEST_CUDA
#include <rwkv/cuda.cuh>
#endif

#include <span>
#include <vector>

namespace config {

using rwkv::Index;

template <class T, class B, int Threads = 1>
struct Config {
  using scalar = T;
  using Backend = B;
  static B backend() {
    if constexpr (requires(B b) { b.threads(); }) return B(Threads);
    else return B();
  }
};

// RWKV_TEST_ALL is defined in the program for everything, see CMakeLists.txt. Sanitizers check memory, so they need but one.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RWKV_CPU_CONFIGS config::Config<float, rwkv::Cpu, 3>
#endif
#endif
#ifndef RWKV_CPU_CONFIGS
#ifdef RWKV_TEST_ALL
#define RWKV_CPU_CONFIGS \
  config::Config<float, rwkv::Cpu>, config::Config<float, rwkv::Cpu, 3>, config::Config<double, rwkv::Cpu, 2>
#else
#define RWKV_CPU_CONFIGS config::Config<float, rwkv::Cpu>, config::Config<float, rwkv::Cpu, 3>
#endif
#endif
#ifdef RWKV_TEST_CUDA
#define RWKV_TEST_CONFIGS config::Config<float, rwkv::Cuda>
#define RWKV_OPTIMISED_CONFIGS RWKV_TEST_CONFIGS
#else
#define RWKV_TEST_CONFIGS config::Config<double, rwkv::Reference>, RWKV_CPU_CONFIGS
#define RWKV_OPTIMISED_CONFIGS RWKV_CPU_CONFIGS  // what is compared with the reference
#endif

/// Copies numbers from a backend's memory to the host.
template <class B, class T>
std::vector<std::remove_const_t<T>> read(B be, std::span<T> numbers) {
  const rwkv::OnHost read(be, numbers);
  return {read.begin(), read.end()};
}

/// A buffer of numbers, and views of it.
template <class T>
struct Buffer {
  std::vector<T> numbers;

  explicit Buffer(Index count, T value = T(0)) : numbers(static_cast<std::size_t>(count), value) {}
  explicit Buffer(const std::vector<double>& from) {
    for (const double x : from) numbers.push_back(rwkv::narrow<T>(x));
  }
  T& operator[](Index i) { return numbers[static_cast<std::size_t>(i)]; }

  rwkv::Vec<T> vec() { return {numbers.data(), std::ssize(numbers)}; }
  rwkv::Mat<T> mat(Index rows, Index cols) { return rwkv::matrix(numbers.data(), rows, cols); }
  rwkv::Seq<T> seq(Index batch, Index time, Index width) { return {numbers.data(), batch, time, width}; }
};

/// Random numbers that are exact in every tested type.
inline std::vector<double> noise(Index count, std::uint64_t seed) {
  std::vector<double> x;
  for (Index i = 0; i < count; ++i) {
    x.push_back(static_cast<double>(
        rwkv::narrow<rwkv::bf16>(rwkv::Philox{.key = seed}.block(static_cast<std::uint64_t>(i)).uniform_double(0) - 0.5)
            .
            operator float()));
  }
  return x;
}

/// Memory for an arena.
class Scratch {
 public:
  explicit Scratch(Index bytes) : memory_(rwkv::Reference{}, bytes) {}
  rwkv::Arena arena() const { return memory_.arena(); }

 private:
  rwkv::Memory<rwkv::Reference> memory_;
};

}  // namespace config
