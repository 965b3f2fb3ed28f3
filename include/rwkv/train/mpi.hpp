#pragma once
/// Ranks that are processes of MPI, through its C interface. Include this header only where MPI is installed; the CMake
/// component rwkv::mpi finds it.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstddef>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include "rwkv/core/error.hpp"
#include "rwkv/train/communicator.hpp"
#include "rwkv/train/data_parallel.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

/// A rank that is a process of MPI. The program initialises MPI, by MPI_Init_thread with at least
/// MPI_THREAD_FUNNELED, and finalises it; the library does neither. All verbs are called from one thread. When a verb has
/// thrown, messages may still arrive in the memory it was given, so the program calls abort() before it frees that.
class MpiComm {
 public:
  /// A time to wait.
  using Seconds = std::chrono::duration<double>;

  /// Works on a duplicate of `comm`, so that messages of the program and of the library are never taken for each other.
  /// Called by all ranks of `comm`. A verb waits for the other ranks without using a core, up to `patience`, if that is
  /// above zero; choose one that is far above the time between two verbs of the slowest rank.
  ///
  /// Errors    MPI is not initialised, or finalised
  explicit MpiComm(MPI_Comm comm = MPI_COMM_WORLD, Seconds patience = Seconds(0)) : patience_(patience) {
    int initialised = 0, finalised = 0;
    MPI_Initialized(&initialised);
    expects(initialised != 0, "rwkv: MPI is not initialised; call MPI_Init_thread before making an MpiComm");
    MPI_Finalized(&finalised);
    expects(finalised == 0, "rwkv: MPI is finalised already; make and use an MpiComm before MPI_Finalize");
    comm_ = std::make_shared<Owned>();
    check(MPI_Comm_dup(comm, &comm_->comm), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(handle(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(handle(), &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(handle(), &size_), "MPI_Comm_size");
    comm_->counts.resize(static_cast<std::size_t>(size_));
    comm_->starts.resize(static_cast<std::size_t>(size_));
    comm_->requests.reserve(2 * static_cast<std::size_t>(size_));
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  void broadcast(std::span<std::byte> bytes, int root) {
    meet();
    broadcast_now(bytes, root);
  }

  void all_gather(std::span<std::byte> all, std::span<const Index> begins) {
    meet();
    if (begins[std::size_t(size_)] > INT_MAX) {
      for (int q = 0; q < size_; ++q) broadcast_now(part_of(all, begins, q), q);
      return;
    }
    auto& counts = comm_->counts;
    auto& starts = comm_->starts;
    for (std::size_t q = 0; q < static_cast<std::size_t>(size_); ++q) {
      counts[q] = static_cast<int>(begins[q + 1] - begins[q]);
      starts[q] = static_cast<int>(begins[q]);
    }
    check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_BYTE, all.data(), counts.data(), starts.data(), MPI_BYTE, handle()),
          "MPI_Allgatherv");
  }

  void all_to_all(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) {
    meet();
    const auto me = static_cast<std::size_t>(rank_);
    std::copy(to[me].begin(), to[me].end(), from[me].begin());
    auto& requests = comm_->requests;
    requests.clear();
    for (int d = 1; d < size_; ++d) {  // each begins with its neighbour
      const int source = (rank_ - d + size_) % size_;
      const auto bytes = from[static_cast<std::size_t>(source)];
      for_each_piece(bytes, [&](std::byte* piece, int count) {
        check(MPI_Irecv(piece, count, MPI_BYTE, source, 0, handle(), &requests.emplace_back()), "MPI_Irecv");
      });
    }
    for (int d = 1; d < size_; ++d) {
      const int target = (rank_ + d) % size_;
      for_each_piece(to[static_cast<std::size_t>(target)], [&](const std::byte* piece, int count) {
        check(MPI_Isend(piece, count, MPI_BYTE, target, 0, handle(), &requests.emplace_back()), "MPI_Isend");
      });
    }
    check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  }

  template <class T>
  void all_reduce(std::span<T> numbers) {
    meet();
    for_each_piece(numbers, [&](T* piece, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, piece, count, type<T>(), MPI_SUM, handle()), "MPI_Allreduce");
    });
  }

  /// By MPI_Allreduce: MPI_Reduce_scatter of Open MPI 4.1 takes longer than that (benchmarks/results).
  template <class T>
  void reduce_scatter(std::span<T> all, std::span<const Index>) {
    all_reduce(all);
  }

  [[noreturn]] void abort(std::string_view sentence) {
    std::cerr << join(sentence, '\n') << std::flush;  // in one piece, beside what others write
    MPI_Abort(handle(), 1);
    std::abort();
  }

 private:
  /// Freed with its last user, unless MPI has been finalised before.
  struct Owned {
    MPI_Comm comm = MPI_COMM_NULL;
    std::vector<int> counts, starts;  // of the parts of all ranks; a verb takes no memory
    std::vector<MPI_Request> requests;

    Owned() = default;
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() {
      int finalised = 0;
      MPI_Finalized(&finalised);
      if (finalised == 0 && comm != MPI_COMM_NULL) MPI_Comm_free(&comm);
    }
  };

  template <class T>
  static MPI_Datatype type() {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "rwkv: MPI adds float and double");
    return std::is_same_v<T, float> ? MPI_FLOAT : MPI_DOUBLE;
  }

  MPI_Comm handle() const { return comm_->comm; }

  void check(int code, const char* call) const {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    const std::string who = size_ == 0 ? std::string() : join("rank ", rank_, " of ", size_, ": ");
    fail("rwkv: ", who, call, ": ", static_cast<const char*>(text));
  }

  /// Waits until all ranks are here. The collectives of MPI would wait as well, and keep a core busy.
  void meet() {
    int finalised = 0;
    MPI_Finalized(&finalised);
    expects(finalised == 0, "rwkv: MPI is finalised already; make and use an MpiComm before MPI_Finalize");
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibarrier(handle(), &request), "MPI_Ibarrier");
    const auto begun = std::chrono::steady_clock::now();
    for (int tests = 0;; ++tests) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done != 0) return;
      if (tests < 1000) continue;
      const Seconds waited = std::chrono::steady_clock::now() - begun;
      expects(patience_ <= Seconds(0) || waited < patience_, "rwkv: rank ", rank_, " of ", size_, " has waited ",
              static_cast<Index>(waited.count()), " s for the others; one of them may have ended");
      if (waited < Seconds(1e-3)) std::this_thread::yield();
      else std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  void broadcast_now(std::span<std::byte> bytes, int root) {
    for_each_piece(bytes, [&](std::byte* piece, int count) {
      check(MPI_Bcast(piece, count, MPI_BYTE, root, handle()), "MPI_Bcast");
    });
  }

  /// MPI counts in int.
  template <class T, class Call>
  static void for_each_piece(std::span<T> all, const Call& call) {
    constexpr std::size_t most = std::size_t{1} << 28;
    for (std::size_t begin = 0; begin < all.size(); begin += most) {
      call(all.data() + begin, static_cast<int>(std::min(most, all.size() - begin)));
    }
  }

  template <class T>
  static std::span<T> part_of(std::span<T> all, std::span<const Index> begins, int q) {
    const auto begin = static_cast<std::size_t>(begins[std::size_t(q)]);
    return all.subspan(begin, static_cast<std::size_t>(begins[std::size_t(q) + 1]) - begin);
  }

  std::shared_ptr<Owned> comm_;
  Seconds patience_;
  int rank_ = 0, size_ = 0;  // 0 ranks until MPI has said how many
};
static_assert(Communicator<MpiComm>);

}  // namespace RWKV_ABI
}  // namespace rwkv
