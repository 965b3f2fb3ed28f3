#pragma once
/// Copies between a backend's memory and the host's. Code above the backends reads and writes device memory through
/// these functions only.
#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/core/view.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Whether the host can read and write a backend's memory directly. A backend with device memory has
/// `allocate_host<T>(count)` and `free_host(block)` for memory that host and device both reach.
template <class B>
inline constexpr bool host_reaches = !requires(std::remove_const_t<B> & be) {
  be.template allocate_host<std::byte>(Index{1});
};

/// Copies numbers from the host to a backend's memory; complete when it returns.
template <class B, class T>
void upload(B& be, std::span<const T> from, T* to) {
  const Index count = std::ssize(from);
  if (count == 0) return;
  be.copy(matrix(from.data(), 1, count), matrix(to, 1, count));
  be.sync();
}

/// A backend's numbers for the host to read: in place where the host can, otherwise a copy.
template <class B, class T>
class OnHost {
 public:
  /// Copies from memory of the device, or only looks at memory that the host reaches.
  OnHost(B& be, std::span<const T> numbers) : numbers_(numbers) {
    be.sync();
    if constexpr (!host_reaches<B>) {
      copy_.resize(numbers.size());
      const Index count = std::ssize(numbers);
      if (count > 0) be.copy(matrix(numbers.data(), 1, count), matrix(copy_.data(), 1, count));
      be.sync();
      numbers_ = copy_;
    }
  }
  OnHost(const OnHost&) = delete;
  OnHost& operator=(const OnHost&) = delete;

  /// The numbers, while this lives.
  std::span<const T> numbers() const { return numbers_; }
  /// The first.
  auto begin() const { return numbers_.begin(); }
  /// Behind the last.
  auto end() const { return numbers_.end(); }

 private:
  std::vector<T> copy_;
  std::span<const T> numbers_;
};
/// The host reads numbers that the backend may write.
template <class B, class T>
OnHost(B&, std::span<T>) -> OnHost<B, std::remove_const_t<T>>;

/// Writes `count` numbers to a backend's memory, number i being value(i) on the host.
template <class B, class T, class Value>
void write_numbers(B& be, std::span<T> to, const Value& value) {
  if constexpr (host_reaches<B>) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = value(i);
  } else {
    std::vector<T> numbers(to.size());
    for (std::size_t i = 0; i < to.size(); ++i) numbers[i] = value(i);
    upload(be, std::span<const T>(numbers), to.data());
  }
}

/// A block of numbers that host and backend both reach, for tokens that go in and losses that come out.
template <class T, class B>
class Exchange {
 public:
  /// Memory for `count` numbers. Errors: out of memory.
  Exchange(const B& be, std::size_t count) : backend_(be), size_(count) {
    if constexpr (host_reaches<B>) own_.resize(count);
    else if (count > 0) block_ = backend_.template allocate_host<T>(static_cast<Index>(count));
    if (block_ != nullptr) std::fill_n(block_, count, T{});
  }
  /// Takes the memory over.
  Exchange(Exchange&& other) noexcept
      : backend_(other.backend_), size_(std::exchange(other.size_, 0)), own_(std::move(other.own_)),
        block_(std::exchange(other.block_, nullptr)) {}
  /// Exchanges the two.
  Exchange& operator=(Exchange&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(size_, other.size_);
    std::swap(own_, other.own_);
    std::swap(block_, other.block_);
    return *this;
  }
  ~Exchange() {
    if constexpr (!host_reaches<B>) {
      if (block_ != nullptr) backend_.free_host(block_);
    }
  }

  /// The numbers, for the host to write and the device to read, or the other way round.
  std::span<T> numbers() {
    if constexpr (host_reaches<B>) return own_;
    else return {block_, size_};
  }

 private:
  B backend_;
  std::size_t size_;
  std::vector<T> own_;
  T* block_ = nullptr;
};

}  // namespace RWKV_ABI
}  // namespace rwkv
