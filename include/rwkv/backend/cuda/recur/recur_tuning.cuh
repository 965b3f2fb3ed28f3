#pragma once
/// How recurrences are cut into threads and tiles. Sizes alone decide, never the device.
#include "rwkv/core/extent.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {
namespace gpu {

/// Threads of a block of the serial kernels.
inline constexpr int serial_threads = 128;
/// Tokens that a thread of serial_kernel loads ahead.
inline constexpr int serial_tokens_ahead = 8;
/// Tokens that head_kernel stages in shared memory at a time.
inline constexpr int head_tokens = 2;
/// The most bytes of a lane's state that head_kernel holds in registers.
inline constexpr Index head_state_bytes = 512;

/// A tile of the chained scan: `warps` runs of `tokens` tokens, by 32 threads with `lanes` neighbouring channels
/// each. A warp holds a run in registers.
template <int Warps, int Tokens, int Lanes>
struct TileShape {
  static constexpr int warps = Warps, tokens = Tokens, lanes = Lanes;
  static constexpr int threads = 32 * Warps, length = Warps * Tokens, channels = 32 * Lanes;
};

/// Neighbouring channels of a thread where memory is aligned for them: 8 bytes.
template <class T>
inline constexpr int most_lanes = sizeof(T) == 4 ? 2 : 1;

/// The length of a run for which a thread has enough registers, when it holds `words` of them for each token.
constexpr int tokens_of_run(int words) { return words <= 4 ? 8 : words <= 8 ? 4 : 2; }

/// The warps of a tile: as many, up to `most`, as shared memory has room for with `words` for each of their threads.
constexpr int warps_of_tile(int most, int words) {
  constexpr int words_of_block = 10 * 1024;
  int warps = most;
  while (warps > 1 && warps * 32 * words > words_of_block) warps /= 2;
  return warps;
}

/// Whether Auto runs token after token: time is short, or the lanes alone occupy a GPU (with two channels a thread, 512
/// threads on each of 132 multiprocessors).
constexpr bool serial_is_faster(Index lanes, Index time) { return time < 64 || lanes >= 2 * 132 * 512; }

/// Chunks of at least long_chunk take tiles of twice the tokens. Auto does so for long sequences, where handing the
/// state from tile to tile would take longer than the memory traffic.
inline constexpr Index long_chunk = 256;
constexpr Index auto_chunk(Index time) { return time >= 8192 ? long_chunk : 64; }

}  // namespace gpu
}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
