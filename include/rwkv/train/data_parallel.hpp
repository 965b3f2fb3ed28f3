#pragma once
/// Training by several ranks that divide the batch and the optimiser's moments among them. A communicator of several
/// ranks includes this header; trainer.hpp alone does not.
#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rwkv/backend/memory.hpp"
#include "rwkv/backend/operand.hpp"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/progress.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/view.hpp"
#include "rwkv/op/activation.hpp"
#include "rwkv/system/crc32.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/sum_tree.hpp"
#include "rwkv/train/token_data.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// How some work ended.
struct Outcome {
  /// Of exceptions: an Error, a Cancelled, or one of another type.
  enum Kind : unsigned char { done, failed, cancelled, other };

  Kind kind = done;
  std::string sentence{};       // what the exception says
  std::exception_ptr thrown{};  // the exception
};

/// Runs work() and keeps what it throws.
template <class Work>
Outcome outcome_of(const Work& work) {
#if defined(__cpp_exceptions)
  const auto thrown = [](Outcome::Kind kind, const char* text) {
    Outcome outcome{kind, "out of memory", std::current_exception()};
    try {
      outcome.sentence = text;
    } catch (const std::bad_alloc&) {  // the short sentence stays
    }
    return outcome;
  };
  try {
    work();
  } catch (const Cancelled& error) {
    return thrown(Outcome::cancelled, error.what());
  } catch (const Error& error) {
    return thrown(Outcome::failed, error.what());
  } catch (const std::exception& error) {
    return thrown(Outcome::other, error.what());
  } catch (...) {
    return thrown(Outcome::other, "it threw something that is no std::exception");
  }
#else
  work();
#endif
  return {};
}

/// A text of rank `root`, on every rank. A rank whose memory ends takes part to the end, and throws then.
template <Communicator C>
std::string broadcast_text(C& comm, const std::string& text, int root) {
  std::uint64_t bytes = text.size();
  comm.broadcast(std::as_writable_bytes(std::span(&bytes, 1)), root);
  constexpr std::uint64_t most = std::uint64_t{1} << 28;
  expects(bytes <= most, "rwkv: rank ", root, " sends a text of ", bytes, " bytes, more than ", most);
  std::string received;
  Outcome outcome;
  std::array<char, 4096> piece;
  for (std::size_t begin = 0; begin < bytes; begin += piece.size()) {
    const std::size_t count = std::min<std::size_t>(piece.size(), bytes - begin);
    if (comm.rank() == root) std::copy_n(text.data() + begin, count, piece.data());
    comm.broadcast(std::as_writable_bytes(std::span(piece).first(count)), root);
    if (outcome.kind == Outcome::done) outcome = outcome_of([&] { received.append(piece.data(), count); });
  }
  if (outcome.thrown) std::rethrow_exception(outcome.thrown);
  return received;
}

/// One for each rank, without memory of its own for as many ranks as there mostly are.
template <class T>
class PerRank {
 public:
  explicit PerRank(std::size_t size) : size_(size), more_(size > few_.size() ? size : 0) {}
  std::span<T> all() { return more_.empty() ? std::span<T>(few_).first(size_) : std::span<T>(more_); }

 private:
  std::size_t size_;
  std::array<T, 64> few_{};
  std::vector<T> more_;
};

/// What is compared, in words: a text, or what gives one where it is needed.
template <class What>
std::string words_for(const What& what) {
  if constexpr (std::invocable<const What&>) return what();
  else return std::string(std::string_view(what));
}

}  // namespace detail

namespace detail {
template <class T, Communicator C>
void gather_each(C& comm, const T& mine, std::span<T> all) {
  PerRank<Index> begins(all.size() + 1);
  for (std::size_t q = 0; q <= all.size(); ++q) begins.all()[q] = static_cast<Index>(q * sizeof(T));
  all[static_cast<std::size_t>(comm.rank())] = mine;
  comm.all_gather(std::as_writable_bytes(all), begins.all());
}
}  // namespace detail

/// Every rank's number, on every rank, in the order of the ranks. Called by all ranks. T may be any type that is copied as
/// bytes.
template <class T, Communicator C>
std::vector<T> gather_each(C& comm, const T& mine) {
  std::vector<T> all(static_cast<std::size_t>(comm.size()));
  detail::gather_each(comm, mine, std::span(all));
  return all;
}

