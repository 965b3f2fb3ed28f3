#pragma once
/// The limits of this machine, the denominator of every `fraction` that a benchmark prints: rwkv/check/limits.hpp.
#include "rwkv/check/limits.hpp"

namespace bench {

using rwkv::fma_peak;
using rwkv::Index;
using rwkv::read_bandwidth;
using rwkv::limits::Clock;
using rwkv::limits::HugePages;
using rwkv::limits::median;
using rwkv::limits::seconds_since;

namespace detail {
using rwkv::limits::fma_rate;
using rwkv::limits::forget;
}  // namespace detail

}  // namespace bench
