/// The products of official models and of small ones on one thread beside Eigen's: y = x w^T with w [outputs, inputs], at T
/// rows of x, and the two products of its backward pass, dx = dy w and dw = dy^T x. Medians of interleaved rounds, as Markdown
/// tables.
///
///     bench_beside_eigen [ROUNDS] [MOST ROWS] [OUTPUTSxINPUTS]
///
/// Matrices of a megabyte and more are cold, as in a model: they rotate over a pool far larger than the caches of a core.
#include "eigen.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "../limits.hpp"
#include "rwkv/backend/cpu.hpp"

namespace {

using bench::Index;

struct Shape {
  Index outputs, inputs;
};
constexpr Shape shapes[] = {{64, 64},     {768, 64},    {100, 77},   {128, 128},   {512, 512},
                            {768, 768},   {3072, 768},  {768, 3072}, {1024, 1024}, {2048, 2048},
                            {8192, 2048}, {2048, 8192}, {50277, 768}};
constexpr Index times[] = {1, 4, 16, 32, 64, 128, 256, 512};
constexpr Index pool_size = Index{48} << 20;  // numbers; 192 MB

enum class Kind { forward, back_to_x, back_to_w };

/// Seconds of the processor for one call, of as many as take half a millisecond: other programs disturb them less than a clock.
template <class Call>
double seconds_of(const Call& call) {
  for (int calls = 1;; calls *= 2) {
    const std::clock_t start = std::clock();
    for (int i = 0; i < calls; ++i) call();
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 5e-4) return seconds / calls;
  }
}

/// The median of Eigen's time over the library's, and the library's GFLOP/s.
template <class Library, class Eigens>
void cell(const Library& library, const Eigens& eigen, double flops, int rounds) {
  library(), eigen();
  std::vector<double> ratios, seconds;
  const auto start = bench::Clock::now();
  for (int round = 0; round < rounds && (round < 3 || bench::seconds_since(start) < 0.1); ++round) {
    seconds.push_back(seconds_of(library));
    ratios.push_back(seconds_of(eigen) / seconds.back());
  }
  std::printf(" %.2f (%.0f) |", bench::median(ratios), flops / bench::median(seconds) * 1e-9);
  std::fflush(stdout);
}

void row(Kind kind, const Shape& shape, const bench::HugePages& pool, int rounds, Index most) {
  rwkv::Cpu cpu(1);
  const Index outputs = shape.outputs, inputs = shape.inputs;
  const Index size = outputs * inputs, copies = size * Index{sizeof(float)} < (1 << 20) ? 1 : pool_size / size;
  std::printf("| %dx%d |", static_cast<int>(outputs), static_cast<int>(inputs));
  for (const Index time : times) {
    // Prefill computes the head for its last token only.
    if (time > most || (outputs > 50'000 && kind == Kind::forward && time > 16)) {
      std::printf(" |");
      continue;
    }
    std::vector<float> x(static_cast<std::size_t>(time * inputs), 0.5f),
        y(static_cast<std::size_t>(time * outputs), 0.5f);
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<Matrix> eigen_x(x.data(), time, inputs), eigen_y(y.data(), time, outputs);
    const auto xs = rwkv::matrix(x.data(), time, inputs), ys = rwkv::matrix(y.data(), time, outputs);
    Index nth = 0;
    const auto next = [&] { return pool.as<float>() + nth++ % copies * size; };
    const auto next_matrix = [&] { return rwkv::matrix(next(), outputs, inputs); };
    const auto next_map = [&] { return Eigen::Map<Matrix>(next(), outputs, inputs); };
    const double flops = 2 * static_cast<double>(time * size);
    switch (kind) {
      case Kind::forward:
        cell([&] { cpu.gemm(rwkv::mul(ys, xs, rwkv::transposed(next_matrix()))); },
             [&] {
               const auto w = next_map();
               if (time == 1) eigen_y.row(0).transpose().noalias() = w * eigen_x.row(0).transpose();
               else eigen_y.noalias() = eigen_x * w.transpose();
             },
             flops, rounds);
        break;
      case Kind::back_to_x:
        cell([&] { cpu.gemm(rwkv::mul(xs, ys, next_matrix())); },
             [&] {
               const auto w = next_map();
               if (time == 1) eigen_x.row(0).transpose().noalias() = w.transpose() * eigen_y.row(0).transpose();
               else eigen_x.noalias() = eigen_y * w;
             },
             flops, rounds);
        break;
      case Kind::back_to_w:
        cell([&] { cpu.gemm(rwkv::mul(next_matrix(), rwkv::transposed(ys), xs)); },
             [&] { next_map().noalias() = eigen_y.transpose() * eigen_x; }, flops, rounds);
        break;
    }
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 15;
  const Index most = argc > 2 ? std::atoi(argv[2]) : 512;
  const std::string only = argc > 3 ? argv[3] : "";
  const bench::HugePages pool(static_cast<std::size_t>(pool_size) * sizeof(float));
  std::printf("Eigen's time over the library's, and the library's GFLOP/s; packs of %d bytes\n", RWKV_SIMD_BYTES);
  for (const Kind kind : {Kind::forward, Kind::back_to_x, Kind::back_to_w}) {
    std::fill_n(pool.as<float>(), pool_size, 0.25f);
    std::printf("\n| %s, outputs x inputs |", kind == Kind::forward     ? "y = x w^T"
                                              : kind == Kind::back_to_x ? "dx = dy w"
                                                                        : "dw = dy^T x");
    for (const Index time : times) std::printf(" T = %d |", static_cast<int>(time));
    std::printf("\n| --- |");
    for (std::size_t i = 0; i < std::size(times); ++i) std::printf(" --- |");
    std::printf("\n");
    for (const Shape& shape : shapes) {
      const std::string name = std::to_string(shape.outputs) + "x" + std::to_string(shape.inputs);
      if (only.empty() || only == name) row(kind, shape, pool, rounds, most);
    }
  }
}
