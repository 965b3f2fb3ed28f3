#pragma once
/// Random schedules of everything that can be done to contexts over the same weights: steps, prompts of all or of one,
/// sequences that come and go, forks, states that are kept and put back, going back, prompts that are given up, calls that
/// are refused. After each, every sequence has the logits that it has alone, bit for bit.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "live.hpp"

namespace isolation {

using rwkv::Index;
using rwkv::Token;

/// What a broken pool of states does, to see that a schedule catches it.
enum class Fault { none, start_of_another, restored_elsewhere, a_token_late };

using Tokens = std::vector<Token>;
inline constexpr rwkv::ModelSizes sizes{.vocab = 17, .width = 16, .depth = 2, .head_size = 8};

/// The logits after some tokens, of a context that never saw others.
template <class Net>
class Alone {
 public:
  explicit Alone(const Net& net) : context_(net.context({.chunk = 64})) {}
  const std::vector<float>& after(const Tokens& tokens) {
    auto [found, inserted] = known_.try_emplace(tokens);
    if (inserted) {
      context_.reset();
      const auto logits = context_.prefill(tokens);
      found->second.assign(logits.begin(), logits.end());
    }
    return found->second;
  }
  /// Of what a schedule said, no other will say much.
  void forget() { known_.clear(); }

 private:
  rwkv::Context<Net> context_;
  std::map<Tokens, std::vector<float>> known_;
};

/// One schedule. Returns what went wrong, or nothing.
template <class Net>
class Schedule {
 public:
  Schedule(const Net& net, Alone<Net>& alone, std::uint64_t seed, Fault fault)
      : net_(net), alone_(alone), random_{.key = seed}, fault_(fault) {}

  std::string operator()(int operations) {
    alone_.forget();
    open();
    for (int i = 0; i < operations && wrong_.empty(); ++i) {
      if (rooms_.size() == 3) rooms_.erase(rooms_.begin() + static_cast<std::ptrdiff_t>(draw(3)));
      if (rooms_.size() == 1 && draw(20) == 0) open();
      Room& room = *rooms_[draw(rooms_.size())];
      operate(room);
      if (wrong_.empty() && draw(3) == 0) step(room);
      if (wrong_.empty()) check_positions(room);
      poison(room);
    }
    for (const auto& room : rooms_) {
      if (wrong_.empty()) step(*room);
    }
    return wrong_;
  }

 private:
  using Context = rwkv::Context<Net>;
  /// A context, and the tokens that each of its sequences has seen.
  struct Room {
    Context context;
    std::vector<Tokens> seen;
    rwkv::StateRing<Net> ring;
    std::vector<std::vector<Tokens>> pushed;  // what was seen at each push that the ring has, the latest last

    Room(Context made, std::vector<Tokens> tokens)
        : context(std::move(made)), seen(std::move(tokens)), ring(context, 3), pushed{seen} {}
  };
  struct Kept {
    std::vector<float> state;
    Tokens seen;
  };
  static constexpr std::size_t longest = 20;

  std::size_t draw(std::size_t below) {
    return static_cast<std::size_t>(random_.block(drawn_++).uniform_double(0) * static_cast<double>(below));
  }
  Token token() { return static_cast<Token>(draw(static_cast<std::size_t>(sizes.vocab))); }
  Tokens tokens(std::size_t count) {
    Tokens all;
    while (all.size() < count) all.push_back(token());
    return all;
  }
  std::size_t some_sequence(const Room& room) { return draw(room.seen.size()); }

  void open() {
    const auto batch = static_cast<Index>(1 + draw(5));
    const auto order = static_cast<rwkv::LayerOrder>(draw(3));
    auto context = net_.context({.batch = batch, .chunk = static_cast<Index>(1 + draw(20)), .order = order});
    rooms_.push_back(std::make_unique<Room>(std::move(context), std::vector<Tokens>(static_cast<std::size_t>(batch))));
  }

