#pragma once
/// The names that other programs have for the tensors of a model. A dialect is a table of rules that turn the names of
/// one program into official ones.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/io/tensor.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// What a program does to a tensor besides giving it another name and turning it.
enum class Change : unsigned char {
  none,
  flattened,  ///< [heads, head size] is one axis
  halved,     ///< divided by two for every `rescale_every_n_layers` layers below, behind which the program halves x
  unused      ///< no model has a place for it
};

/// One rule of a dialect. In names, '#' stands for the number of a layer and '?' for one lower-case letter.
struct Rename {
  std::string_view from;        ///< a whole name, or the beginning of one if it ends in '.'
  std::string_view to;          ///< official; what follows the beginning stays
  bool telling = false;         ///< whether such a name shows the dialect; the others are those of many programs
  bool turned = false;          ///< whether it is a matrix whose axes are the other way round than in official files
  std::string_view parts = {};  ///< if there are any: it has a row for each of these, which stands for '*' in `to`
  Change change = Change::none;
};

/// The names of one program.
struct Dialect {
  std::string_view name;
  std::span<const Rename> rules;
  bool has_config;    ///< whether a config.json beside the file belongs to it, with what norms add to variances
  bool scales_norms;  ///< whether ln_x adds the head size times what the layer norms add: 64e-5 only for 64
  std::string_view architecture = {};  ///< what the metadata of a .gguf call it, if it is the dialect of such files
};

/// The rule that knows a name, and the official name.
struct Renamed {
  const Rename* rule = nullptr;
  std::string name;
};

/// The official name that a dialect has for a name; no rule if it does not know that.
Renamed renamed(const Dialect& dialect, std::string_view name);

/// Whether a name is one that some dialect shows itself by, behind any prefix.
bool is_weight_name(std::string_view name);

/// Whether some dialect is that of .gguf files with this architecture in their metadata.
bool is_known_architecture(std::string_view architecture);

/// The dialect of tensors with these names, and the constant prefix in front of them; null if they show none.
struct FoundDialect {
  const Dialect* dialect = nullptr;
  std::string_view prefix;  ///< a part of one of the names

  bool is_official() const;  ///< whether names need no change
  bool is_foreign() const;   ///< whether they need more than to lose their prefix
};
FoundDialect find_dialect(std::span<const std::string_view> names);

/// The names of all tensors, readable or not.
std::vector<std::string_view> names_of(std::span<const TensorView> tensors,
                                       std::span<const UnreadableTensor> unreadable);

}  // namespace detail

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/dialects.ipp"
#endif