/// Runs work() on every rank, which must succeed on all and return the same std::uint64_t on all. Called by all ranks; a
/// program uses it around what one rank may fail at while the others go on, such as reading a file. work() itself calls no
/// verb of `comm`.
/// Errors    where work() throws on a rank, all throw the sentence of the first such rank, as a Cancelled if that rank threw
///           one, else as an Error. A rank on which it threw something else than an Error throws that. Where results
///           differ, all throw a sentence that says that ranks have other `what`, a text or a function that returns it
template <Communicator C, class What, class Work>
void together(C& comm, const What& what, const Work& work) {
  using detail::Outcome;
  struct Report {
    std::uint64_t kind, result;
  };
  Report mine{0, 0};
  Outcome outcome = detail::outcome_of([&] { mine.result = work(); });
  mine.kind = outcome.kind;
  detail::PerRank<Report> reports(static_cast<std::size_t>(comm.size()));
  const std::span<Report> all = reports.all();
  detail::gather_each(comm, mine, all);
  const auto has_failed = [](const Report& one) { return one.kind != Outcome::done; };
  const auto failed = std::find_if(all.begin(), all.end(), has_failed);
  if (failed != all.end()) {
    const int first = static_cast<int>(failed - all.begin());
    std::string sentence = detail::broadcast_text(comm, outcome.sentence, first);
    if (outcome.kind == Outcome::other) std::rethrow_exception(outcome.thrown);
    const bool everywhere = std::all_of(all.begin(), all.end(), has_failed);
    if (!everywhere) sentence = join("rank ", first, " of ", comm.size(), ": ", sentence);
    if (failed->kind == Outcome::cancelled) RWKV_THROW(Cancelled(sentence));
    fail(sentence);
  }
  for (std::size_t q = 1; q < all.size(); ++q) {
    if (all[q].result == all[0].result) continue;
    fail("rwkv: rank ", q, " of ", comm.size(), " has other ", detail::words_for(what), " than rank 0");
  }
}

namespace detail {

/// Compares lines of text with those of rank 0, as settings in words.
/// Errors    on all ranks, with the first line that differs on the first rank where one does
template <Communicator C>
void agree(C& comm, const std::vector<std::string>& lines) {
  std::string text;
  together(comm, "settings", [&] {
    for (const std::string& line : lines) text += line + '\n';
    return std::uint64_t{0};
  });
  const std::string first = broadcast_text(comm, text, 0);
  together(comm, "settings", [&] {
    std::string_view here = text, there = first;
    while (here != there) {
      const auto take = [](std::string_view& rest) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        return line.empty() ? std::string_view("nothing more") : line;
      };
      const std::string_view mine = take(here), its = take(there);
      expects(mine == its, "rwkv: the ranks must train alike: ", its, " on rank 0, ", mine, " here");
    }
    return std::uint64_t{0};
  });
}

/// A part of the work of all ranks that an exception may end on one of them, such as a constructor. done() is its end. A
/// rank that leaves it otherwise lets done() throw on the others.
template <Communicator C>
class JointWork {
 public:
  /// `sentence` is what they throw.
  JointWork(C& comm, std::string_view sentence) : comm_(&comm), sentence_(sentence) {}
  JointWork(const JointWork&) = delete;
  JointWork& operator=(const JointWork&) = delete;
  ~JointWork() {
    if (done_) return;
    static_cast<void>(outcome_of([&] {  // the exception that is on its way says more
      together(*comm_, "ends", [&]() -> std::uint64_t { fail(sentence_); });
    }));
  }
  void done() {
    done_ = true;
    together(*comm_, "ends", [] { return std::uint64_t{0}; });
  }

 private:
  C* comm_;
  std::string_view sentence_;
  bool done_ = false;
};

/// How one rank takes part in a step: which sequences are its own, the sum of the gradients over all ranks, and the
/// numbers that it updates.
///
/// The trained tensors, one after the other, are cut into blocks of whole rows; a rank updates a stretch of blocks. Sums
/// over all numbers, such as that of squares, are taken block by block and so do not depend on the ranks.
template <class T, class B, class C>
class Share {
 public:
  static_assert(host_reaches<B>, "rwkv: ranks exchange numbers in host memory; train on a backend that works there");

