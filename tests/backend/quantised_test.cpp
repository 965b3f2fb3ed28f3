/// Products with quantised weights on the CPU: the bits of what quantised.hpp says, and close to the exact products of the
/// reference backend.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <cmath>
#include <cstring>
#include <numeric>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

/// Blocks of random bits, with scales and offsets as in weights.
template <class Block>
std::vector<Block> random_blocks(Index numbers, std::uint64_t seed) {
  std::vector<Block> blocks(static_cast<std::size_t>(numbers / Block::length));
  const Philox random{.key = seed};
  std::uint64_t counter = 0;
  for (Block& block : blocks) {
    auto* bytes = reinterpret_cast<unsigned char*>(&block);
    for (std::size_t i = 0; i < sizeof(Block); ++i) {
      bytes[i] = static_cast<unsigned char>(random.block(counter++).uniform_double(0) * 256);
    }
    block.unit = f16(static_cast<float>(random.block(counter++).uniform_double(0) + 0.5) / 64);
    if constexpr (requires { block.least; }) block.least = f16(-0.3f * static_cast<float>(block.unit));
    if constexpr (requires { block.offset_unit; }) block.offset_unit = f16(0.01f);
  }
  return blocks;
}

std::vector<float> random_numbers(Index count, std::uint64_t seed) {
  std::vector<float> x;
  for (Index i = 0; i < count; ++i) {
    const auto block = Philox{.key = seed}.block(static_cast<std::uint64_t>(i));
    x.push_back(static_cast<float>((block.uniform_double(0) - 0.5) * std::exp(4 * block.uniform_double(1))));
  }
  return x;
}

/// One output as quantised.hpp defines it.
template <class Block>
float dot_by_definition(const float* x, const Block* w, Index count) {
  float total = 0;
  for (Index stretch = 0; stretch < count; stretch += 1024) {
    float lanes[16] = {};
    const auto add = [&](Index lane, float a, float b) {  // with the rounding of the target
      float sums[16];
      multiply_add(Widest<float>(a), Widest<float>(b), Widest<float>(lanes[lane])).store(sums);
      lanes[lane] = sums[0];
    };
    const auto each_run = [&](const auto& visit) {  // visit(first number, scale, levels of the activations)
      for (Index run = stretch; run < std::min(count, stretch + 1024); run += 32) {
        float most = 0;
        for (Index i = run; i < run + 32; ++i) most = std::max(most, std::abs(x[i]));
        const float inverse = most > 0 ? 127 / most : 0;
        int levels[32];
        for (Index i = 0; i < 32; ++i) levels[i] = static_cast<int>(std::nearbyint(x[run + i] * inverse));
        visit(run, most / 127, levels);
      }
    };
    each_run([&](Index run, float scale, const int(&levels)[32]) {
      const Block& block = w[run / Block::length];
      for (int four = 0; four < 32; four += 4) {
        const int first = static_cast<int>(run % Block::length) + four;
        int products = 0;
        for (int j = 0; j < 4; ++j) products += levels[four + j] * block.level(first + j);
        add((run - stretch + four) % 64 / 4, static_cast<float>(products), block.scale(first / Block::group) * scale);
      }
    });
    if constexpr (Block::has_offset) {
      each_run([&](Index run, float scale, const int(&levels)[32]) {
        const auto sum = static_cast<float>(std::accumulate(levels, levels + 32, 0));
        const int group = static_cast<int>(run % Block::length) / Block::group;
        add((run - stretch) / 32 % 16, w[run / Block::length].offset(group), scale * sum);
      });
    }
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    total = stretch == 0 ? lanes[0] : total + lanes[0];
  }
  return total;
}

