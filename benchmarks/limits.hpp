#pragma once
/// The limits of this machine, the denominator of every `fraction` that a benchmark prints: rwkv/check/limits.hpp.
#include "rwkv/check/limits.hpp"

namespace bench {

using rwkv::fma_peak;
using rwkv::Index;
using rwkv::read_bandwidth;
using rwkv::detail::limits::Clock;
using rwkv::detail::limits::HugePages;
using rwkv::detail::limits::median;
using rwkv::detail::limits::seconds_since;

namespace detail {
using rwkv::detail::limits::fma_rate;
using rwkv::detail::limits::forget;
}  // namespace detail

}  // namespace bench
