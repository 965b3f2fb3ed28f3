#pragma once
/// A profiling CPU backend: every verb adds its wall time to a table.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "limits.hpp"
#include "rwkv/backend/cpu.hpp"

namespace bench {

namespace detail {

/// The name of a type without its namespaces: Mix<MixCurrent>.
template <class T>
std::string type_name() {
  const std::string_view function = __PRETTY_FUNCTION__;  // ... [with T = name; ...] or ... [T = name]
  const std::size_t begin = function.find("T = ") + 4;
  const std::string_view qualified = function.substr(begin, function.find_first_of(";]", begin) - begin);
  std::string name;
  for (const char letter : qualified) {
    if (letter == ' ') continue;
    name += letter;
    if (!name.ends_with("::")) continue;
    const std::size_t word = name.find_last_of("<,");
    name.erase(word == std::string::npos ? 0 : word + 1);
  }
  return name;
}

/// Bytes of memory traffic of an operand. Per-channel parameters stay in cache; `prev` and `back` access the memory of
/// the operand that they accompany. Both count as zero.
template <class Op>
double operand_bytes(const Op& op) {
  const auto bytes = [](const auto& view) {
    return static_cast<double>(view.batch * view.time * view.width) * sizeof(*view.data);
  };
  if constexpr (requires { op.operand; }) return operand_bytes(op.operand);
  else if constexpr (
      requires { op.p; } || requires { op.before; } || requires { op.dlast; })
    return 0;
  else if constexpr (rwkv::detail::is_add<Op>) return 2 * bytes(op.y);
  else if constexpr (requires { op.y; }) return bytes(op.y);
  else return bytes(op.x);
}

template <class T, class W, class E>
double flops(const rwkv::Product<T, W, E>& product) {
  return 2.0 * static_cast<double>(product.y.rows * product.y.cols) * static_cast<double>(product.x.cols);
}
template <class T, class W>
double flops(const rwkv::PlainProduct<T, W>& product) {
  return 2.0 * static_cast<double>(product.y.rows * product.y.cols) * static_cast<double>(product.depth());
}

template <class P>
inline constexpr bool is_plain = false;
template <class T, class W>
inline constexpr bool is_plain<rwkv::PlainProduct<T, W>> = true;

}  // namespace detail

/// The time of each operation since the last clear().
class Profile {
 public:
  struct Entry {
    double calls = 0, seconds = 0, flops = 0, bytes = 0;
  };

  void clear() { entries_.clear(); }
  void add(const std::string& name, const Entry& more) {
    Entry& entry = entries_[name];
    entry.calls += more.calls;
    entry.seconds += more.seconds;
    entry.flops += more.flops;
    entry.bytes += more.bytes;
  }

  /// Prints the table in Markdown, longest time first; `seconds` is the total time of `steps` steps.
  void print(std::ostream& out, double steps, double seconds) const {
    std::vector<std::pair<std::string, Entry>> rows(entries_.begin(), entries_.end());
    double inside = 0, products = 0;
    for (const auto& [name, entry] : rows) {
      inside += entry.seconds;
      if (name.starts_with("gemm")) products += entry.seconds;
    }
    rows.push_back({"outside of verbs", {steps, seconds - inside, 0, 0}});
    std::sort(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.second.seconds > b.second.seconds; });
    out << "| operation | calls | ms per step | share, % | GFLOP/s | GB/s |\n| --- | --- | --- | --- | --- | --- |\n";
    const auto line = [&](const std::string& name, const Entry& entry) {
      const auto rate = [&](double amount) {
        return amount == 0 ? std::string() : number("%.1f", amount / entry.seconds);
      };
      out << "| " << name << " | " << number("%.0f", entry.calls / steps) << " | "
          << number("%.3f", entry.seconds / steps * 1e3) << " | " << number("%.1f", entry.seconds / seconds * 100)
          << " | " << rate(entry.flops / 1e9) << " | " << rate(entry.bytes / 1e9) << " |\n";
    };
    for (const auto& [name, entry] : rows) line(name, entry);
    line("all but gemm", {0, seconds - products, 0, 0});
    line("all", {0, seconds, 0, 0});
  }

 private:
  static std::string number(const char* format, double value) {
    char text[32];
    std::snprintf(text, sizeof text, format, value);
    return text;
  }

