#pragma once
/// CudaSampler: draws the next tokens on the device, without the host.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "rwkv/backend/cuda/sample/sample_kernel.cuh"
#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/finite.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CUDA_ABI {

/// Draws the next token of each of `rows` sequences from logits on the device, as Sampler does on the host: the same
/// logits and seed give the same token, unless the last bits decide. Every sequence has its own options and memory.
/// `B` is a CUDA backend; work is queued in its stream.
template <class B>
class CudaSampler {
 public:
  /// A sampler that was moved from can only be assigned to.
  CudaSampler(CudaSampler&&) = default;
  /// As above.
  CudaSampler& operator=(CudaSampler&&) = default;

  /// For up to `rows` sequences, to be called with `be`.
  /// Errors    no sequence or no logit, or too many
  CudaSampler(const B& be, Index rows, Index vocab) : rows_(rows), vocab_(vocab) {
    expects(rows > 0 && rows < (Index{1} << 31), "rwkv: sampler: there are ", rows, " sequences");
    expects(vocab > 0 && vocab <= (Index{1} << 30), "rwkv: sampler: there are ", vocab, " logits");
    held_ = std::make_shared<Held>(be, rows, vocab);
    int bits = 62;
    for (Index tokens = 1; tokens < vocab; tokens *= 2) --bits;
    memory_ = {.counts = held_->counts,
               .draws = held_->draws,
               .faults = held_->faults.numbers().data(),
               .mass_of = std::uint64_t{1} << (bits < 46 ? bits : 46)};
    held_->be.fill(matrix(memory_.draws, 1, rows), std::uint64_t{0});
    reset();
  }
  /// For the sequences of a Context.
  template <class Sequences>
  requires requires(const Sequences& s) { s.runs_on(), s.capacity(), s.vocab(); }
  explicit CudaSampler(const Sequences& context)
      : CudaSampler(context.runs_on(), context.capacity(), context.vocab()) {}

  /// The options of a sequence, from the next call on.
  /// Errors    options out of range; the old ones stay
  void set(Index row, const CudaSampling& options) {
    check_row(row);
    expects(is_finite(options.temperature) && options.temperature >= 0,
            "rwkv: sampler: the temperature must be finite and at least 0, not ", options.temperature);
    expects(options.top_k >= 0, "rwkv: sampler: top_k must be at least 0, not ", options.top_k);
    expects(is_between(options.top_p, 0, 1), "rwkv: sampler: top_p must be between 0 and 1, not ", options.top_p);
    expects(is_finite(options.presence_penalty), "rwkv: sampler: the presence penalty must be finite, not ",
            options.presence_penalty);
    expects(is_finite(options.frequency_penalty), "rwkv: sampler: the frequency penalty must be finite, not ",
            options.frequency_penalty);
    expects(is_between(options.penalty_decay, 0, 1), "rwkv: sampler: the penalty decay must be between 0 and 1, not ",
            options.penalty_decay);
    held().be.sync();  // a kernel may be reading them
    options_of(row) = options;
  }

  /// Queues the choice of a token for every sequence. A sequence whose logits hold a NaN or +inf, or are all -inf,
  /// keeps its token and its memory, and `check` reports it.
  /// Errors    logits of another shape; a backend other than the one of the sampler
  /// Shapes    logits: [rows or fewer, vocab]   tokens: [rows of logits], memory from allocate or allocate_host
  template <class T, Index N>
  void operator()(const B& be, Mat<T, N> logits, Token* tokens) {
    const Index got[] = {logits.rows, logits.cols}, want[] = {rows_, vocab_};
    expects(got[0] <= want[0] && got[1] == want[1], "rwkv: sampler: logits have shape ", std::span(got),
            ", which does not fit a sampler of ", std::span(want));
    expects(be.stream().handle() == held().be.stream().handle(),
            "rwkv: sampler: it was made for another backend or context");
    using Number = std::remove_const_t<T>;
    const Mat<const Number> from{logits.data, logits.rows, vocab_, logits.stride};
    be.stream().launch({.grid = dim3(static_cast<unsigned>(logits.rows)),
                        .block = dim3(gpu::sample_threads),
                        .shared_bytes = 0,
                        .early = true},
                       gpu::sample_kernel<Number>, from, static_cast<const CudaSampling*>(&options_of(0)), memory_,
                       tokens);
  }

