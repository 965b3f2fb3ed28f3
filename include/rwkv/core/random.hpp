#pragma once
/// A counter-based random generator: the n-th block of numbers is a pure function of the key and n, so every thread and
/// every backend can compute its own part of one sequence.
#include <cstdint>
#include <string_view>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The seed of all random numbers of one operation.
struct Seed {
  std::uint64_t value = 0;  ///< any number
};

/// The stream for a name, so that the random numbers of a tensor depend on its name and not on other tensors: the
/// 64-bit FNV-1a hash of Fowler, Noll and Vo.
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
struct Philox {
  /// The four words of one block.
  struct Block {
    std::uint32_t words[4];  ///< random bits

    /// Uniform in [0, 1) with 24 random bits; i is 0 to 3.
    RWKV_HD constexpr float uniform_float(int i) const { return static_cast<float>(words[i] >> 8) * 0x1p-24f; }
    /// Uniform in [0, 1) with 53 random bits; i is 0 or 1.
    RWKV_HD constexpr double uniform_double(int i) const {
      const std::uint64_t bits = (std::uint64_t{words[2 * i + 1]} << 32) | words[2 * i];
      return static_cast<double>(bits >> 11) * 0x1p-53;
    }
  };

  std::uint64_t key = 0;     ///< the seed
  std::uint64_t stream = 0;  ///< the upper half of the counter: independent sequences under one key

  /// Block n of the sequence.
  RWKV_HD constexpr Block block(std::uint64_t n) const {
    std::uint32_t x0 = low(n), x1 = high(n), x2 = low(stream), x3 = high(stream);
    std::uint32_t k0 = low(key), k1 = high(key);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xd2511f53u} * x0;
      const std::uint64_t p1 = std::uint64_t{0xcd9e8d57u} * x2;
      x0 = high(p1) ^ x1 ^ k0;
      x1 = low(p1);
      x2 = high(p0) ^ x3 ^ k1;
      x3 = low(p0);
      k0 += 0x9e3779b9u;
      k1 += 0xbb67ae85u;
    }
    return {{x0, x1, x2, x3}};
  }

 private:
  RWKV_HD static constexpr std::uint32_t low(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
  RWKV_HD static constexpr std::uint32_t high(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }
};

}  // namespace RWKV_ABI
}  // namespace rwkv
