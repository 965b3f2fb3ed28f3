/// What data-parallel training costs: `mpirun -n RANKS bench_ranks THREADS [STEPS]`. Times whole steps of RWKV-4, ways to add
/// up the gradients in turn, and what ranks exchange in one. On one rank also a process alone.
#include <rwkv/train/mpi.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../limits.hpp"
#include "../model/training_work.hpp"

namespace {

using bench::Index;
using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

struct Way {
  std::string name;
  std::function<void()> step;
  std::vector<double> seconds{};
};

template <class Comm>
Way training(const std::string& name, const bench::TrainingShape& shape, int threads, Comm comm,
             const rwkv::Sharing& sharing) {
  struct Run {
    Net net;
    rwkv::Trainer<Net, rwkv::Keep, Comm> trainer;
    rwkv::Batch batch;
    Run(const bench::TrainingShape& s, int n, Comm c, const rwkv::Sharing& how)
        : net(bench::training_model<rwkv::V4>(s, rwkv::Cpu(n))), trainer(net, bench::training_options(s), c, how),
          batch(bench::training_batch(s)) {}
  };
  const auto run = std::make_shared<Run>(shape, threads, comm, sharing);
  return {name, [run] { run->trainer.step(run->batch); }};
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1, repetitions = argc > 2 ? std::atoi(argv[2]) : 5;
    rwkv::MpiComm comm;
    const int ranks = comm.size();
    const auto& shape = bench::training_shapes[0];
    std::vector<Way> ways;
    if (ranks == 1) ways.push_back(training("alone", shape, threads, rwkv::SelfComm(), {}));
    for (const Index grain : {1, 2, 4}) {
      if (shape.batch % (grain * ranks) != 0) continue;
      ways.push_back(training("tree, grains of " + std::to_string(grain), shape, threads, comm, {.grain = grain}));
    }
    ways.push_back(training("any order", shape, threads, comm, {.sum = rwkv::GradientSum::any_order}));
    const std::size_t steps = ways.size();

    // What is exchanged, without the rest: gradients out, parameters back.
    const auto count = static_cast<std::size_t>(bench::training_model<rwkv::V4>(shape, rwkv::Cpu(1)).parameter_count());
    std::vector<float> numbers(count, 1.0f), own(count), received;
    std::vector<Index> begins, bytes;
    std::vector<int> counts;
    for (Index q = 0; q <= ranks; ++q) {
      if (q > 0) counts.push_back(static_cast<int>(q * static_cast<Index>(count) / ranks - begins.back()));
      begins.push_back(q * static_cast<Index>(count) / ranks);
      bytes.push_back(begins.back() * Index{sizeof(float)});
    }
    const auto back = [&] { comm.all_gather(std::as_writable_bytes(std::span(numbers)), bytes); };
    ways.push_back({"exchange: tree of ranks, all_gather", [&] {
                      float* const sums[] = {numbers.data()};
                      rwkv::TreeReduction<float>(comm, rwkv::SumTree{ranks}, begins, received)
                          .run(comm, sums, [](float* a, const float* b, Index n) {
                            for (Index i = 0; i < n; ++i) a[i] += b[i];
                          });
                      back();
                    }});
    ways.push_back({"exchange: MPI_Reduce_scatter, all_gather", [&] {
                      MPI_Reduce_scatter(numbers.data(), own.data(), counts.data(), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
                      back();
                    }});
    ways.push_back({"exchange: MPI_Allreduce", [&] { comm.all_reduce(std::span(numbers)); }});

    for (Way& way : ways) way.step();  // warms up
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      for (Way& way : ways) {
        MPI_Barrier(MPI_COMM_WORLD);
        const auto begun = bench::Clock::now();
        way.step();
        MPI_Barrier(MPI_COMM_WORLD);
        way.seconds.push_back(bench::seconds_since(begun));
        std::fill(numbers.begin(), numbers.end(), 1.0f);
      }
    }
    if (comm.rank() == 0) {
      std::printf(
          "%s, %d ranks of %d threads, %zu parameters, %d repetitions, medians\n\n| | ms | tokens/s |\n| --- | --- | --- |\n",
          shape.name, ranks, threads, count, repetitions);
      for (std::size_t i = 0; i < ways.size(); ++i) {
        const double seconds = bench::median(ways[i].seconds);
        if (i < steps)
          std::printf("| step, %s | %.1f | %.0f |\n", ways[i].name.c_str(), 1e3 * seconds, shape.tokens() / seconds);
        else std::printf("| %s | %.1f | |\n", ways[i].name.c_str(), 1e3 * seconds);
      }
    }
  }
  MPI_Finalize();
}
