#pragma once
/// A conversation to and from a file: the state of its sequence, its sampler, and the token that comes next.
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/dtype.hpp"
#include "rwkv/core/token.hpp"
#include "rwkv/io/state_file.hpp"
#include "rwkv/model/state.hpp"
#include "rwkv/system/file_system.hpp"
#include "rwkv/system/system_files.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A sampler that tells all it is in numbers by name, and is made of them again, such as Sampler.
template <class S>
concept SavableSampler = requires(const S& sampler, const std::map<std::string, std::vector<double>>& numbers,
                                  Index vocab, std::string_view from) {
  { sampler.numbers() } -> std::convertible_to<std::map<std::string, std::vector<double>>>;
  { S::restored(numbers, vocab, from) } -> std::same_as<S>;
};

namespace detail {

/// A conversation beside the numbers of its state.
struct ConversationParts {
  std::map<std::string, std::vector<double>> sampler;
  std::optional<Token> pending;
};
struct SavedConversation : ConversationParts {
  SavedState state;
  std::string name;  // of the file, for errors
};

void write_conversation(const std::filesystem::path& path, const StateLayout& layout, std::uint64_t fingerprint,
                        std::span<const std::byte> numbers, Index position, const ConversationParts& parts,
                        const std::map<std::string, std::string>& metadata, FileSystem& files);
SavedConversation read_conversation(const std::filesystem::path& path, const StateLayout& layout,
                                    std::uint64_t fingerprint, FileSystem& files);

}  // namespace detail

/// Writes a conversation whole: the state of a sequence as save_state does, the sampler with its memory and its place in
/// the random numbers, the fingerprint of the model, and `pending`: a token that was picked and is not yet run. (The
/// logits are not saved: save between the pick and the step, or after a reply, where the next turn follows.)
/// Errors: those of save_state; a pending token outside the vocabulary
template <class C, SavableSampler S>
void save_conversation(const C& context, Index sequence, const S& sampler, std::optional<Token> pending,
                       const std::filesystem::path& path, const std::map<std::string, std::string>& metadata = {},
                       FileSystem& files = system_files()) {
  const StateLayout layout = context.state_layout();
  const auto numbers = context.state(sequence);
  detail::check_whole(layout, dtype_of<typename decltype(numbers)::value_type>());
  detail::write_conversation(path, layout, context.fingerprint(), std::as_bytes(std::span(numbers)),
                             context.position(sequence), {sampler.numbers(), pending}, metadata, files);
}

/// Sets a sequence and a sampler to a conversation of save_conversation, and returns its pending token. What follows has
/// the same bits as if it had never stopped.
/// Errors: those of load_state; other weights than those of the model that wrote it; a sampler that does not fit. One
/// sentence says which, and context and sampler are left as they were.
template <class C, SavableSampler S>
std::optional<Token> load_conversation(C& context, Index sequence, S& sampler, const std::filesystem::path& path,
                                       FileSystem& files = system_files()) {
  using T = typename decltype(context.state(sequence))::value_type;
  static_cast<void>(context.position(sequence));  // refuses a sequence that there is not, before the file is read
  const StateLayout layout = context.state_layout();
  detail::check_whole(layout, dtype_of<T>());
  const detail::SavedConversation saved = detail::read_conversation(path, layout, context.fingerprint(), files);
  S restored = S::restored(saved.sampler, layout.sizes.vocab, saved.name);
  detail::restore(context, sequence, saved.state);
  sampler = std::move(restored);
  return saved.pending;
}

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/io/conversation.ipp"
#endif
