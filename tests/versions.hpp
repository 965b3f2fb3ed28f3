#pragma once
/// The versions that tests sweep, and the goldens of each.
#include <rwkv/block/version.hpp>

#include <string>

namespace config {

/// What the goldens of a version are called: a model with random weights, and trajectories of its training.
template <class V>
struct Goldens;
template <>
struct Goldens<rwkv::V4> {
  static constexpr const char *model = "rwkv4-rand-l2-d32-f32", *training = "rwkv4", *time_mix = "timemix_v4_";
};
template <>
struct Goldens<rwkv::V5> {
  static constexpr const char *model = "rwkv5.2-rand-l2-d32-h4-f32", *training = "rwkv5.2", *time_mix = "timemix_v5.2_";
};

/// Calls f.template operator()<V>() for every version.
template <class F>
void each_version(const F& f) {
  f.template operator()<rwkv::V4>();
  f.template operator()<rwkv::V5>();
}

}  // namespace config
