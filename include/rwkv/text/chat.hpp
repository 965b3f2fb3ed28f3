#pragma once
/// How models were taught to write conversations.
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/config.hpp"
#include "rwkv/core/error.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// The text around what is said in a conversation, as data: a role before each turn, a separator after it. A
/// conversation is
///
///     begin(system), ask(first)          reply, up to a stop string
///     separator, ask(second)             reply
///
/// and so on: after a reply of generate() with `stops`, the model has seen the reply and nothing of the stop string.
struct Chat {
  std::string system = "System:";        ///< in front of what is said to the model about the conversation
  std::string user = "User:";            ///< in front of what the user says
  std::string assistant = "Assistant:";  ///< in front of what the model says
  std::string separator = "\n\n";        ///< between two turns
  std::string opening;                   ///< what the reply begins with, put into the model's mouth
  std::vector<std::string> stops;        ///< for generate()

  /// What comes before the first turn: what the system says; nothing where it says nothing.
  std::string begin(std::string_view said) const;

  /// The turn of the user, and the beginning of the reply, without a blank at its end.
  std::string ask(std::string_view said) const;

  /// What is said as the models know it: LF line ends, no empty lines, no white space at either end.
  static std::string cleaned(std::string_view said);

  /// The conversations of a family of models:
  ///   world            RWKV-4 to RWKV-7 World; a reply has no empty line
  ///   g1               RWKV-7 G1, which answers at once
  ///   g1-think         RWKV-7 G1, which thinks first: the reply begins inside its thoughts, behind "<think"
  ///   g1-fake-think    RWKV-7 G1 with thoughts left empty for it: the reply begins behind "</think"
  /// Errors    there is none of that name
  static Chat named(std::string_view name);
};

}  // namespace RWKV_ABI
}  // namespace rwkv

#ifndef RWKV_COMPILED
#include "rwkv/text/chat.ipp"
#endif