/// How far that may be from the exact product: half a level of every activation, and what floats round.
template <class Block>
double error_bound(const float* x, const Block* w, Index count) {
  double bound = 0;
  for (Index run = 0; run < count; run += 32) {
    double most = 0;
    for (Index i = run; i < run + 32; ++i) most = std::max(most, std::abs(static_cast<double>(x[i])));
    float numbers[Block::length];
    dequantise(w[run / Block::length], numbers);
    for (Index i = run; i < run + 32; ++i) {
      bound += std::abs(static_cast<double>(numbers[i % Block::length])) * most / 254 * 1.01;
    }
  }
  return bound;
}

template <class Block>
const Block* row_of(const std::vector<Block>& blocks, Index row, Index inputs) {
  return blocks.data() + row * inputs / Block::length;
}

template <class Block>
StoredMat stored(const std::vector<Block>& blocks, Index outputs, Index inputs) {
  return {blocks.data(), Block::dtype, outputs, inputs, inputs};
}

}  // namespace

TEST_CASE_TEMPLATE("products with quantised weights are what they are defined to be", Block, Q4_0, Q4_1, Q5_0, Q5_1,
                   Q8_0, Q4_K, Q5_K, Q6_K) {
  for (const Index inputs : {32, 64, 96, 768, 1056, 9216}) {
    if (inputs % Block::length != 0) continue;
    for (const Index outputs : {1, 2, 5, 133, 200}) {
      for (const Index rows : {1, 2, 3, 4, 5, 17, 33}) {
        if (rows * outputs * inputs > 60'000) continue;
        const auto w = random_blocks<Block>(outputs * inputs, 1);
        Buffer<float> x(0), y(rows * outputs), again(rows * outputs), more(rows * outputs);
        x.numbers = random_numbers(rows * inputs, 2);
        const auto product = [&](Buffer<float>& to) {
          return mul(to.mat(rows, outputs), x.mat(rows, inputs), transposed(stored(w, outputs, inputs)));
        };
        Cpu(1).gemm(product(y));
        Cpu(2).gemm(product(again));
        Cpu(3).gemm(product(more));
        CAPTURE(inputs);
        CAPTURE(outputs);
        CAPTURE(rows);
        REQUIRE(again.numbers == y.numbers);
        REQUIRE(more.numbers == y.numbers);
        Buffer<float> want(rows * outputs);
        for (Index i = 0; i < rows * outputs; ++i) {
          want[i] = dot_by_definition(&x[i / outputs * inputs], row_of(w, i % outputs, inputs), inputs);
        }
        REQUIRE(y.numbers == want.numbers);
        Buffer<double> exact_x(0), exact(rows * outputs);
        exact_x.numbers.assign(x.numbers.begin(), x.numbers.end());
        Reference().gemm(mul(exact.mat(rows, outputs), exact_x.mat(rows, inputs),
                             transposed(stored(w, outputs, inputs)), Identity{}));
        double worst = 0;  // as a part of what it may be
        for (Index i = 0; i < rows * outputs; ++i) {
          const double bound = error_bound(&x[i / outputs * inputs], row_of(w, i % outputs, inputs), inputs);
          worst = std::max(worst, std::abs(y[i] - exact[i]) / bound);
        }
        REQUIRE(worst <= 1);
        Buffer<double> double_y(rows * outputs);
        Cpu(2).gemm(
            mul(double_y.mat(rows, outputs), exact_x.mat(rows, inputs), transposed(stored(w, outputs, inputs))));
        REQUIRE(golden::relative_error(double_y.numbers, exact.numbers) < 1e-13);
      }
    }
  }
}

TEST_CASE("a quantised product's result does not depend on how many rows it has") {
  const Index rows = 37, outputs = 197, inputs = 1056;
  const auto w = random_blocks<Q4_0>(outputs * inputs, 8);
  Buffer<float> x(0), all(rows * outputs), one(rows * outputs);
  x.numbers = random_numbers(rows * inputs, 9);
  Cpu be(3);
  be.gemm(mul(all.mat(rows, outputs), x.mat(rows, inputs), transposed(stored(w, outputs, inputs))));
  for (Index r = 0; r < rows; ++r) {
    be.gemm(mul(matrix(&one[r * outputs], 1, outputs), matrix(&x[r * inputs], 1, inputs),
                transposed(stored(w, outputs, inputs))));
  }
  CHECK(all.numbers == one.numbers);
}

TEST_CASE("the reference backend multiplies with the numbers of the blocks") {
  const Index rows = 3, outputs = 4, inputs = 64;
  const auto blocks = random_blocks<Q5_1>(outputs * inputs, 3);
  Buffer<double> x(config::noise(rows * inputs, 4)), w(outputs * inputs), y(rows * outputs), want(rows * outputs);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    float numbers[32];
    dequantise(blocks[b], numbers);
    std::copy_n(numbers, 32, w.numbers.begin() + std::ptrdiff_t(32 * b));
  }
  const auto weights = stored(blocks, outputs, inputs);
  Reference().gemm(mul(y.mat(rows, outputs), x.mat(rows, inputs), transposed(weights), SquaredRelu{}));
  Reference().gemm(
      mul(want.mat(rows, outputs), x.mat(rows, inputs), transposed(w.mat(outputs, inputs)), SquaredRelu{}));
  CHECK(y.numbers == want.numbers);
}

