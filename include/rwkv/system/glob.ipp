#pragma once
#include <cstddef>
#include <string_view>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/system/byte_reader.hpp"
#include "rwkv/system/glob.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
namespace detail {

/// A glob pattern as a nondeterministic automaton (Thompson 1968). A state is a position in the pattern, and every step
/// that reads no character leads to a later position, so one pass over the states finds all that are reachable.
class Glob {
 public:
  explicit Glob(std::string_view pattern) : pattern_(pattern), next_(pattern.size(), 0) {
    std::vector<std::size_t> open;  // of every group around this position, the last brace or comma
    for (std::size_t at = 0; at < pattern.size(); ++at) {
      const char c = pattern[at];
      if (c == '{') {
        open.push_back(at);
      } else if (c == '}') {
        expects(!open.empty(), "rwkv: the pattern ", in_quotes(pattern), " has a } without its {");
        next_[open.back()] = at;
        open.pop_back();
      } else if (c == ',' && !open.empty()) {
        next_[open.back()] = at;
        open.back() = at;
      }
    }
    expects(open.empty(), "rwkv: the pattern ", in_quotes(pattern), " has a { without its }");
  }

  bool matches(std::string_view name) const {
    std::vector<bool> states(pattern_.size() + 1), after(pattern_.size() + 1);
    states[0] = true;
    follow(states);
    for (const char c : name) {
      after.assign(after.size(), false);
      for (std::size_t at = 0; at < pattern_.size(); ++at) {
        if (states[at]) read(c, at, after);
      }
      follow(after);
      states.swap(after);
    }
    return states[pattern_.size()];
  }

 private:
  bool is_double_star(std::size_t at) const { return pattern_.substr(at, 2) == "**"; }
  bool is_separator(std::size_t at) const { return pattern_[at] == ',' && next_[at] != 0; }

  /// Marks where the automaton may be after it reads c at position `at`.
  void read(char c, std::size_t at, std::vector<bool>& after) const {
    switch (pattern_[at]) {
      case '*':
        if (c != '.' || is_double_star(at)) after[at] = true;
        return;
      case '?':
        if (c != '.') after[at + 1] = true;
        return;
      case '{':
      case '}': return;
      default:
        if (c == pattern_[at] && !is_separator(at)) after[at + 1] = true;
    }
  }

  /// Adds all states that can be reached without reading.
  void follow(std::vector<bool>& states) const {
    for (std::size_t at = 0; at < pattern_.size(); ++at) {
      if (!states[at]) continue;
      if (pattern_[at] == '*') {
        states[at + (is_double_star(at) ? 2 : 1)] = true;
      } else if (pattern_[at] == '{') {
        states[at + 1] = true;
        for (std::size_t comma = next_[at]; pattern_[comma] == ','; comma = next_[comma]) states[comma + 1] = true;
      } else if (is_separator(at)) {
        states[next_[at]] = true;  // an alternative is complete: on to the closing brace
      } else if (pattern_[at] == '}') {
        states[at + 1] = true;
      }
    }
  }

  std::string_view pattern_;
  std::vector<std::size_t> next_;  // from a brace or comma of a group to its next comma or closing brace; else 0
};

}  // namespace detail

RWKV_BODY bool glob_matches(std::string_view pattern, std::string_view name) {
  return detail::Glob(pattern).matches(name);
}

}  // namespace RWKV_ABI
}  // namespace rwkv
