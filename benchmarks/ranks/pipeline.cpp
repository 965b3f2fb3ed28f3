/// What it costs to divide layers among ranks: `mpirun -n RANKS bench_pipeline THREADS [REPETITIONS]`. Times a step and a
/// prompt of RWKV-4 169M with random weights, in chunks of several lengths; on one rank beside a context.
#include <rwkv/ranks/pipeline.hpp>
#include <rwkv/rwkv.hpp>
#include <rwkv/train/mpi.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../limits.hpp"

namespace {

using bench::Index;
using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;

struct Way {
  std::string name;
  Index tokens;
  std::function<void()> run;
  std::vector<double> seconds{};
};

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1, repetitions = argc > 2 ? std::atoi(argv[2]) : 9;
    rwkv::MpiComm comm;
    Net net({.vocab = 50277, .width = 768, .depth = 12}, rwkv::Cpu(threads));
    rwkv::initialize(net, rwkv::Seed{1});
    const std::vector<rwkv::Token> prompt(512, 17);
    std::vector<Way> ways;
    if (comm.size() == 1) {
      const auto context = std::make_shared<rwkv::Context<Net>>(net.context());
      ways.push_back({"context, step", 1, [context] { context->step(3); }});
      ways.push_back({"context, prompt of 512", 512, [&prompt, context] { context->prefill(prompt); }});
    }
    for (const Index chunk : {32, 64, 128}) {
      const auto pipeline =
          std::make_shared<rwkv::Pipeline<Net, rwkv::MpiComm>>(net, comm, rwkv::PipelineOptions{.chunk = chunk});
      if (chunk == 32) ways.push_back({"step", 1, [pipeline] { pipeline->step(3); }});
      ways.push_back({"prompt of 512, chunks of " + std::to_string(chunk), 512,
                      [&prompt, pipeline] { pipeline->prefill(prompt); }});
    }
    for (Way& way : ways) way.run();  // warms up
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      for (Way& way : ways) {
        MPI_Barrier(MPI_COMM_WORLD);
        const auto begun = bench::Clock::now();
        way.run();
        MPI_Barrier(MPI_COMM_WORLD);
        way.seconds.push_back(bench::seconds_since(begun));
      }
    }
    if (comm.rank() == 0) {
      std::printf("%d ranks of %d threads, %d repetitions, medians\n\n| | ms | tokens/s |\n| --- | --- | --- |\n",
                  comm.size(), threads, repetitions);
      for (const Way& way : ways) {
        const double seconds = bench::median(way.seconds);
        std::printf("| %s | %.2f | %.0f |\n", way.name.c_str(), 1e3 * seconds,
                    static_cast<double>(way.tokens) / seconds);
      }
    }
  }
  MPI_Finalize();
}
