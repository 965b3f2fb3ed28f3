#pragma once
/// The initial parameters of a model for training.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

#include "rwkv/backend/transfer.hpp"
#include "rwkv/core/error.hpp"
#include "rwkv/core/fields.hpp"
#include "rwkv/core/number.hpp"
#include "rwkv/core/random.hpp"
#include "rwkv/core/transpose.hpp"

namespace rwkv {
inline namespace RWKV_ABI {

namespace detail {

/// Uniform in [-bound, bound).
inline void fill_uniform(const Philox& source, double bound, std::span<double> numbers) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = bound * (2 * source.block(i / 2).uniform_double(static_cast<int>(i % 2)) - 1);
  }
}

/// Standard normal numbers, two from each block of the source starting at `block` (Box and Muller, 1958). The first of
/// them is never zero.
inline void fill_normal(const Philox& source, std::uint64_t block, std::span<double> numbers) {
  for (std::size_t i = 0; i < numbers.size(); i += 2) {
    const Philox::Block uniform = source.block(block + i / 2);
    const double radius = std::sqrt(-2 * std::log(std::max(uniform.uniform_double(0), 0x1p-54)));
    const double angle = 2 * std::numbers::pi * uniform.uniform_double(1);
    numbers[i] = radius * std::cos(angle);
    if (i + 1 < numbers.size()) numbers[i + 1] = radius * std::sin(angle);
  }
}

/// sum_i a_i b_i, in eight independent partial sums.
inline double dot(const double* a, const double* b, Index size) {
  double sums[8] = {};
  Index i = 0;
  for (; i + 8 <= size; i += 8) {
    for (Index lane = 0; lane < 8; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < size; ++i) sums[i % 8] += a[i] * b[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// Fills the rows of a [count, size] matrix, count <= size, with orthonormal vectors of uniform direction: what the QR
/// decomposition of a normal matrix gives, without the decomposition (Stewart, "The efficient generation of random
/// orthogonal matrices", 1980). With x_j a random unit vector that is zero in front of coordinate j, and H_k the
/// reflection that takes coordinate axis k to x_k or -x_k,
///
///     row j = H_0 H_1 ... H_{j-1} x_j
///
/// Cost      2 count^2 size - 2/3 count^3 operations
inline void fill_orthonormal(const Philox& source, Index count, Index size, double* rows) {
  const Index blocks = (size + 1) / 2;  // blocks of the source for one row
  for (Index j = 0; j < count; ++j) {
    double* const x = rows + j * size;
    std::fill(x, x + j, 0.0);
    fill_normal(source, static_cast<std::uint64_t>(j * blocks), {x + j, static_cast<std::size_t>(size - j)});
    const double scale = 1 / std::sqrt(dot(x + j, x + j, size - j));
    for (Index i = j; i < size; ++i) x[i] *= scale;
  }

  // Several reflections are applied to a row while it is in the cache. They are applied from last to first, so row k
  // still holds x_k when H_k is formed. H_k y = y - w (w . y) with w = (x_k +- e_k) / sqrt(1 + |x_kk|).
  constexpr Index together = 8;
  std::vector<double> reflections(static_cast<std::size_t>(together * size));
  for (Index end = count; end > 0; end = std::max(end - together, Index{0})) {
    const Index begin = std::max(end - together, Index{0});
    const auto w = [&](Index k) { return reflections.data() + (k - begin) * size; };
    for (Index k = begin; k < end; ++k) {
      const double* const x = rows + k * size;
      const double scale = 1 / std::sqrt(1 + std::abs(x[k]));
      for (Index i = k; i < size; ++i) w(k)[i] = scale * x[i];
      w(k)[k] += std::copysign(scale, x[k]);
    }
    for (Index j = begin + 1; j < count; ++j) {
      double* const y = rows + j * size;
      for (Index k = std::min(j, end) - 1; k >= begin; --k) {
        const double* const v = w(k);
        const double length = dot(v + k, y + k, size - k);
        for (Index i = k; i < size; ++i) y[i] -= length * v[i];
      }
    }
  }
}

/// A [rows, cols] matrix whose rows, or columns where those are fewer, are orthogonal and of length `gain`: PyTorch's
/// orthogonal_.
inline void fill_orthogonal(const Philox& source, double gain, Index rows, Index cols, std::span<double> numbers) {
  if (rows <= cols) {
    fill_orthonormal(source, rows, cols, numbers.data());
    for (double& number : numbers) number *= gain;
    return;
  }
  std::vector<double> columns(numbers.size());
  fill_orthonormal(source, cols, rows, columns.data());
  for (Index r = 0; r < rows; ++r) {
    double* const row = numbers.data() + r * cols;
    for (Index c = 0; c < cols; ++c) row[c] = gain * columns[static_cast<std::size_t>(c * rows + r)];
  }
}

}  // namespace detail

/// Computes the initial numbers of one parameter; see initialize(). They depend on the seed, the depth and the spec
/// alone.
///
/// Shapes    numbers: spec.shape.count()
/// Errors    another number of numbers; a layer outside [0, depth)
inline void initial_numbers(const TensorSpec& spec, Index depth, Seed seed, std::span<double> numbers) {
  const Index count = spec.shape.count();
  expects(std::ssize(numbers) == count, spec.name, ": a tensor of shape ", spec.shape.span(), " does not have ",
          numbers.size(), " numbers");
  expects(spec.layer >= 0 && spec.layer < depth, spec.name, ": there is no layer ", spec.layer, " among ", depth);
  if (count == 0) return;

  const Philox source{.key = seed.value, .stream = stream_of(spec.name)};
  // Drawn as files have it, where the official trainer draws it.
  const Shape shape = spec.file_shape();
  const Index cols = shape.sizes[shape.rank - 1], rows = count / cols;
  const auto [draw, a, b, number] = spec.start;
  switch (draw) {
    case Start::uniform: detail::fill_uniform(source, a, numbers); break;
    case Start::normal:
      detail::fill_normal(source, 0, numbers);
      for (double& drawn : numbers) drawn *= a;
      break;
    case Start::orthogonal: {
      const double ratio = b == 0 ? 1 : static_cast<double>(rows) / static_cast<double>(cols);
      detail::fill_orthogonal(source, a * std::sqrt(std::max(ratio, 1.0)), rows, cols, numbers);
      break;
    }
    case Start::each:
      for (Index i = 0; i < count; ++i) {
        const ChannelPlace place{i, count, spec.layer, depth, spec.head_size};
        numbers[static_cast<std::size_t>(i)] = number == nullptr ? a : number(place, a, b);
      }
      break;
  }
  if (spec.transposed) {
    const std::vector<double> drawn(numbers.begin(), numbers.end());
    const Index in = shape.sizes[shape.rank - 2];
    transpose_matrices(std::as_bytes(std::span(drawn)).data(), sizeof(double), in, cols,
                       std::as_writable_bytes(numbers));
  }
}

/// Initialises every parameter of a model as its table says, which for official blocks is as the official trainer does
/// (BlinkDL/RWKV-LM):
///
///     embedding   uniform in [-1e-4, 1e-4)
///     head        orthogonal, gain 0.5 sqrt(max(V/C, 1)); V rows, C columns
///     matrix      orthogonal, or zeros; low-rank factors as well, or uniform
///     norms       scales 1, shifts 0
///     vectors     functions of channel and layer, which stand beside the blocks
///
/// Orthogonal of gain g: the rows, or the columns where those are fewer, are orthogonal and of length g. Everything is
/// computed in double and rounded at the end, and the random numbers of a tensor follow from the seed and its name. So
/// a seed gives the same start whatever the scalar, the backend and the other tensors.
///
/// `change(TensorSpec&)` may give parameters another `start` than their table does; it changes nothing else.
///
/// Errors    a model that is not bound to memory
/// Cost      2 n^2 m operations for an n x m matrix, n <= m; 16 bytes of memory for each number of the largest tensor
template <class Net, class Change>
void initialize(Net& net, Seed seed, const Change& change) {
  std::vector<double> numbers;
  auto backend = net.device();
  for (const auto& parameter : net.parameters()) {
    expects(parameter.data != nullptr, parameter.name, ": the parameter is not bound to memory");
    const auto to = parameter.numbers();
    numbers.resize(to.size());
    TensorSpec spec = parameter;
    change(spec);
    initial_numbers(spec, net.sizes().depth, seed, numbers);
    write_numbers(backend, to, [&](std::size_t i) { return narrow<typename Net::storage>(numbers[i]); });
  }
}
/// Starts every parameter as its row says, from the random numbers of the seed; the same for any backend.
template <class Net>
void initialize(Net& net, Seed seed) {
  initialize(net, seed, [](TensorSpec&) {});
}

}  // namespace RWKV_ABI
}  // namespace rwkv