  void operate(Room& room) {
    Context& context = room.context;
    const std::size_t batch = room.seen.size();
    switch (draw(14)) {
      case 0:
        if (context.batch() < context.capacity()) add(room);
        break;
      case 1:
        if (batch > 0) remove(room);
        break;
      case 2: {  // a prompt for all
        const std::size_t count = 1 + draw(9);
        if (batch == 0 || too_long(room, count)) break;
        const Tokens prompt = tokens(batch * count);
        const auto logits = context.prefill(prompt);
        for (std::size_t b = 0; b < batch; ++b) append(room, b, std::span(prompt).subspan(b * count, count));
        compare_all(room, logits, "prefill");
        break;
      }
      case 3:
      case 4: {  // a prompt for one
        if (batch == 0) break;
        const std::size_t b = some_sequence(room);
        const Tokens prompt = tokens(1 + draw(12));
        if (room.seen[b].size() + prompt.size() > longest) break;
        const auto logits = context.prefill(static_cast<Index>(b), prompt);
        append(room, b, prompt);
        compare(room.seen[b], logits, "prefill of one");
        break;
      }
      case 5: rooms_.push_back(std::make_unique<Room>(context.fork(), room.seen)); break;
      case 6: {
        if (batch == 0) break;
        const std::size_t b = some_sequence(room);
        kept_.push_back({context.state(static_cast<Index>(b)), room.seen[b]});
        break;
      }
      case 7: {  // into any sequence of any context
        if (batch == 0 || kept_.empty()) break;
        restore(room, some_sequence(room), kept_[draw(kept_.size())]);
        break;
      }
      case 8:
        room.ring.push();
        room.pushed.push_back(room.seen);
        while (std::ssize(room.pushed) > room.ring.kept() + 1) room.pushed.erase(room.pushed.begin());
        break;
      case 9: {
        if (room.ring.kept() == 0) break;  // also where a sequence came or went since the last push
        const auto pushes = draw(static_cast<std::size_t>(room.ring.kept()) + 1);
        room.ring.back(static_cast<Index>(pushes));
        room.pushed.resize(room.pushed.size() - pushes);
        room.seen = room.pushed.back();
        break;
      }
      case 10: give_up(room); break;
      case 11: be_refused(room); break;
      case 12:
        if (draw(4) != 0) break;
        context.reset();
        for (Tokens& seen : room.seen) seen.clear();
        break;
      default: step(room);
    }
  }

  /// A step of all sequences, each of whose logits must be its own.
  void step(Room& room) {
    if (room.seen.empty() || too_long(room, 1)) return;
    const Tokens next = tokens(room.seen.size());
    const auto logits = room.context.step(next);
    for (std::size_t b = 0; b < next.size(); ++b) append(room, b, std::span(next).subspan(b, 1));
    compare_all(room, logits, "step");
  }

  void add(Room& room) {
    const std::vector<float> first = room.seen.empty() ? std::vector<float>() : room.context.state(0);
    const Index b = room.context.add();
    room.seen.emplace_back();
    if (b != std::ssize(room.seen) - 1) wrong_ = "add gave another number";
    if (fault_ == Fault::start_of_another && !first.empty()) room.context.restore(b, first);
  }
  void remove(Room& room) {
    const std::size_t b = some_sequence(room);
    room.context.remove(static_cast<Index>(b));
    room.seen[b] = room.seen.back();
    room.seen.pop_back();
  }
  void restore(Room& room, std::size_t b, const Kept& kept) {
    std::size_t to = b;
    if (fault_ == Fault::restored_elsewhere) to = (b + 1) % room.seen.size();
    room.context.restore(static_cast<Index>(to), kept.state, std::ssize(kept.seen));
    if (fault_ == Fault::a_token_late && !kept.seen.empty()) {
      room.context.prefill(static_cast<Index>(to), std::span(kept.seen).last(1));
    }
    room.seen[b] = kept.seen;
  }
  /// A prompt that ends by an exception between two layers. Layers have then seen different numbers of tokens, so every
  /// sequence is put back to what it was.
  void give_up(Room& room) {
    if (room.seen.empty()) return;
    std::vector<Kept> before;
    for (std::size_t b = 0; b < room.seen.size(); ++b) {
      before.push_back({room.context.state(static_cast<Index>(b)), room.seen[b]});
    }
    const Tokens prompt = tokens(room.seen.size() * (1 + draw(6)));
    auto left = draw(4);
    struct GivenUp {};
    try {
      room.context.prefill(prompt, [&](const auto&, const auto&, const auto&) {
        if (left-- == 0) throw GivenUp();
      });
    } catch (const GivenUp&) {
    }
    for (std::size_t b = 0; b < before.size(); ++b) {
      room.context.restore(static_cast<Index>(b), before[b].state, std::ssize(before[b].seen));
    }
  }

