// One program for several instruction sets, which takes at the start the widest that the processor has:
//
//     levels MODEL [v2|v3|v4]
//
// computes logits by that, or by the given instruction set, and by the oldest, and prints both.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "level.hpp"

namespace {

std::string widest() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return "v4";
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") ? "v3"
                                                                                                           : "v2";
}

std::vector<float> logits(const rwkv::AnyModel& model) {
  auto context = model.context();
  const rwkv::Token prompt[] = {3, 1, 4, 1, 5};
  static_cast<void>(context.prefill(prompt));
  const auto last = context.step(9);
  return {last.begin(), last.end()};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: levels MODEL [v2|v3|v4]\n", stderr), 2;
  const std::string level = argc > 2 ? argv[2] : widest();
  try {
    const auto load = level == "v4" ? load_for_v4 : level == "v3" ? load_for_v3 : load_for_v2;
    const auto chosen = logits(load(argv[1], 2)), oldest = logits(load_for_v2(argv[1], 2));
    float difference = 0;
    for (std::size_t i = 0; i < oldest.size(); ++i) {
      difference = std::max(difference, std::abs(chosen[i] - oldest[i]) / (1 + std::abs(oldest[i])));
      std::printf("%.9g\n", static_cast<double>(oldest[i]));
    }
    std::printf("taken: %s\n", level.c_str());
    if (difference < 1e-4f) return 0;
    return std::fprintf(stderr, "the logits differ by %g\n", static_cast<double>(difference)), 1;
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
