#pragma once
/// Adapters: small changes of a model's matrices, in files of their own.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The change of one matrix W [out, in]. With A [rank, in] and B [out, rank] it is low rank (Lora): W += scale B A. Without A
/// it is MiSS (Miss), and B is D: W[o, k] += scale D[o, k mod rank].
struct MatrixChange {
  std::string matrix{};    ///< official name, such as blocks.0.att.key.weight
  Index out = 0;           ///< rows of W
  Index in = 0;            ///< columns of W; 0 for MiSS, which does not tell them
  Index rank = 0;          ///< columns of B
  double scale = 1;        ///< of the change, alpha / rank
  std::vector<float> a{};  ///< A, row-major; empty for MiSS
  std::vector<float> b{};  ///< B or D, row-major

  /// Whether it is MiSS.
  bool is_miss() const { return a.empty(); }
};

/// The changes of a model's matrices. Trainer::adapter() makes one, load_adapter() reads one; LoadOptions::adapters and
/// adapted() put them into a model.
struct Adapter {
  std::string name{};                    ///< of its file, for errors
  std::vector<MatrixChange> matrices{};  ///< each matrix once
  std::optional<std::uint64_t> base{};   ///< Context::fingerprint() of the model that it was made for, if that is known
};

/// What the file of an adapter may leave open.
struct AdapterOptions {
  /// The scale is alpha / rank, whatever the file tells. Low-rank .pth files of RWKV-PEFT tell none.
  std::optional<double> alpha{};
  bool other_base = false;  ///< whether it may change another model than the one that it was made for
};

/// An adapter from a file, or from the folder that holds it. What it holds for a matrix, such as blocks.0.att.key, stands
/// behind the name of that, which may have a prefix: low rank as `.lora_A` [rank, in] and `.lora_B` [out, rank] (this library,
/// RWKV-PEFT), or with `.weight` behind these (PEFT; alpha is in adapter_config.json beside the file); MiSS as `.weight.D`
/// [out, rank] (this library, and rwkv_lightning_cuda, whose adapter.json tells the scale), or as `.miss_block`, `.bone_block`,
/// `.miss`, `.disha` or `.bone` [rank, out] of scale 1 (PEFT, RWKV-PEFT).
///
/// Numbers may be of any floating type.
/// Errors    a file without factors or with anything else; factors that do not fit each other, are not finite, or are of a kind
///           that is no sum with the weights (Bat, DoRA, PiSSA with its own weights); no alpha, or one that is not above zero
Adapter load_adapter(const std::filesystem::path& path, const AdapterOptions& options = {},
                     FileSystem& files = system_files());

/// Writes an adapter as .safetensors in F32, in one step, under the first names above; alpha and the fingerprint of its base
/// are in the metadata.
/// Errors    changes of different alphas, or of a scale that is not above zero
void save_adapter(const Adapter& adapter, const std::filesystem::path& path,
                  const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files());

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/checkpoint.hpp"  // whose end has adapter.ipp, which needs both
#endif