  std::map<std::string, Entry> entries_;
};

/// A Cpu whose copies share one profile.
class Timed : public rwkv::Cpu {
 public:
  Timed() : Timed(1) {}
  explicit Timed(int threads) : rwkv::Cpu(threads), profile_(std::make_shared<Profile>()) {}

  Profile& profile() const { return *profile_; }

  template <class From, class To>
  void copy(const From& from, const To& to) {
    timed("copy", 0, 2 * bytes_of(to), [&] { rwkv::Cpu::copy(from, to); });
  }
  template <class To, class T>
  void fill(const To& to, T value) {
    timed("fill", 0, bytes_of(to), [&] { rwkv::Cpu::fill(to, value); });
  }
  template <class Table, class To>
  void gather_rows(const Table& table, std::span<const rwkv::Token> rows, const To& to) {
    timed("gather_rows", 0, 2 * bytes_of(to), [&] { rwkv::Cpu::gather_rows(table, rows, to); });
  }
  template <class From, class Table>
  void scatter_add_rows(rwkv::Arena scratch, const From& from, std::span<const rwkv::Token> rows, const Table& table) {
    timed("scatter_add_rows", 0, 3 * bytes_of(from), [&] { rwkv::Cpu::scatter_add_rows(scratch, from, rows, table); });
  }
  template <class T>
  void cross_entropy(rwkv::Mat<T> logits, std::span<const rwkv::Token> targets,
                     const rwkv::CrossEntropyWeights& weights, std::span<T> losses) {
    timed("cross_entropy", 0, 2 * bytes_of(logits),
          [&] { rwkv::Cpu::cross_entropy(logits, targets, weights, losses); });
  }
  template <class T, Index C>
  double sum_of_squares(rwkv::Arena scratch, rwkv::Mat<T, C> x) {
    double sum = 0;
    timed("sum_of_squares", 0, bytes_of(x), [&] { sum = rwkv::Cpu::sum_of_squares(scratch, x); });
    return sum;
  }
  template <class... P>
  void gemm(const P&... products) {
    constexpr bool back = (detail::is_plain<P> && ...);
    timed(back ? "gemm, backward" : "gemm, forward", (detail::flops(products) + ...), 0,
          [&] { rwkv::Cpu::gemm(products...); });
  }
  template <class P, class... Op>
  void rows(const P& program, const Op&... ops) {
    timed("rows " + detail::type_name<P>(), 0, (detail::operand_bytes(ops) + ...),
          [&] { rwkv::Cpu::rows(program, ops...); });
  }
  template <class P, class... Op>
  void rows(rwkv::Arena scratch, const P& program, const Op&... ops) {
    timed("rows " + detail::type_name<P>(), 0, (detail::operand_bytes(ops) + ...),
          [&] { rwkv::Cpu::rows(scratch, program, ops...); });
  }
  template <class Schedule, class C, Index N, class State, class... Op>
  void recur(rwkv::Arena scratch, Schedule schedule, C cell, rwkv::Extent<N> length, State state, const Op&... ops) {
    timed("recur " + detail::type_name<C>(), 0, (detail::operand_bytes(ops) + ...),
          [&] { rwkv::Cpu::recur(scratch, schedule, cell, length, state, ops...); });
  }
  template <class Schedule, class C, Index N, class First, class Last, class Before, class... Op>
  void recur_back(rwkv::Arena scratch, Schedule schedule, C cell, rwkv::Extent<N> length, First first, Last dlast,
                  Before dfirst, const Op&... ops) {
    timed("recur_back " + detail::type_name<C>(), 0, (detail::operand_bytes(ops) + ...),
          [&] { rwkv::Cpu::recur_back(scratch, schedule, cell, length, first, dlast, dfirst, ops...); });
  }

 private:
  template <class M>
  static double bytes_of(const M& m) {
    return static_cast<double>(m.rows * m.cols) * sizeof(*m.data);
  }

  template <class Verb>
  void timed(const std::string& name, double flops, double bytes, const Verb& verb) {
    if (dry) return verb();
    const auto start = Clock::now();
    verb();
    profile_->add(name, {1, seconds_since(start), flops, bytes});
  }

  std::shared_ptr<Profile> profile_;
};

}  // namespace bench
