/// The products of official models and of small ones, y = x w^T with w [outputs, inputs], at T rows of x, on one thread
/// beside Eigen's: medians of interleaved rounds, as a Markdown table.
///
///     bench_beside_eigen [ROUNDS] [MOST ROWS]
///
/// Matrices of a megabyte and more are cold, as in a model: they rotate over a pool far larger than the caches of a core.
#include "eigen.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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

/// Seconds of one call, of as many as take half a millisecond.
template <class Call>
double seconds_of(const Call& call) {
  const auto start = bench::Clock::now();
  for (int calls = 1;; ++calls) {
    call();
    if (const double seconds = bench::seconds_since(start); seconds > 5e-4) return seconds / calls;
  }
}

void row(const Shape& shape, const bench::HugePages& pool, int rounds, Index most) {
  rwkv::Cpu cpu(1);
  const Index outputs = shape.outputs, inputs = shape.inputs;
  const Index size = outputs * inputs, copies = size * Index{sizeof(float)} < (1 << 20) ? 1 : pool_size / size;
  std::printf("| %dx%d |", static_cast<int>(outputs), static_cast<int>(inputs));
  for (const Index time : times) {
    if (time > most || (outputs > 50'000 && time > 16)) {  // prefill computes the head for its last token only
      std::printf(" |");
      continue;
    }
    std::vector<float> x(static_cast<std::size_t>(time * inputs), 0.5f), y(static_cast<std::size_t>(time * outputs));
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Matrix> eigen_x(x.data(), time, inputs);
    Eigen::Map<Matrix> eigen_y(y.data(), time, outputs);
    Index nth = 0;
    const auto next = [&] { return pool.as<const float>() + nth++ % copies * size; };
    const auto library = [&] {
      cpu.gemm(rwkv::mul(rwkv::matrix(y.data(), time, outputs),
                         rwkv::matrix(static_cast<const float*>(x.data()), time, inputs),
                         rwkv::transposed(rwkv::matrix(next(), outputs, inputs))));
    };
    const auto eigen = [&] {
      const Eigen::Map<const Matrix> w(next(), outputs, inputs);
      if (time == 1) eigen_y.row(0).transpose().noalias() = w * eigen_x.row(0).transpose();
      else eigen_y.noalias() = eigen_x * w.transpose();
    };
    library(), eigen();
    std::vector<double> ratios, seconds;
    const auto start = bench::Clock::now();
    for (int round = 0; round < rounds && (round < 3 || bench::seconds_since(start) < 0.1); ++round) {
      seconds.push_back(seconds_of(library));
      ratios.push_back(seconds_of(eigen) / seconds.back());
    }
    const double flops = 2 * static_cast<double>(time * size) / bench::median(seconds);
    std::printf(" %.2f (%.0f) |", bench::median(ratios), flops * 1e-9);
    std::fflush(stdout);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 15;
  const Index most = argc > 2 ? std::atoi(argv[2]) : 512;
  const bench::HugePages pool(static_cast<std::size_t>(pool_size) * sizeof(float));
  std::fill_n(pool.as<float>(), pool_size, 0.25f);
  std::printf("Eigen's time over the library's, and the library's GFLOP/s; packs of %d bytes\n\n| outputs x inputs |",
              RWKV_SIMD_BYTES);
  for (const Index time : times) std::printf(" T = %d |", static_cast<int>(time));
  std::printf("\n| --- |");
  for (std::size_t i = 0; i < std::size(times); ++i) std::printf(" --- |");
  std::printf("\n");
  for (const Shape& shape : shapes) row(shape, pool, rounds, most);
}
