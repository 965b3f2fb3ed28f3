#pragma once
/// What a file is that is not what it was taken for.
#include <string_view>

#include "rwkv/config.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// What the content of a file shows it to be, and what to do then: "a gzip archive; unpack it". Empty for contents that
/// no rule knows, such as those of tensor files and vocabularies that the library reads.
std::string_view kind_of_file(std::string_view content);

/// What it says of an index, which a reader of files on disk knows how to follow.
inline constexpr std::string_view index_kind =
    "the index of a model in several shards; open it by its path, or join the shards into one file and use that";

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/system/file_kind.ipp"
#endif
