#pragma once
/// How the blocks of a scan hand the state on from tile to tile, through global memory.
///
/// 1. A block takes a ticket from an atomic counter; the ticket says which tile it computes.
/// 2. It waits for the state that the tile in front publishes.
/// 3. It publishes the state behind its tile.
#include <cstddef>

#include "rwkv/backend/cuda/runtime/device.cuh"
#include "rwkv/backend/cuda/runtime/intrinsics.cuh"
#include "rwkv/backend/cuda/runtime/several.cuh"
#include "rwkv/core/arena.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// How many 32-bit words a value has.
template <class V>
inline constexpr int words_of = static_cast<int>(sizeof(V) / 4);

/// A value of each lane of a warp in shared memory: word 0 of all lanes, then word 1, so that lanes use different
/// banks.
template <class V>
__device__ void park(detail::SharedElement<unsigned>* at, int lane, const V& value) {
  struct Words {
    unsigned v[words_of<V>];
  };
  const auto words = detail::bits_as<Words>(value);
  RWKV_UNROLL for (int i = 0; i < words_of<V>; ++i) at[i * 32 + lane] = words.v[i];
}
template <class V>
__device__ V parked(const detail::SharedElement<unsigned>* at, int lane) {
  struct Words {
    unsigned v[words_of<V>];
  };
  Words words;
  RWKV_UNROLL for (int i = 0; i < words_of<V>; ++i) words.v[i] = at[i * 32 + lane];
  return detail::bits_as<V>(words);
}

/// Hands the state of each channel on from tile to tile, through memory that `clear` sets to zero before the launch.
///
/// Blocks number themselves with an atomic counter, not with blockIdx: a block only waits for blocks that are already
/// scheduled, so there is no deadlock.
///
/// A state of up to 12 bytes is written as one 16-byte word together with a mark that says it is there. A larger state
/// is written first and its mark after a fence.
template <class T, int States>
struct TileChain {
  static constexpr bool in_words = sizeof(T) == 4 && States <= 3;

  unsigned* tickets;       ///< the next ticket
  detail::Word128* words;  ///< in_words: states [slot, channel]; else marks [slot, column of tiles]
  T* numbers;              ///< not in_words: states [slot, component, channel]
  Index width, columns;

  static Index word_count(Index slots, Index width) { return slots * (in_words ? width : (width + 31) / 32); }

  /// Takes the memory from an arena. `columns`: columns of tiles, across the width.
  static TileChain take(Arena& scratch, Index slots, Index width, Index columns) {
    TileChain chain{};
    auto* begin = scratch.take<detail::Word128>(1 + word_count(slots, width));
    chain.tickets = reinterpret_cast<unsigned*>(begin);
    chain.words = begin == nullptr ? nullptr : begin + 1;
    chain.numbers = scratch.take<T>(in_words ? 0 : slots * States * width);
    chain.width = width;
    chain.columns = columns;
    return chain;
  }
  void clear(const CudaStream& stream, Index slots) const {
    const CurrentDevice current(stream.device());
    const Index bytes = (1 + word_count(slots, width)) * static_cast<Index>(sizeof(detail::Word128));
    RWKV_CUDA_TRY(cudaMemsetAsync(tickets, 0, static_cast<std::size_t>(bytes), stream.handle()));
  }

  /// Publishes the state behind a tile. A lane that is not active has no channels.
  template <int N>
  __device__ void publish_warp(Index slot, Index column, Index channel, bool active,
                               const Several<T, N> (&state)[States]) const {
    if constexpr (in_words) {
      if (!active) return;
      RWKV_UNROLL for (int i = 0; i < N; ++i) {
        unsigned bits[3] = {};
        RWKV_UNROLL for (int n = 0; n < States; ++n) bits[n] = detail::bits_as<unsigned>(state[n].v[i]);
        detail::store_relaxed(words + slot * width + channel + i, {bits[0], bits[1], bits[2], 1});
      }
    } else {
      if (active) {
        RWKV_UNROLL for (int n = 0; n < States; ++n) state[n].store(numbers + (slot * States + n) * width + channel);
      }
      __threadfence();
      __syncwarp();
      if (threadIdx.x % 32 == 0) detail::store_relaxed(words + slot * columns + column, {0, 0, 0, 1});
    }
  }
  /// Waits for the state that the tile of a slot publishes, and loads it.
  template <int N>
  __device__ void wait_warp(Index slot, Index column, Index channel, bool active,
                            Several<T, N> (&state)[States]) const {
    if constexpr (in_words) {
      if (!active) return;
      RWKV_UNROLL for (int i = 0; i < N; ++i) {
        detail::Word128 word;
        do word = detail::load_relaxed(words + slot * width + channel + i);
        while (word.w == 0);
        const unsigned bits[3] = {word.x, word.y, word.z};
        RWKV_UNROLL for (int n = 0; n < States; ++n) state[n].v[i] = detail::bits_as<T>(bits[n]);
      }
    } else {
      while (detail::load_relaxed(words + slot * columns + column).w == 0) {
      }
      __threadfence();
      if (!active) return;
      RWKV_UNROLL for (int n = 0; n < States; ++n) {
        state[n] = Several<T, N>::load(numbers + (slot * States + n) * width + channel);
      }
    }
  }
};

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
