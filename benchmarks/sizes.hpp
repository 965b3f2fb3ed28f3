#pragma once
/// Sizes from the command line, for programs whose rows are not at fixed ones.
#include <benchmark/benchmark.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "rwkv/core/extent.hpp"

namespace bench {

using rwkv::Index;

struct Sizes {
  std::vector<Index> widths, times;
  bool given = false;  ///< whether the command line said any
};

/// Takes `--width N` and `--time N` out of the arguments, in the place of what is usual.
inline Sizes sizes_from(int& argc, char** argv, Sizes usual) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name != "--width" && name != "--time") {
      argv[kept++] = argv[i];
      continue;
    }
    const std::string_view digits = i + 1 < argc ? argv[++i] : "";
    Index size = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size);
    if (error != std::errc() || end != digits.data() + digits.size() || size < 1 || size > 1'000'000) {
      std::fprintf(stderr, "%s takes a number from 1 to 1000000\n", name.data());
      std::exit(2);
    }
    (name == "--width" ? usual.widths : usual.times) = {size};
    usual.given = true;
  }
  argc = kept;
  return usual;
}

/// What the main function of Google Benchmark does.
inline int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