  /// Waits for the queued work. Errors: the first sequence without a possible token since the last call
  void check() {
    held().be.sync();
    const std::span<Index> faults = held().faults.numbers();
    for (std::size_t r = 0; r < faults.size(); ++r) {
      const Index fault = std::exchange(faults[r], 0);
      if (fault == 0) continue;
      std::fill(faults.begin(), faults.end(), Index{0});
      expects(fault <= vocab_, "rwkv: sampler: all ", vocab_, " logits of sequence ", r,
              " are -inf, so no token is possible");
      fail("rwkv: sampler: logit ", fault - 1, " of sequence ", r,
           " is not a number or +inf; it must be finite or -inf");
    }
  }

  /// The tokens from `first` up to and without `last` are never drawn again, whatever their logits: those that a
  /// vocabulary lacks, see Tokenizer::missing. Queued; recorded draws obey too.
  /// Errors    a range that is empty or not inside the vocabulary
  void bar(Index first, Index last) {
    expects(first >= 0 && first < last && last <= vocab_, "rwkv: sampler: tokens ", first, " to ", last,
            " cannot be barred: there are ", vocab_, " logits");
    const std::pair range(first, last);
    if (std::find(barred_.begin(), barred_.end(), range) != barred_.end()) return;
    barred_.push_back(range);
    fill_barred(0, rows_);
  }

  /// Forgets the tokens picked so far, for new texts. Random numbers go on.
  void reset() { forget(0, rows_); }
  /// The same for one sequence.
  void reset(Index row) {
    check_row(row);
    forget(row, 1);
  }

  /// Sequence `to` becomes a copy of `from`: options, tokens picked and random numbers. After Context::remove(to),
  /// `from` is the sequence that was the last of the context.
  void copy(Index from, Index to) {
    check_row(from);
    check_row(to);
    if (from == to) return;
    held().be.copy(counts_of(from), counts_of(to));
    held().be.copy(matrix(memory_.draws + from, 1, 1), matrix(memory_.draws + to, 1, 1));
    held().be.sync();
    options_of(to) = options_of(from);
  }

  /// Owns the memory that queued calls use; a recording of them must keep it.
  std::shared_ptr<const void> owner() const { return held_; }

 private:
  struct Held {
    B be;
    Exchange<Index, B> faults;
    Exchange<CudaSampling, B> options;
    double* counts;        // [rows, vocab]
    std::uint64_t* draws;  // [rows], in the same block

    Held(const B& backend, Index rows, Index vocab)
        : be(backend), faults(be, static_cast<std::size_t>(rows)), options(be, static_cast<std::size_t>(rows)),
          counts(be.template allocate<double>(rows * vocab + rows)),
          draws(reinterpret_cast<std::uint64_t*>(counts + rows * vocab)) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { be.free(counts); }
  };

  Held& held() const {
    expects(held_ != nullptr, "rwkv: sampler: it was moved from");
    return *held_;
  }
  void check_row(Index row) const {
    expects(row >= 0 && row < rows_, "rwkv: sampler: there is no sequence ", row, " among ", rows_);
  }
  CudaSampling& options_of(Index row) { return held().options.numbers()[static_cast<std::size_t>(row)]; }
  Mat<double> counts_of(Index row) const { return matrix(memory_.counts + row * vocab_, 1, vocab_); }
  void forget(Index row, Index rows) {
    held().be.fill(matrix(memory_.counts + row * vocab_, rows, vocab_), gpu::SampleMemory::never);
    fill_barred(row, rows);
  }
  void fill_barred(Index row, Index rows) {
    for (const auto& [first, last] : barred_) {
      const Mat<double> counts{memory_.counts + row * vocab_ + first, rows, last - first, vocab_};
      held().be.fill(counts, gpu::SampleMemory::barred);
    }
  }

  Index rows_, vocab_;
  std::shared_ptr<Held> held_;
  gpu::SampleMemory memory_{};
  std::vector<std::pair<Index, Index>> barred_;  // ranges [first, last)
};

/// Of the backend of a Context.
template <class Sequences>
CudaSampler(const Sequences& context) -> CudaSampler<std::remove_cvref_t<decltype(context.runs_on())>>;

}  // namespace RWKV_CUDA_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