  /// A trained tensor.
  struct Tensor {
    std::span<T> value, gradient;  // whole; the gradient of this rank's sequences alone
    Index width;                   // of a row
  };
  /// The numbers [first, first + count) of a tensor.
  struct Part {
    Index first = 0, count = 0;
  };

  Share(C comm, const Sharing& sharing, const BatchShape& shape) : comm_(std::move(comm)), sharing_(sharing) {
    rows_ = shape.batch / comm_.size();
    if (sharing.sum == GradientSum::any_order) sharing_.grain = rows_;
  }

  /// Compares what decides a run, line by line, on all ranks: lines() in words, how they share a step, and the version.
  /// Errors    on all ranks, what lines() throws on one, ranks that differ, and ranks that cannot share the batch
  template <class Lines>
  static void agree_on(C& comm, const Sharing& sharing, const BatchShape& shape, const Lines& lines) {
    std::vector<std::string> all{
        join("the version is ", RWKV_VERSION_MAJOR, ".", RWKV_VERSION_MINOR, ".", RWKV_VERSION_PATCH)};
    rwkv::together(comm, "settings", [&] {
      check(comm, sharing, shape);
      const std::vector<std::string> others = lines();
      all.insert(all.end(), others.begin(), others.end());
      return std::uint64_t{0};
    });
    agree(comm, all);
  }

  /// What a run file says about the sum of gradients.
  static std::string in_words(const Sharing& sharing) {
    if (sharing.sum == GradientSum::any_order) return ", summed in any order";
    return join(", summed by a tree over grains of ", sharing.grain);
  }

  static std::uint32_t checksum(std::span<const T> numbers) { return crc32(std::as_bytes(numbers)); }

  template <class What, class Work>
  void together(const What& what, const Work& work) const {
    C comm = comm_;
    rwkv::together(comm, what, work);
  }

  /// The sentence of the first rank whose number is the least, on every rank.
  std::string sentence_of_least(double number, const std::string& sentence) const {
    C comm = comm_;
    const std::vector<double> all = gather_each(comm, number);
    const auto least = std::min_element(all.begin(), all.end()) - all.begin();
    return broadcast_text(comm, sentence, static_cast<int>(least));
  }