  /// Calls that must change nothing.
  void be_refused(Room& room) {
    Context& context = room.context;
    const auto refused = [&](const char* what, const auto& call) {
      try {
        call();
        wrong_ = what;
      } catch (const rwkv::Error&) {
      }
    };
    const Index batch = context.batch();
    refused("no such sequence", [&] { context.remove(batch); });
    refused("a token outside the vocabulary", [&] {
      context.step(Tokens(static_cast<std::size_t>(std::max<Index>(batch, 1)), static_cast<Token>(sizes.vocab)));
    });
    if (batch == 0) return;
    auto numbers = context.state(0);
    numbers[draw(numbers.size())] = std::numeric_limits<float>::quiet_NaN();
    refused("NaN in a state", [&] { context.restore(0, numbers); });
    refused("a prompt with a wrong token at its end", [&] {
      Tokens prompt = tokens(7);
      prompt.back() = -1;
      context.prefill(0, prompt);
    });
    if (batch == context.capacity()) refused("a full context", [&] { context.add(); });
  }

  /// Fills the places of sequences that are gone with NaN.
  void poison(Room& room) {
    const Index batch = room.context.batch(), capacity = room.context.capacity();
    room.context.visit_state([&](const std::string&, rwkv::Mat<float>& view) {
      for (Index b = batch; b < capacity; ++b) {
        std::fill_n(view.data + b * view.stride, Index(view.cols), std::numeric_limits<float>::quiet_NaN());
      }
    });
  }

  bool too_long(const Room& room, std::size_t more) {
    return std::ranges::any_of(room.seen, [&](const Tokens& seen) { return seen.size() + more > longest; });
  }
  void append(Room& room, std::size_t b, std::span<const Token> more) {
    room.seen[b].insert(room.seen[b].end(), more.begin(), more.end());
  }
  void compare(const Tokens& seen, std::span<const float> logits, const char* by) {
    const std::vector<float>& own = alone_.after(seen);
    if (own.size() == logits.size() && std::memcmp(own.data(), logits.data(), logits.size_bytes()) == 0) return;
    wrong_ = rwkv::join(by, ": other logits than alone, after ", seen.size(), " tokens");
  }
  void compare_all(const Room& room, std::span<const float> logits, const char* by) {
    const auto vocab = static_cast<std::size_t>(sizes.vocab);
    for (std::size_t b = 0; b < room.seen.size(); ++b) compare(room.seen[b], logits.subspan(b * vocab, vocab), by);
  }
  void check_positions(const Room& room) {
    if (room.context.batch() != std::ssize(room.seen)) wrong_ = "another number of sequences";
    for (std::size_t b = 0; b < room.seen.size() && wrong_.empty(); ++b) {
      if (room.context.position(static_cast<Index>(b)) != std::ssize(room.seen[b])) wrong_ = "another position";
    }
  }

  const Net& net_;
  Alone<Net>& alone_;
  rwkv::Philox random_;
  Fault fault_;
  std::uint64_t drawn_ = 0;
  std::vector<std::unique_ptr<Room>> rooms_;
  std::vector<Kept> kept_;
  std::string wrong_;
};

}  // namespace isolation
