/// The products of official models, y = x w^T with w [outputs, inputs], at T rows of x. Weights are cold, as in a
/// model: they rotate over a pool far larger than any cache.
#include "eigen.hpp"

#include "../report.hpp"
#include "../synthetic.hpp"

namespace {

using bench::Index;

/// A pool of weights for every type: each 16-bit word is an ordinary number as half of a float, as bf16 and as f16, which is
/// also the scale of a quantised block.
class Pool {
 public:
  static constexpr std::size_t bytes = std::size_t{560} << 20;

  static const Pool& shared() {
    static const Pool pool;
    return pool;
  }

  /// Copy number n of a matrix.
  template <class W>
  rwkv::Mat<const W> matrix(Index n, Index rows, Index cols) const {
    const Index copies = static_cast<Index>(bytes / sizeof(W)) / (rows * cols);
    return rwkv::matrix(memory_.as<const W>() + n % copies * rows * cols, rows, cols);
  }

  /// Copy number n of something of that many bytes.
  const std::byte* at(std::size_t n, std::size_t size) const {
    return memory_.as<std::byte>() + n % (bytes / size) * size;
  }

 private:
  Pool() {
    const rwkv::Philox random{.key = 1};
    auto* words = memory_.as<std::uint32_t>();
    for (std::size_t n = 0; n < bytes / sizeof(rwkv::Philox::Block); ++n) {
      const auto block = random.block(n);
      for (std::size_t i = 0; i < 4; ++i) words[4 * n + i] = (block.words[i] & 0x87ff87ffu) | 0x30003000u;
    }
  }
  bench::HugePages memory_{bytes};
};

struct Shape {
  Index outputs, inputs;
};

template <class W>
bench::Work work_of(const Shape& shape, Index time, int threads) {
  const double weights = static_cast<double>(shape.outputs * shape.inputs);
  const double activations = static_cast<double>(time * (shape.outputs + shape.inputs));
  return {.bytes = weights * sizeof(W) + activations * sizeof(float),
          .flops = 2 * weights * static_cast<double>(time),
          .tokens = static_cast<double>(time),
          .working_set = static_cast<double>(Pool::bytes),
          .threads = threads};
}

template <class W>
void library(benchmark::State& state, Shape shape, Index time, int threads) {
  rwkv::Cpu cpu(threads);
  const auto x = bench::uniform<float>(time * shape.inputs, -1, 1, 2);
  std::vector<float> y(static_cast<std::size_t>(time * shape.outputs));
  Index n = 0;
  bench::measure(state, work_of<W>(shape, time, threads), [&] {
    const auto w = Pool::shared().matrix<W>(n++, shape.outputs, shape.inputs);
    cpu.gemm(rwkv::mul(rwkv::matrix(y.data(), time, shape.outputs), rwkv::matrix(x.data(), time, shape.inputs),
                       rwkv::transposed(w)));
  });
}

/// With quantised weights.
void quantised(benchmark::State& state, Shape shape, Index time, rwkv::DType type, int threads) {
  rwkv::Cpu cpu(threads);
  const auto x = bench::uniform<float>(time * shape.inputs, -1, 1, 2);
  std::vector<float> y(static_cast<std::size_t>(time * shape.outputs));
  const auto bytes = rwkv::bytes_of(type, static_cast<std::size_t>(shape.outputs * shape.inputs));
  bench::Work work = work_of<float>(shape, time, threads);
  work.bytes += static_cast<double>(bytes) - static_cast<double>(shape.outputs * shape.inputs) * sizeof(float);
  std::size_t n = 0;
  bench::measure(state, work, [&] {
    const rwkv::StoredMat w{Pool::shared().at(n++, bytes), type, shape.outputs, shape.inputs, shape.inputs};
    cpu.gemm(rwkv::mul(rwkv::matrix(y.data(), time, shape.outputs), rwkv::matrix(x.data(), time, shape.inputs),
                       rwkv::transposed(w)));
  });
}

/// For comparison: Eigen's product on one thread.
void eigen(benchmark::State& state, Shape shape, Index time) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto numbers = bench::uniform<float>(time * shape.inputs, -1, 1, 2);
  const Matrix x = Eigen::Map<const Matrix>(numbers.data(), time, shape.inputs);
  Matrix y(time, shape.outputs);
  Index n = 0;
  bench::measure(state, work_of<float>(shape, time, 1), [&] {
    const auto pool = Pool::shared().matrix<float>(n++, shape.outputs, shape.inputs);
    const Eigen::Map<const Matrix> w(pool.data, shape.outputs, shape.inputs);
    if (time == 1) {
      y.row(0).transpose().noalias() = w * x.row(0).transpose();
    } else {
      y.noalias() = x * w.transpose();
    }
  });
}

/// The operands of a linear layer y = x w^T at `rows` tokens in training, and of its adjoints. They are not rotated:
/// what fits a cache stays in it, as between neighbouring layers.
struct LayerShape {
  Index rows, outputs, inputs;
};
struct Layer : LayerShape {
  std::vector<float> x = bench::uniform<float>(rows * inputs, -1, 1, 2);
  std::vector<float> w = bench::uniform<float>(outputs * inputs, -1, 1, 3);
  std::vector<float> dy = bench::uniform<float>(rows * outputs, -1, 1, 4);
  std::vector<float> y = dy, dx = x, dw = w;