  /// FNV-1a of a step's number and its batches.
  static std::uint64_t hash_of(Index step, std::span<const Batch> parts) {
    std::uint64_t hash = stream_of("batches");
    const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3u; };
    add(static_cast<std::uint64_t>(step));
    for (const Batch& part : parts) {
      add(part.fresh ? 1 : 0);
      for (const auto* tokens : {&part.tokens, &part.targets}) {
        for (const Token token : *tokens) add(static_cast<std::uint32_t>(token));
      }
    }
    return hash;
  }

  bool is_first() const { return comm_.rank() == 0; }

  /// Errors    where ranks cannot share batches of this shape
  static void check(C& comm, const Sharing& sharing, const BatchShape& shape) {
    const bool tree = sharing.sum == GradientSum::tree;
    expects(shape.batch > 0, "rwkv: a batch of ", shape.batch, " sequences has nothing to learn from");
    expects(!tree || (sharing.grain > 0 && sharing.grain <= shape.batch), "rwkv: a batch of ", shape.batch,
            " sequences has no grains of ", sharing.grain);
    const Index unit = tree ? sharing.grain * comm.size() : comm.size();
    expects(shape.batch % unit == 0, "rwkv: ", comm.size(), comm.size() == 1 ? " rank" : " ranks", " cannot share ",
            shape.batch, " sequences evenly",
            tree && sharing.grain > 1 ? join(", ", sharing.grain, " at a time") : std::string(),
            "; pass a batch that is a multiple of ", unit);
  }

  const Sharing& sharing() const { return sharing_; }
  Index grain() const { return sharing_.grain; }
  /// Of a batch, this rank's sequences are the `rows()` from `first_row()` on.
  Index rows() const { return rows_; }
  Index first_row() const { return comm_.rank() * rows_; }

  /// Divides tensors among the ranks. `gradients` are those of all tensors, one after the other, which a pass may also
  /// write elsewhere; null where they lie scattered.
  void divide(B& be, std::vector<Tensor> tensors, T* gradients) {
    tensors_ = std::move(tensors);
    for (const Tensor& tensor : tensors_) {
      begins_of_tensors_.push_back(total_);
      const Index rows = tensor.width == 0 ? 0 : std::ssize(tensor.value) / tensor.width;
      const Index most = std::max<Index>(1, (block_size + tensor.width - 1) / std::max<Index>(1, tensor.width));
      for (Index row = 0; row < rows; row += most) {
        const Index count = std::min(most, rows - row);
        blocks_.push_back({total_, count, tensor.width});
        total_ += count * tensor.width;
      }
    }
    std::size_t next = 0;
    for (Index q = 0; q <= size(); ++q) {
      while (next < blocks_.size() && blocks_[next].begin * size() < q * total_) ++next;
      first_blocks_.push_back(static_cast<Index>(q == size() ? blocks_.size() : next));
      begins_.push_back(q == size() || next == blocks_.size() ? total_ : blocks_[next].begin);
    }
    // Between verbs no memory is taken: a rank that has none could not tell the others.
    squares_.resize(blocks_.size());
    bytes_.resize(begins_.size());
    apart_.resize(tensors_.size() * static_cast<std::size_t>(size()));
    pieces_.reserve(tensors_.size() + 1);
    scattered_ = gradients == nullptr;
    if (scattered_) first_slot_ = Memory<B>(be, total_ * Index{sizeof(T)});
    first_ = scattered_ ? reinterpret_cast<T*>(first_slot_.data()) : gradients;
    reserve(be, slots_for(1));
  }

  /// How many vectors a rank with the leaves [begin, end) keeps at a time, that of its passes included.
  static Index slots_of(const SumTree& tree, Index begin, Index end) {
    Index before = 0, most = 1;
    for (const SumTree::Node& node : tree.nodes(begin, end)) most = std::max(most, ++before + slots_below(node));
    return most;
  }

  /// What this rank updates of tensor i; part_of says it of any rank.
  Part part(std::size_t i) const { return part_of(i, rank()); }
  Part part_of(std::size_t i, Index q) const {
    const Index begin = begins_of_tensors_[i], end = begin + std::ssize(tensors_[i].value);
    const Index from = std::clamp(begin_of(q), begin, end), to = std::clamp(begin_of(q + 1), begin, end);
    return {from - begin, to - from};
  }
  /// Blocks of numbers that rank q updates.
  Index blocks(Index q) const { return first_block(q + 1) - first_block(q); }
  /// The gradient of that part, after add_up().
  std::span<T> gradient_of(std::size_t i) const {
    const auto [first, count] = part(i);
    return {slot(0) + begins_of_tensors_[i] + first, static_cast<std::size_t>(count)};
  }

  /// Sums gradients and losses over this rank's grains, over `parts` batches, and over all ranks. clear(to) sets the
  /// gradients of the tensors to zero, and puts them at `to` unless they lie scattered; add(k, p) adds those of grain k of
  /// batch p and returns its loss, finish() completes them after the last add. Of one grain, batches follow each other in
  /// order. done() is called when this rank has computed its own. What one rank throws until then, all throw. Returns the
  /// loss.
  template <class Clear, class Add, class Finish, class Done>
  double add_up(B& be, Index parts, const Clear& clear, const Add& add, const Finish& finish, const Done& done) {
    if (sharing_.sum == GradientSum::any_order) {
      double loss = 0;
      together("gradients", [&] {
        clear(slot(0));
        for (Index p = 0; p < parts; ++p) loss += add(Index{0}, p);
        finish();
        take(be, slot(0));
        be.sync();
        return done(), std::uint64_t{0};
      });
      comm_.reduce_scatter(std::span(slot(0), static_cast<std::size_t>(total_)), std::span<const Index>(begins_));
      comm_.all_reduce(std::span(&loss, 1));
      return loss;
    }
    const Index mine = rows_ / grain() * parts;
    const SumTree tree{mine * size()};
    std::vector<double> losses;
    const auto leaf = [&](Index n, T* to) {
      const Index i = n - rank() * mine;
      clear(to);
      losses[static_cast<std::size_t>(n)] = add(i / parts, i % parts);
      finish();
      take(be, to);
    };
    std::vector<T*> sums;
    std::vector<Index> begins;
    TreeReduction<T> reduction;
    together("gradients", [&] {
      reserve(be, slots_for(parts));  // more batches make deeper trees
      losses.resize(static_cast<std::size_t>(tree.leaves));
      for (Index q = 0; q <= size(); ++q) begins.push_back(q * mine * Index{sizeof(double)});
      reduction = TreeReduction<T>(comm_, tree, begins_, received_);
      for (const SumTree::Node& node : tree.nodes(rank() * mine, (rank() + 1) * mine)) {
        const auto nth = static_cast<Index>(sums.size());
        sums.push_back(slot(nth));
        add_up_node(be, node, slot(nth), nth + 1, leaf);
      }
      be.sync();
      return done(), std::uint64_t{0};
    });
    const auto add_numbers = [&](T* to, const T* from, Index n) {
      add_to(be, to, from, n);
      be.sync();
    };
    reduction.run(comm_, std::span<T* const>(sums), add_numbers);
    comm_.all_gather(std::as_writable_bytes(std::span(losses)), begins);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  /// The squared norm of the sum of add_up().
  double squares(B& be, Arena scratch) {
    for (Index b = first_block(rank()); b < first_block(rank() + 1); ++b) {
      const Block& block = blocks_[static_cast<std::size_t>(b)];
      squares_[static_cast<std::size_t>(b)] =
          be.sum_of_squares(scratch, matrix(static_cast<const T*>(slot(0)) + block.begin, block.rows, block.width));
    }
    if (be.dry) return 0;
    for (std::size_t q = 0; q < bytes_.size(); ++q) bytes_[q] = first_blocks_[q] * Index{sizeof(double)};
    comm_.all_gather(std::as_writable_bytes(std::span(squares_)), bytes_);
    return std::accumulate(squares_.begin(), squares_.end(), 0.0);
  }

  /// Gives every rank the values that others have updated; tensors that lie one behind the other go in one message.
  void spread(B& be) {
    be.sync();
    if (pieces_.empty()) find_pieces();
    for (std::size_t nth = 0; nth + 1 < pieces_.size(); ++nth) {
      const Index begin = begin_of_tensor(pieces_[nth]), count = begin_of_tensor(pieces_[nth + 1]) - begin;
      for (std::size_t q = 0; q < bytes_.size(); ++q) {
        bytes_[q] = std::clamp<Index>(begins_[q] - begin, 0, count) * Index{sizeof(T)};
      }
      const std::span values(tensors_[pieces_[nth]].value.data(), static_cast<std::size_t>(count));
      comm_.all_gather(std::as_writable_bytes(values), bytes_);
    }
  }

  /// Collects, on rank 0, an array of which rank q holds part_of_rank(q); `whole` matters there alone.
  template <class PartOf>
  void collect(std::span<const T> mine, const PartOf& part_of_rank, std::span<T> whole) const {
    std::vector<std::span<const std::byte>> to(static_cast<std::size_t>(size()));
    std::vector<std::span<std::byte>> from(static_cast<std::size_t>(size()));
    to[0] = std::as_bytes(mine);
    for (Index q = 0; q < size() && is_first(); ++q) {
      const Part part = part_of_rank(q);
      from[static_cast<std::size_t>(q)] = std::as_writable_bytes(
          whole.subspan(static_cast<std::size_t>(part.first), static_cast<std::size_t>(part.count)));
    }
    C comm = comm_;
    comm.all_to_all(to, from);
  }

 private:
  static constexpr Index block_size = 16384;  // numbers, about

  struct Block {
    Index begin, rows, width;
  };

  Index rank() const { return comm_.rank(); }
  Index size() const { return comm_.size(); }
  Index begin_of(Index q) const { return begins_[static_cast<std::size_t>(q)]; }
  Index first_block(Index q) const { return first_blocks_[static_cast<std::size_t>(q)]; }
  /// Memory for the gradients of all tensors.
  T* slot(Index i) const { return i == 0 ? first_ : reinterpret_cast<T*>(slots_.data()) + (i - 1) * total_; }

  Index begin_of_tensor(std::size_t i) const { return i == tensors_.size() ? total_ : begins_of_tensors_[i]; }

  /// Finds the tensors whose values do not lie behind those of the tensor before, on any rank.
  void find_pieces() {
    std::byte* const mine = apart_.data() + static_cast<std::size_t>(rank()) * tensors_.size();
    mine[0] = std::byte(1);
    for (std::size_t i = 1; i < tensors_.size(); ++i) {
      const auto before = tensors_[i - 1].value;
      mine[i] = std::byte(before.data() + before.size() != tensors_[i].value.data());
    }
    for (std::size_t q = 0; q < bytes_.size(); ++q) bytes_[q] = static_cast<Index>(q * tensors_.size());
    comm_.all_gather(apart_, bytes_);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      bool begins_here = false;
      for (std::size_t q = 0; q < static_cast<std::size_t>(size()); ++q) {
        begins_here |= apart_[q * tensors_.size() + i] != std::byte(0);
      }
      if (begins_here) pieces_.push_back(i);
    }
    pieces_.push_back(tensors_.size());
  }

  /// Copies the gradients of all tensors there, unless a pass has put them there.
  void take(B& be, T* to) {
    if (!scattered_) return;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const auto [value, gradient, width] = tensors_[i];
      const Index rows = width == 0 ? 0 : std::ssize(value) / width;
      be.rows(Copy{}, arg::in(Seq<const T>{gradient.data(), 1, rows, width}),
              arg::out(Seq<T>{to + begins_of_tensors_[i], 1, rows, width}));
    }
  }

  /// Adds n numbers, in rows that threads can divide.
  static void add_to(B& be, T* to, const T* from, Index n) {
    constexpr Index width = 4096;
    const auto add_rows = [&](Index begin, Index rows, Index columns) {
      be.rows(Copy{}, arg::in(Seq<const T>{from + begin, 1, rows, columns}),
              arg::add(Seq<T>{to + begin, 1, rows, columns}));
    };
    if (n >= width) add_rows(0, n / width, width);
    if (n % width > 0) add_rows(n / width * width, 1, n % width);
  }

  /// The sum at a node of this rank's leaves; slots from `next` on are free.
  template <class Leaf>
  void add_up_node(B& be, SumTree::Node node, T* to, Index next, const Leaf& leaf) {
    if (node.is_leaf()) return leaf(node.begin, to);
    add_up_node(be, node.left(), to, next, leaf);
    add_up_node(be, node.right(), slot(next), next + 1, leaf);
    add_to(be, to, slot(next), total_);
  }

  static Index slots_below(SumTree::Node node) {
    if (node.is_leaf()) return 0;
    return std::max(slots_below(node.left()), 1 + slots_below(node.right()));
  }
  Index slots_for(Index parts) const {
    const Index mine = rows_ / grain() * parts;
    return slots_of({mine * size()}, rank() * mine, (rank() + 1) * mine);
  }
  void reserve(B& be, Index slots) {
    const Index bytes = (slots - 1) * total_ * Index{sizeof(T)};
    if (slots_.bytes() < bytes) slots_ = Memory<B>(be, bytes);  // without memory for them, the old ones stay
  }

  C comm_;
  Sharing sharing_;
  Index rows_ = 0, total_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<Index> begins_of_tensors_;
  std::vector<Block> blocks_;
  std::vector<std::size_t> pieces_;           // tensors where a message of values begins, and their number
  std::vector<Index> begins_, first_blocks_;  // of every rank's numbers and blocks, and their ends
  Memory<B> first_slot_, slots_;              // gradients of nodes, of the first where the tensors' lie scattered
  T* first_ = nullptr;                        // of the first node, and then this rank's part of the sum
  bool scattered_ = false;
  std::vector<T> received_;       // from other ranks
  std::vector<double> squares_;   // of every block
  std::vector<std::byte> apart_;  // of every rank, for every tensor: whether its values lie apart from those before
  std::vector<Index> bytes_;      // where the part of every rank begins in a message, and their end
};

}  // namespace detail
}  // namespace RWKV_ABI
}  // namespace rwkv
