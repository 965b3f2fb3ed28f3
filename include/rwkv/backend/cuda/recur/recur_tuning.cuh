#pragma once
/// How recurrences are cut into threads and tiles. Sizes alone decide, never the device.
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Threads of a block that runs lanes token after token.
inline constexpr int serial_threads = 128;
/// Tokens that a serial lane loads ahead.
inline constexpr int serial_tokens_ahead = 8;
/// Tokens of a head that are staged in shared memory at a time.
inline constexpr int head_tokens = 2;
/// The bytes of state of a head's lane up to which they stay in registers.
inline constexpr Index head_state_bytes = 512;

/// A tile of the chained scan: each of `warps` holds a run of `tokens` of them in registers, each of its lanes `lanes`
/// neighbouring channels.
template <int Warps, int Tokens, int Lanes>
struct TileShape {
  static constexpr int warps = Warps, tokens = Tokens, lanes = Lanes;
  static constexpr int threads = 32 * Warps, length = Warps * Tokens, channels = 32 * Lanes;
};

/// Neighbouring channels of a lane where memory is aligned for it: 8 bytes of numbers.
template <class T>
inline constexpr int most_lanes = sizeof(T) == 4 ? 2 : 1;

/// The longest run that leaves a thread enough registers when it holds `words` of them for each token.
constexpr int tokens_of_run(int words) { return words <= 4 ? 8 : words <= 8 ? 4 : 2; }

/// As many warps as keep `words` of each of their lanes in shared memory, at most `most`.
constexpr int warps_of_tile(int most, int words) {
  constexpr int words_of_block = 10 * 1024;
  int warps = most;
  while (warps > 1 && warps * 32 * words > words_of_block) warps /= 2;
  return warps;
}

/// Whether Auto runs token after token: time is short, or the lanes alone fill a GPU (half as many threads, each with
/// two channels, are 512 for each of 132 multiprocessors).
constexpr bool serial_is_faster(Index lanes, Index time) { return time < 64 || lanes >= 2 * 132 * 512; }

/// The chunk from which on a Scan takes the long tile, and the chunk that Auto scans with: twice the tokens for each
/// hop of the carry, where the hops would take longer than the memory.
inline constexpr Index long_chunk = 256;
constexpr Index auto_chunk(Index time) { return time >= 8192 ? long_chunk : 64; }

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
