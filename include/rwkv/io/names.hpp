#pragma once
/// What the names and shapes of a checkpoint's tensors say about the model.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/block/version.hpp"
#include "rwkv/core/dims.hpp"
#include "rwkv/io/official_names.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The version that the tensor names of a checkpoint imply; null when they imply none.
const OfficialVersion* version_named_by(const OfficialNames& names);

/// The sizes of the model in a checkpoint, from the shapes of its tensors, unreadable ones included, and what its norms
/// add to variances where that is not what official files mean. Errors: no emb.weight of rank 2, no blocks, a block
/// number that the file cannot hold that many blocks for, a size that is not between 1 and 2^20, a config.json that
/// belongs to another model, or metadata of a .gguf that disagree with its tensors.
ModelSizes sizes_of_model(const OfficialNames& names);

namespace detail {

/// The largest size of a model in a file: far above every model, and low enough that no product of sizes overflows,
/// whatever an unreadable tensor claims.
inline constexpr Index largest_size = Index{1} << 20;

/// What the names of a file show it to be that holds no model, or not a whole one, and what to do then. Empty when they
/// show nothing.
std::string kind_by_names(const OfficialNames& names);

/// Why a tensor is missing, as far as the file tells: "missing from the file, ...".
std::string why_missing(const OfficialNames& names, std::string_view name);

/// The keys under which save_checkpoint keeps what norms add to variances, where that is not the version's.
inline constexpr std::string_view norm_epsilon_key = "rwkv.norm_epsilon",
                                  head_norm_epsilon_key = "rwkv.head_norm_epsilon";

/// Those metadata of a model of these sizes, as texts that read back to the same numbers.
void add_epsilons(const ModelSizes& sizes, std::map<std::string, std::string>& metadata);

/// What was done to the file to load it as a model of these sizes, one sentence each.
std::vector<std::string> notes_on(const OfficialNames& names, const ModelSizes& sizes);

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/names.ipp"
#endif
