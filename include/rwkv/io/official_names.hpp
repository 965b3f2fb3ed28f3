#pragma once
/// The tensors of a checkpoint under their official names, whatever program wrote it. Everything behind this header,
/// sizes, checks and binding, knows official names alone.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/extent.hpp"
#include "rwkv/io/dialects.hpp"
#include "rwkv/io/tensor_file.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// One tensor of a file under its official name.
struct OfficialTensor {
  std::string name;                         ///< official; the name in the file where no rule knows that
  std::string_view in_file;                 ///< what the file calls it
  DType dtype = DType::f32;                 ///< of its numbers
  std::optional<std::vector<Index>> shape;  ///< as in an official file, but for axes of size one; if the file tells it
  std::span<const std::byte> bytes;         ///< its numbers, in the order of the file
  bool turned = false;                      ///< whether its last two axes are the other way round in the bytes
  double scale = 1;                         ///< what an official file has, divided by the numbers in the bytes
  const UnreadableTensor* unreadable = nullptr;  ///< set where its numbers cannot be read

  /// Its shape as the file has it. There must be one.
  std::vector<Index> shape_in_file() const;

  /// For errors: the official name, and that in the file where it differs.
  std::string label() const;
};

namespace detail {
/// The N of a name `blocks.N.…`.
std::optional<Index> block_number(std::string_view name);

/// A number that the metadata of a .gguf have under `architecture` and a key, such as "rwkv7" and "block_count"; none
/// where they have none. Errors: a text that is no number
std::optional<double> gguf_number(const TensorFile& file, std::string_view architecture, std::string_view key);
}  // namespace detail

/// A view of a file under official names, which must outlive it. Errors: two tensors of one official name.
class OfficialNames {
 public:
  OfficialNames(const TensorFile& file);  ///< not explicit: what takes official names takes files

  /// The file.
  const TensorFile& file() const { return *file_; }

  /// In the order of the file, the unreadable ones last.
  std::span<const OfficialTensor> tensors() const { return tensors_; }

  /// The tensor of that official name, readable or not; null if there is none.
  const OfficialTensor* find(std::string_view name) const;

  /// The shape of a tensor, readable or not; null when there is no such tensor or no shape.
  const std::vector<Index>* shape_of(std::string_view name) const;

  /// The official name of a tensor that the file calls so; the same where no rule knows the name.
  std::string official(std::string_view name_in_file) const;

  /// Whose names the file has.
  const detail::FoundDialect& dialect() const { return dialect_; }

  /// What was done to the names, one sentence each; nothing for a file with official names.
  std::vector<std::string> notes() const;

 private:
  detail::Renamed renamed(std::string_view name_in_file) const;
  void add(const TensorView* tensor, const UnreadableTensor* unreadable);
  void undo(detail::Change change, OfficialTensor& tensor) const;
  void take_aliases();

  const TensorFile* file_;
  detail::FoundDialect dialect_;
  double head_size_ = 0, halving_ = 0;  // by the metadata of a .gguf: of its heads; layers between halvings
  std::vector<OfficialTensor> tensors_;
  std::vector<std::uint32_t> by_name_;
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/official_names.ipp"
#endif
