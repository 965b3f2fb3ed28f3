#pragma once
/// The state of a sequence to and from a file.
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/io/tensor_file.hpp"
#include "rwkv/model/state.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Errors: the numbers that a context hands out are not of the type that its model computes in.
void check_whole(const StateLayout& layout, DType type);

/// What a file may hold beside a state. The names of the tensors begin with sampler_prefix, those of the texts with
/// "rwkv.".
inline constexpr std::string_view sampler_prefix = "sampler.";
struct BesideState {
  std::map<std::string, std::string> texts;
  std::vector<TensorView> tensors;
};

void write_state(const std::filesystem::path& path, const StateLayout& layout, std::span<const std::byte> numbers,
                 Index position, std::map<std::string, std::string> metadata, FileSystem& files,
                 const BesideState& beside = {});

/// The state of a sequence, as read from a file.
struct SavedState {
  std::vector<std::byte> numbers;
  Index position = 0;
};
SavedState read_state(const TensorFile& file, const StateLayout& layout);
SavedState read_state(const std::filesystem::path& path, const StateLayout& layout, FileSystem& files);
/// A state of save_state, or one with the matrices of blocks.N.att.time_state and zeros elsewhere.
SavedState read_initial_state(const std::filesystem::path& path, const StateLayout& layout, FileSystem& files);

/// Sets a sequence to a state whose numbers are of the type that `context` hands out.
template <class C>
void restore(C& context, Index sequence, const SavedState& saved) {
  using T = typename decltype(context.state(sequence))::value_type;
  std::vector<T> numbers(saved.numbers.size() / sizeof(T));
  if (!numbers.empty()) std::memcpy(numbers.data(), saved.numbers.data(), saved.numbers.size());
  context.restore(sequence, std::span<const T>(numbers), saved.position);
}

}  // namespace detail

/// Writes the state of one sequence of a Context or AnyContext, and how many tokens it has seen, as .safetensors, in one
/// step: the file is there whole or as it was before. Every tensor of the state has its name of visit_state and the
/// shape [numbers]; the matrices of heads are [head, key, value]. What the state belongs to is in metadata under
/// "rwkv.", where `metadata` must have nothing.
/// Errors: no such sequence; those of save_safetensors; an AnyContext whose model does not compute in float
template <class C>
void save_state(const C& context, Index sequence, const std::filesystem::path& path,
                const std::map<std::string, std::string>& metadata = {}, FileSystem& files = system_files()) {
  const StateLayout layout = context.state_layout();
  const auto numbers = context.state(sequence);
  detail::check_whole(layout, dtype_of<typename decltype(numbers)::value_type>());
  detail::write_state(path, layout, std::as_bytes(std::span(numbers)), context.position(sequence), metadata, files);
}

/// Sets a sequence to a state of save_state or save_conversation: what follows has the same bits as if it had never stopped.
/// It need not be the sequence, batch or backend that it came from. Errors: no such sequence; a file of something else, or of
/// a state of another version, other sizes, another number type or other tensors; no position, or NaN. One sentence says
/// which, and the state is left as it was.
template <class C>
void load_state(C& context, Index sequence, const std::filesystem::path& path, FileSystem& files = system_files()) {
  using T = typename decltype(context.state(sequence))::value_type;
  static_cast<void>(context.position(sequence));  // refuses a sequence that there is not, before the file is read
  const StateLayout layout = context.state_layout();
  detail::check_whole(layout, dtype_of<T>());
  detail::restore(context, sequence, detail::read_state(path, layout, files));
}

/// Sets a sequence to a tuned initial state, of which no token has gone in: from a file of save_state, or from the tensors
/// blocks.N.att.time_state [head, value, key] of RWKV-PEFT and rwkv_lightning_cuda, alone or among those of a model. These hold
/// the matrices of heads; what token shifts saw last is then zero.
/// Errors: those of load_state; RWKV-4, whose state has no matrices; a matrix that is missing, of another shape or not finite.
/// The state is left as it was.
template <class C>
void load_initial_state(C& context, Index sequence, const std::filesystem::path& path,
                        FileSystem& files = system_files()) {
  using T = typename decltype(context.state(sequence))::value_type;
  static_cast<void>(context.position(sequence));
  const StateLayout layout = context.state_layout();
  detail::check_whole(layout, dtype_of<T>());
  detail::restore(context, sequence, detail::read_initial_state(path, layout, files));
}

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/state_file.ipp"
#endif
