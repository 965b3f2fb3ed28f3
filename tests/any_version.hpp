#pragma once
/// What stands for any version, and for any recurrence of channels, in tests that are about something else.
#include <rwkv/block/version.hpp>

namespace config {

using AnyVersion = rwkv::V4;
using ChannelCell = rwkv::WKV4;

}  // namespace config
