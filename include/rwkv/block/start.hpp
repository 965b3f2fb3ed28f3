#pragma once
/// How the vectors of the official blocks start, as functions of channel i of C in layer l of L (BlinkDL/RWKV-LM).
#include <cmath>

#include "rwkv/core/fields.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace start {

/// The mixes of RWKV-4 and 5: (i/C)^(scale rho0) + lift rho1.
constexpr auto mix(double scale = 1, double lift = 0) {
  return channels(
      [](const ChannelPlace& p, double a, double b) { return std::pow(p.part(), a * p.rho0()) + b * p.rho1(); }, scale,
      lift);
}
/// The same for a mix that weighs the previous token (RWKV-6 and 7): 1 - (i/C)^(scale rho0) - lift rho1.
constexpr auto maa(double scale = 1, double lift = 0) {
  return channels(
      [](const ChannelPlace& p, double a, double b) { return 1 - std::pow(p.part(), a * p.rho0()) - b * p.rho1(); },
      scale, lift);
}
/// The decay, before -exp(): base + range (i/(C-1))^(0.7 + 1.3 rho1); -5 and 8 in RWKV-4, -6 and 5 in RWKV-5 and 6.
constexpr auto decay(double base, double range) {
  return channels([](const ChannelPlace& p, double a,
                     double b) { return a + b * std::pow(p.part_to_last(), 0.7 + 1.3 * p.rho1()); },
                  base, range);
}
/// ((i + 1) mod 3 - 1), which keeps neighbouring channels apart.
constexpr double zigzag(const ChannelPlace& p) { return static_cast<double>((p.channel + 1) % 3 - 1); }
/// The bonus of RWKV-4: ln 0.3 + 0.5 zigzag.
constexpr auto bonus_v4() {
  return channels([](const ChannelPlace& p, double, double) { return std::log(0.3) + 0.5 * zigzag(p); });
}
/// The bonus of RWKV-5.2 and 6: rho1 (1 - i/(C-1)) + 0.1 zigzag.
constexpr auto bonus_v5() {
  return channels(
      [](const ChannelPlace& p, double, double) { return p.rho1() * (1 - p.part_to_last()) + 0.1 * zigzag(p); });
}
/// The bonus of RWKV-5.1, a number for each of H heads: rho1 (1 - h/(H-1)).
constexpr auto bonus_of_heads() {
  return channels([](const ChannelPlace& p, double, double) { return p.rho1() * (1 - p.part_to_last()); });
}
/// The mix of the channel mix of RWKV-7: 1 - (i/C)^(rho0^4).
constexpr auto channel_mix_v7() {
  return channels([](const ChannelPlace& p, double, double) { return 1 - std::pow(p.part(), std::pow(p.rho0(), 4)); });
}
/// The place of a channel among all, from -1/2 to 1/2.
constexpr double centred(const ChannelPlace& p) { return p.part_to_last() - 0.5; }
/// The place of a channel in its head, as s |s| with s from -1 to 1; 0 without heads.
constexpr double in_head(const ChannelPlace& p) {
  if (p.head_size <= 1) return 0;
  const double half = static_cast<double>(p.head_size - 1) / 2;
  const double s = (static_cast<double>(p.channel % p.head_size) - half) / half;
  return s < 0 ? -s * s : s * s;
}
/// w0 of RWKV-7: -6 + 6 (i/(C-1))^(1 + rho1^0.3) + 0.5 + 2.5 s |s|.
constexpr auto decay_v7() {
  return channels([](const ChannelPlace& p, double, double) {
    return -5.5 + 6 * std::pow(p.part_to_last(), 1 + std::pow(p.rho1(), 0.3)) + 2.5 * in_head(p);
  });
}
/// v0, k_k and k_a of RWKV-7: base + slope (i/(C-1) - 1/2).
constexpr auto line_v7(double base, double slope) {
  return channels([](const ChannelPlace& p, double a, double b) { return a + b * centred(p); }, base, slope);
}
/// a0 of RWKV-7, in front of the in-context learning rate: -0.19 + 0.4 (i/(C-1) - 1/2) + 0.3 s |s|.
constexpr auto in_context_rate_v7() {
  return channels([](const ChannelPlace& p, double, double) { return -0.19 + 0.3 * in_head(p) + 0.4 * centred(p); });
}
/// The scale of the norm behind a head: ((1 + l) / L)^0.7.
constexpr auto head_norm() {
  return channels([](const ChannelPlace& p, double, double) {
    return std::pow(static_cast<double>(1 + p.layer) / static_cast<double>(p.depth), 0.7);
  });
}

}  // namespace start
}  // namespace RWKV_ABI
}  // namespace rwkv
