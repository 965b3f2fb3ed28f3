/// bench_cuda: every operation of the CUDA backend against the floor that the device sets and the goal for it.
///
///     bench_cuda [--filter REGEX] [--quick] [--csv FILE] [--eager]
#include <cstring>
#include <exception>
#include <iostream>
#include <string_view>

#include "suite.cuh"

namespace {

constexpr int skipped = 77;  // as CTest and automake have it

int usage() {
  std::cerr << "usage: bench_cuda [--filter REGEX] [--quick] [--csv FILE] [--eager]\n"
               "  --filter   rows whose kernel/shape/numbers matches\n"
               "  --quick    smaller shapes, fewer rows\n"
               "  --csv      the same rows as CSV\n"
               "  --eager    launch kernel by kernel instead of replaying a recording\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") options.quick = true;
    else if (argument == "--eager") options.eager = true;
    else if (argument == "--filter" && i + 1 < argc) options.filter = argv[++i];
    else if (argument == "--csv" && i + 1 < argc) options.csv = argv[++i];
    else return usage();
  }
  try {
    int devices = 0;
    const bool none = cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0;
    static_cast<void>(cudaGetLastError());
    try {
      bench::Suite suite(rwkv::Cuda(), options);
      suite.print_device();
      bench::add_recurrences(suite);
      suite.section("Bound by memory");
      bench::add_norms(suite);
      bench::add_shifts(suite);
      bench::add_rows(suite);
      bench::add_products(suite);
      bench::add_time_scan(suite);
      bench::add_decode(suite);
      bench::add_training(suite);
      return suite.failed() ? 1 : 0;
    } catch (const rwkv::Error& error) {
      if (!none) throw;
      std::cerr << "bench_cuda: skipped: " << error.what() << '\n';
      return skipped;
    }
  } catch (const std::exception& error) {
    std::cerr << "bench_cuda: " << error.what() << '\n';
    return 1;
  }
}
