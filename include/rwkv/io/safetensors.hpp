#pragma once
/// Reading and writing of .safetensors: 8 bytes of header length, a JSON header, raw little-endian tensors.
///
/// The reader is stricter than the format asks for where leniency would let two readers see two different files.
///
/// The format has no quantised numbers. A quantised matrix [rows, cols] is stored as U8 [rows, bytes of a row], its blocks as
/// they lie in memory, and the metadata entry `rwkv.quantised.1.<name>` has its type, such as "Q8_0".
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// In front of the name of a quantised tensor, with the version of the layout.
inline constexpr std::string_view quantised_prefix = "rwkv.quantised.1.";

/// The tensors and texts of a .safetensors; `file` starts every error.
TensorTable read_safetensors(std::span<const std::byte> bytes, std::string_view file);

}  // namespace detail

/// Writes tensors as one .safetensors file, in one step (see write_atomically). The same tensors give the same bytes. The data
/// starts at a multiple of 64 bytes, and tensors with larger elements come first, otherwise in the given order, so that every
/// tensor is aligned for its number type. Quantised tensors have two axes. Throws an Error naming file and tensor when names
/// repeat or are not clean UTF-8, or when bytes and shape disagree; nothing is written then.
void save_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                      const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files());

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/safetensors.ipp"
#endif