TEST_CASE("rows of quantised tables are gathered as their numbers, and rows of them are views") {
  const Index vocab = 5, width = 96;
  const auto blocks = random_blocks<Q4_0>(vocab * width, 5);
  const StoredMat table = stored(blocks, vocab, width);
  const Token tokens[] = {4, 0, 4};
  Buffer<float> rows(3 * width), one(width);
  Cpu be;
  gather_rows(be, table, tokens, rows.mat(3, width));
  float numbers[32];
  dequantise(blocks[4 * 3 + 1], numbers);
  for (Index i = 0; i < 32; ++i) CHECK(rows[32 + i] == numbers[i]);
  const Token first[] = {0};
  gather_rows(be, rows_of(table, 4, 1), first, one.mat(1, width));
  for (Index i = 0; i < width; ++i) CHECK(one[i] == rows[i]);
}

TEST_CASE("activations that are not finite make their row NaN, tiny and zero ones zero") {
  const Index outputs = 6, inputs = 96;
  const auto blocks = random_blocks<Q8_0>(outputs * inputs, 6);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const Index rows : {1, 5}) {
    for (const float odd : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
      Buffer<float> x(0), y(rows * outputs), calm(rows * outputs);
      x.numbers = random_numbers(rows * inputs, 7);
      const auto product = [&](Buffer<float>& to) {
        return mul(to.mat(rows, outputs), x.mat(rows, inputs), transposed(stored(blocks, outputs, inputs)));
      };
      Cpu().gemm(product(calm));
      x[70] = odd;
      Cpu().gemm(product(y));
      for (Index n = 0; n < outputs; ++n) CHECK(std::isnan(y[n]));
      for (Index n = outputs; n < rows * outputs; ++n) CHECK(y[n] == calm[n]);
    }
    Buffer<float> x(rows * inputs, 1e-39f), y(rows * outputs, 1);
    Cpu().gemm(mul(y.mat(rows, outputs), x.mat(rows, inputs), transposed(stored(blocks, outputs, inputs))));
    for (const float number : y.numbers) CHECK(number == 0);
  }
}

TEST_CASE("a quantised product over an empty axis is zero, and of no rows nothing") {
  const std::vector<Q8_0> blocks(1);
  Buffer<float> x(1), y(12, 7.0f);
  Cpu(2).gemm(mul(y.mat(4, 3), x.mat(4, 0), transposed(stored(blocks, 3, 0))));
  CHECK(y.numbers == std::vector<float>(12));
  Cpu(2).gemm(mul(y.mat(0, 3), x.mat(0, 32), transposed(stored(blocks, 3, 32))));
}
