#pragma once
/// Models with quantised weights, to files.
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rwkv/core/progress.hpp"
#include "rwkv/core/quantise.hpp"
#include "rwkv/io/checkpoint.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// What the matrices of a model are quantised to: Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0; without a type they stay as they are. The
/// table of every block says which of its parameters are matrices. Factors of low-rank products and numbers along the
/// channels (mixes, decays, norms) are small, and matter: they always stay.
struct Quantisation {
  std::optional<DType> matrices = DType::q8_0;   ///< of time mixes and channel mixes
  std::optional<DType> embedding = DType::q8_0;  ///< tables of tokens
  std::optional<DType> head = DType::q8_0;       ///< the table of logits

  /// The type for a parameter; none where it stays.
  std::optional<DType> of(const StoredParameter& parameter) const {
    if (parameter.transposed) return std::nullopt;
    switch (parameter.role) {
      case Role::matrix: return matrices;
      case Role::embedding: return embedding;
      case Role::head: return head;
      default: return std::nullopt;
    }
  }
};

/// What became of one tensor.
struct QuantisedTensor {
  std::string name;     ///< official
  DType type;           ///< that it has now
  Index before, after;  ///< bytes in memory, and in the file
  double error;         ///< root of the mean square of the differences, over that of the numbers
};

/// Writes a model as save_checkpoint does, with its matrices quantised, and tells what was quantised. A backend that takes
/// quantised weights (Reference, Cpu) runs them as they are in an AsStored model, mapped where they lie, which load_model()
/// makes; all other models widen them when they load. Quantised weights are not trained.
/// Errors    a type that numbers are not quantised to, rows that are no whole blocks of it
template <class Net>
std::vector<QuantisedTensor> save_quantised(const Net& net, const std::filesystem::path& path,
                                            const Quantisation& quantisation = {},
                                            const std::map<std::string, std::string>& metadata = {},
                                            FileSystem& files = system_files()) {
  std::vector<QuantisedTensor> list;
  const auto type_of = [&](const StoredParameter& parameter, DType in_file) {
    return quantisation.of(parameter).value_or(in_file);
  };
  const auto written = [&](const StoredParameter& parameter, std::span<const std::byte> exact, DType type,
                           std::span<const std::byte> bytes) {
    if (!is_quantised(type)) return;
    const auto count = static_cast<std::size_t>(parameter.shape.count());
    list.push_back({parameter.name, type, std::ssize(exact), std::ssize(bytes),
                    detail::relative_error(type, bytes, parameter.dtype, exact, count)});
  };
  Index total = 0;
  for (const StoredParameter& parameter : net.stored_parameters()) {
    if (quantisation.of(parameter)) total += parameter.bytes();
  }
  detail::Reporting reporting(Phase::quantise, total);
  detail::save_as(net, path, type_of, written, metadata, files);
  return list;
}

}  // namespace RWKV_ABI
}  // namespace rwkv
