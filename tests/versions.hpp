#pragma once
/// The versions that tests sweep, and the goldens of each.
#include <rwkv/block/version.hpp>
#include <rwkv/core/fields.hpp>
#include <rwkv/fwd.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "any_version.hpp"
#include "numbers.hpp"

namespace config {

/// What the goldens of a version are called, and how many files there are: models, among them one with random weights;
/// trajectories of its training; time mixes and channel mixes.
template <class V>
struct Goldens;
template <>
struct Goldens<rwkv::V4> {
  static constexpr const char *models = "rwkv4", *model = "rwkv4-rand-l2-d32-f32", *training = "rwkv4",
                              *time_mix = "timemix_v4_", *channel_mix = "channelmix_v4v5_";
  static constexpr std::size_t model_files = 6, time_mixes = 3;
};
template <>
struct Goldens<rwkv::V5> {
  static constexpr const char *models = "rwkv5.2", *model = "rwkv5.2-rand-l2-d32-h4-f32", *training = "rwkv5.2",
                              *time_mix = "timemix_v5.2_", *channel_mix = "channelmix_v4v5_";
  static constexpr std::size_t model_files = 4, time_mixes = 3;
};
template <>
struct Goldens<rwkv::V5_0> {
  static constexpr const char *models = "rwkv5.0", *time_mix = "timemix_v5.0_";
  static constexpr std::size_t model_files = 2, time_mixes = 1;
};
template <>
struct Goldens<rwkv::V5_1> {
  static constexpr const char *models = "rwkv5.1", *time_mix = "timemix_v5.1_";
  static constexpr std::size_t model_files = 2, time_mixes = 1;
};
template <>
struct Goldens<rwkv::V6> {
  static constexpr const char *models = "rwkv6", *model = "rwkv6-rand-l2-d32-h4-bf16", *training = "rwkv6",
                              *time_mix = "timemix_v6_", *channel_mix = "channelmix_v6_";
  static constexpr std::size_t model_files = 2, time_mixes = 3;
};
template <>
struct Goldens<rwkv::V7> {
  static constexpr const char *models = "rwkv7", *model = "rwkv7-rand-l2-d32-h4-f32", *training = "rwkv7",
                              *time_mix = "timemix_v7_", *channel_mix = "channelmix_v7_";
  static constexpr std::size_t model_files = 4, time_mixes = 4;
};

/// Calls f.template operator()<V>() for every version; in the brief suite for the first and the last.
template <class F>
constexpr void each_version(const F& f) {
  f.template operator()<rwkv::V4>();
#if defined(RWKV_TEST_ALL) || defined(RWKV_TEST_CUDA)
  f.template operator()<rwkv::V5>();
  f.template operator()<rwkv::V6>();
#endif
  f.template operator()<rwkv::V7>();
}

/// The same in a test case for the configuration C. The program for everything leaves out what the brief suite has: the
/// first and the last version in float, and on the reference.
template <class C, class F>
constexpr void each_version_in(const F& f) {
#ifdef RWKV_TEST_ALL
  constexpr bool new_here =
      std::is_same_v<typename C::scalar, double> && std::is_same_v<typename C::Backend, rwkv::Cpu>;
  if constexpr (new_here) f.template operator()<rwkv::V4>();
  f.template operator()<rwkv::V5>();
  f.template operator()<rwkv::V6>();
  if constexpr (new_here) f.template operator()<rwkv::V7>();
#else
  each_version(f);
#endif
}

/// The blocks of a version as templates of the scalar alone.
template <class V, class B>
struct BlocksOf {
  template <class S>
  using Time = rwkv::TimeMix<V, S, B>;
  template <class S>
  using Channel = rwkv::ChannelMix<V, S, B>;
  template <class S>
  using Layer = rwkv::Layer<Time<S>, Channel<S>>;
};

/// Layers of which some are of RWKV-7. The first of those, whose value the later ones read, is not the first layer.
template <class B>
struct HybridsOf {
  template <class S>
  using Lower = rwkv::Layer<rwkv::TimeMix<rwkv::V6, S, B>, rwkv::ChannelMix<AnyVersion, S, B>>;
  template <class S>
  using Upper = typename BlocksOf<rwkv::V7, B>::template Layer<S>;
  template <class S>
  using Chain = rwkv::Chain<Lower<S>, Upper<S>, Upper<S>>;
  template <class S>
  using Stack = rwkv::Stack<rwkv::Chain<Lower<S>, Lower<S>, Upper<S>>>;  ///< of a depth of 6, 9, ...
};

/// Low ranks that differ, so that none is taken for another.
inline constexpr rwkv::Ranks small_ranks{.mix = 2, .w = 3, .a = 4, .v = 5, .g = 6, .s = 7};

/// The numbers of a parameter in the order of files.
template <class T>
std::vector<T> as_in_files(const rwkv::TensorSpec& spec, std::vector<T> numbers) {
  if (!spec.transposed) return numbers;
  const auto size = [&](std::size_t from_end) { return spec.shape.sizes[spec.shape.rank - from_end]; };
  return golden::transposed(numbers, size(2), size(1));
}

/// The matrix states of heads in the order of the official ones, and the other way round: [value, key] in RWKV-7, where
/// WKVState has [key, value] for every version.
template <class V, class T>
std::vector<T> official_state(std::vector<T> numbers, rwkv::Index head_size) {
  if constexpr (std::is_base_of_v<rwkv::V7, V>) return golden::transposed(numbers, head_size, head_size);
  else return numbers;
}

}  // namespace config
