// A rank of MPI for tests/tools/mpi.sh: mpi_ranks TASK [FILE]. It prints what it finds; on an error one sentence, and status 1.
#include <rwkv/ranks/pipeline.hpp>
#include <rwkv/train/checksummed.hpp>
#include <rwkv/train/mpi.hpp>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "setup.hpp"

namespace {

using namespace rwkv;
using Net = config::SmallNet<>;
constexpr Index steps = 6;

TrainerOptions options() {
  TrainerOptions options = config::small_options();
  options.shape = {.batch = 12, .length = 7};
  options.average = 0.9;
  return options;
}

/// Every verb against what it must give.
void check_verbs(auto comm) {
  const int size = comm.size(), rank = comm.rank();
  const auto at = [](int r, std::size_t i) { return static_cast<double>(100 * r) + static_cast<double>(i); };
  std::vector<Index> begins{0};
  for (int q = 0; q < size; ++q) begins.push_back(begins.back() + 3 * q);  // the first has none
  std::vector<double> all(static_cast<std::size_t>(begins.back()));
  const auto whole_sum = [&](std::size_t i) {
    double sum = 0;
    for (int q = 0; q < size; ++q) sum += at(q, i);
    return sum;
  };

  for (int root = 0; root < size; ++root) {
    std::vector<double> numbers(5);
    for (std::size_t i = 0; i < 5; ++i) numbers[i] = at(rank, i);
    comm.broadcast(std::as_writable_bytes(std::span(numbers)), root);
    for (std::size_t i = 0; i < 5; ++i) expects(numbers[i] == at(root, i), "broadcast");
  }
  std::vector<Index> bytes;
  for (const Index begin : begins) bytes.push_back(begin * Index{sizeof(double)});
  for (Index i = begins[std::size_t(rank)]; i < begins[std::size_t(rank) + 1]; ++i)
    all[std::size_t(i)] = at(rank, std::size_t(i));
  comm.all_gather(std::as_writable_bytes(std::span(all)), bytes);
  for (int q = 0; q < size; ++q) {
    for (Index i = begins[std::size_t(q)]; i < begins[std::size_t(q) + 1]; ++i) {
      expects(all[std::size_t(i)] == at(q, std::size_t(i)), "all_gather");
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = at(rank, i);
  comm.all_reduce(std::span(all));
  for (std::size_t i = 0; i < all.size(); ++i) expects(all[i] == whole_sum(i), "all_reduce");
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = at(rank, i);
  comm.reduce_scatter(std::span(all), begins);
  for (auto i = std::size_t(begins[std::size_t(rank)]); i < std::size_t(begins[std::size_t(rank) + 1]); ++i) {
    expects(all[i] == whole_sum(i), "reduce_scatter");
  }
  std::vector<std::vector<double>> sent, received;
  std::vector<std::span<const std::byte>> to;
  std::vector<std::span<std::byte>> from;
  for (int q = 0; q < size; ++q) {
    sent.emplace_back(std::size_t(q + 2 * rank), at(rank, std::size_t(q)));
    received.emplace_back(std::size_t(rank + 2 * q));
  }
  for (std::size_t q = 0; q < sent.size(); ++q) {
    to.push_back(std::as_bytes(std::span<const double>(sent[q])));
    from.push_back(std::as_writable_bytes(std::span(received[q])));
  }
  comm.all_to_all(to, from);
  for (int q = 0; q < size; ++q) {
    for (const double number : received[std::size_t(q)]) expects(number == at(q, std::size_t(rank)), "all_to_all");
  }
}

/// Prints logits of a model of five layers from a file that the first rank writes.
void run(MpiComm comm, const std::string& file) {
  const ModelSizes sizes{.vocab = 29, .width = 20, .depth = 5};
  together(comm, "models", [&] {
    if (comm.rank() == 0) save_checkpoint(config::initialized<Net>(sizes), file);
    return std::uint64_t{0};
  });
  auto pipeline = Pipeline<Net, MpiComm>::load(file, comm, {.chunk = 4});
  const auto print = [&](std::span<const float> logits) {
    for (const float logit : logits) {
      if (comm.rank() == 0) std::printf("%.9g\n", static_cast<double>(logit));
    }
  };
  std::vector<Token> prompt;
  for (Index i = 0; i < 30; ++i) prompt.push_back(static_cast<Token>(i * i % sizes.vocab));
  print(pipeline.prefill(prompt));
  for (const Token token : {3, 1, 28}) print(pipeline.step(token));
  pipeline.prefill(comm.rank() == 1 ? std::vector<Token>{29} : prompt);
}

void train(MpiComm comm, const std::string& task, const std::string& file) {
  auto net = config::initialized<Net>(config::small_sizes);
  auto own = options();
  if (task == "disagree" && comm.rank() == 1) own.optimizer.beta1 = 0.8;
  Trainer<Net, Keep, MpiComm> trainer(net, own, comm,
                                      {.sum = task == "any-order" ? GradientSum::any_order : GradientSum::tree});
  if (task == "resume") trainer.resume(file);
  const auto text = config::made_up_text(900, config::small_sizes.vocab);
  const Index end = task == "half" ? steps / 2 : task == "killed" ? 1000000 : steps;
  for (Batch batch; trainer.steps() < end;) {
    ContiguousStreams(text, options().shape).fill(trainer.steps(), batch);
    const double loss = trainer.step(batch);
    if (comm.rank() == 0 && task != "killed") std::printf("%td %.17g\n", trainer.steps(), loss);
    if (task == "killed") {
      trainer.save(file);
      if (trainer.steps() == 5 && comm.rank() == 1) std::raise(SIGKILL);
    }
  }
  trainer.save(file);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string task = argc > 1 ? argv[1] : "", file = argc > 2 ? argv[2] : "";
  int status = 0;
  try {
    if (task == "not-initialised") static_cast<void>(MpiComm());
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    if (task == "verbs") {
      check_verbs(MpiComm());
      check_verbs(Checksummed<MpiComm>(MpiComm()));
    } else if (task == "patience") {  // the last rank never comes
      MpiComm comm(MPI_COMM_WORLD, std::chrono::seconds(1));
      if (comm.rank() + 1 < comm.size()) comm.broadcast({}, 0);
      else std::this_thread::sleep_for(std::chrono::seconds(20));
    } else if (task == "abort") {
      MpiComm comm;
      if (comm.rank() == 1) comm.abort("rank 1 has had enough");
      comm.broadcast({}, 0);
    } else if (task == "finalised") {
      MpiComm comm;
      MPI_Finalize();
      comm.broadcast({}, 0);
    } else if (task == "pipeline") {
      run(MpiComm(), file);
    } else {
      train(MpiComm(), task, file);
    }
  } catch (const Error& error) {
    std::cerr << join(error.what(), '\n') << std::flush;  // in one piece, beside what others write
    status = 1;
    if (task == "patience") MPI_Abort(MPI_COMM_WORLD, 1);
  }
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised != 0 && finalised == 0) MPI_Finalize();
  return status;
}