  bench::Work work(int threads) const {
    const auto numbers = static_cast<double>(x.size() + w.size() + dy.size());
    const auto multiplications = static_cast<double>(rows * outputs * inputs);
    return {.bytes = numbers * sizeof(float),
            .flops = 2 * multiplications,
            .tokens = static_cast<double>(rows),
            .threads = threads};
  }
};

/// The three products of a layer; dw is added to, as gradients are accumulated.
enum class Pass { forward, input, weights };

void library_layer(benchmark::State& state, const LayerShape& shape, Pass pass, int threads) {
  rwkv::Cpu cpu(threads);
  Layer layer{shape};
  const auto [rows, outputs, inputs] = shape;
  const auto x = rwkv::matrix(layer.x.data(), rows, inputs), dx = rwkv::matrix(layer.dx.data(), rows, inputs);
  const auto y = rwkv::matrix(layer.y.data(), rows, outputs), dy = rwkv::matrix(layer.dy.data(), rows, outputs);
  const auto w = rwkv::matrix(layer.w.data(), outputs, inputs), dw = rwkv::matrix(layer.dw.data(), outputs, inputs);
  bench::measure(state, layer.work(threads), [&] {
    switch (pass) {
      case Pass::forward: return cpu.gemm(rwkv::mul(y, x, rwkv::transposed(w)));
      case Pass::input: return cpu.gemm(rwkv::mul(dx, dy, w));
      case Pass::weights: return cpu.gemm(rwkv::mul(rwkv::plus(dw), rwkv::transposed(dy), x));
    }
  });
}

void eigen_layer(benchmark::State& state, const LayerShape& shape, Pass pass) {
  Layer layer{shape};
  using Matrix = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  Matrix x(layer.x.data(), layer.rows, layer.inputs), dx(layer.dx.data(), layer.rows, layer.inputs);
  Matrix y(layer.y.data(), layer.rows, layer.outputs), dy(layer.dy.data(), layer.rows, layer.outputs);
  Matrix w(layer.w.data(), layer.outputs, layer.inputs), dw(layer.dw.data(), layer.outputs, layer.inputs);
  bench::measure(state, layer.work(1), [&] {
    switch (pass) {
      case Pass::forward: y.noalias() = x * w.transpose(); return;
      case Pass::input: dx.noalias() = dy * w; return;
      case Pass::weights: dw.noalias() += dy.transpose() * x; return;
    }
  });
}

const bool registered = [] {
  for (const Shape& shape : {Shape{768, 768}, Shape{3072, 768}, Shape{768, 3072}, Shape{1024, 1024}, Shape{2048, 2048},
                             Shape{8192, 2048}, Shape{2048, 8192}, Shape{50277, 768}, Shape{65536, 2048}}) {
    const bool head = shape.outputs > 50'000;
    for (const Index time : {1, 4, 16, 128, 512}) {
      if (head && time > 16) continue;  // prefill computes the head for its last token only
      const std::string name = rwkv::join("product/", shape.outputs, "x", shape.inputs, "/T", time, "/");
      for (const int threads : {1, 2}) {
        const std::string suffix = rwkv::join("/", threads, "threads");
        bench::add(name + "fp32" + suffix, [=](auto& state) { library<float>(state, shape, time, threads); });
        bench::add(name + "bf16" + suffix, [=](auto& state) { library<rwkv::bf16>(state, shape, time, threads); });
        bench::add(name + "f16" + suffix, [=](auto& state) { library<rwkv::f16>(state, shape, time, threads); });
        for (const rwkv::DType type : {rwkv::DType::q8_0, rwkv::DType::q5_0, rwkv::DType::q5_1, rwkv::DType::q4_0,
                                       rwkv::DType::q4_1, rwkv::DType::q4_k, rwkv::DType::q5_k, rwkv::DType::q6_k}) {
          bench::add(rwkv::join(name, name_of(type), suffix),
                     [=](auto& state) { quantised(state, shape, time, type, threads); });
        }
      }
      bench::add(name + "eigen_fp32/1threads", [=](auto& state) { eigen(state, shape, time); });
    }
  }
  // Six layers of width 512 on 4 sequences of 256 tokens; the head of 6064 tokens in chunks.
  constexpr std::pair<Pass, const char*> passes[] = {
      {Pass::forward, "product_train/"}, {Pass::input, "product_back/dx/"}, {Pass::weights, "product_back/dw/"}};
  for (const auto& [pass, group] : passes) {
    for (const LayerShape& layer :
         {LayerShape{1024, 512, 512}, LayerShape{1024, 2048, 512}, LayerShape{1024, 512, 2048},
          LayerShape{256, 6064, 512}, LayerShape{1024, 6064, 512}}) {
      const std::string name = rwkv::join(group, layer.outputs, "x", layer.inputs, "/T", layer.rows, "/");
      for (const int threads : {1, 2}) {
        bench::add(rwkv::join(name, "fp32/", threads, "threads"),
                   [=, pass = pass](auto& state) { library_layer(state, layer, pass, threads); });
      }
      bench::add(name + "eigen_fp32/1threads", [=, pass = pass](auto& state) { eigen_layer(state, layer, pass); });
    }
  }
  return true;
}();

}  // namespace
