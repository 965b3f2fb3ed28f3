#pragma once
/// Patterns that choose tensors by name.
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// Whether the whole name fits the pattern:
///
///     *      any characters but a dot, also none
///     **     any characters, also none
///     ?      one character that is not a dot
///     {a,b}  one of the alternatives, which are patterns themselves
///
/// Anything else stands for itself: "blocks.*.att.{key,value}.weight". Errors: a brace without its partner.
/// Cost      pattern times name, whatever they hold
bool glob_matches(std::string_view pattern, std::string_view name);

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/glob.ipp"
#endif
