#pragma once
/// What the names and shapes of a checkpoint's tensors say about the model.
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/core/dims.hpp"
#include "rwkv/io/tensor_file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The version that the tensor names of an official checkpoint imply, such as "RWKV-4"; empty when they imply none.
std::string_view version_named_by(const TensorFile& file);

/// The sizes of the model in a checkpoint with official names, from the shapes of its tensors, unreadable ones
/// included. Errors: no emb.weight of rank 2, no blocks, a block number that the file cannot hold that many blocks for,
/// or a size that is not between 1 and 2^20.
ModelSizes sizes_of_model(const TensorFile& file);

namespace detail {

/// The shape of a tensor, readable or not; null when there is no such tensor or no shape.
const std::vector<Index>* shape_of(const TensorFile& file, std::string_view name);

/// What the names of a file without official names, or without all of them, show it to be, and what to do then. Empty
/// when they show nothing.
std::string kind_by_names(const TensorFile& file);

/// Why a tensor is missing, as far as the file tells: "missing from the file, ...".
std::string why_missing(const TensorFile& file, std::string_view name);

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/names.ipp"
#endif
