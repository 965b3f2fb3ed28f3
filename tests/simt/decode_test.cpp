/// Oracle: the generic path in double. The kernels are those that nvcc compiles for the GPU, run on the emulator; the
/// CUDA suite runs the same cases on a device.
#include <rwkv/blocks.hpp>
#include <rwkv/cuda.cuh>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../cuda/order.hpp"

using rwkv::Index;

namespace {

/// A version that a user might write: every part differs from RWKV-4.
struct Own : rwkv::V4 {
  struct Decay {
    template <class R>
    RWKV_HD void map(R x, R& y) const {
      y = sigmoid(x);
    }
  };
  struct Cell {
    static constexpr auto inputs = rwkv::Inputs{"decay", "bonus", "key", "value"};
    static constexpr int state_size = 2;
    template <class R>
    RWKV_HD static void init(R (&state)[2]) {
      state[0] = R(0);
      state[1] = R(1);
    }
    template <class R>
    RWKV_HD static R step(R (&state)[2], const R (&x)[4]) {
      const R y = state[0] + x[1] * x[3];
      state[0] = x[0] * state[0] + sigmoid(x[2]) * x[3];
      state[1] = R(0.5) * state[1] + state[0];
      return y + state[1];
    }
  };
  struct Gate {
    template <class R>
    RWKV_HD void map(R r, R x, R& y) const {
      y = (r + R(1)) * x;
    }
  };
  struct Activation {
    template <class R>
    RWKV_HD R operator()(R x) const {
      return x * sigmoid(x);
    }
  };
  using Mix = rwkv::MixPrevious;
};

/// A gate with a stage. It is not a function of one channel, so a layer with it is not fused.
struct Summing : rwkv::V4 {
  struct Gate {
    using stages = rwkv::Stages<1>;
    template <class R, class... Rest>
    RWKV_HD void reduce(rwkv::Stage<0>, const R*, R* terms, R r, const Rest&...) const {
      terms[0] = r;
    }
    template <class R>
    RWKV_HD void map(const R* totals, R r, R x, R& y) const {
      y = (r + totals[0]) * x;
    }
  };
};

/// One thread for each number of a product.
template <class T, class W, class Epilogue>
RWKV_KERNEL void product_kernel(rwkv::Product<T, W, Epilogue> p) {
  const Index i = Index{blockIdx.x} * 64 + threadIdx.x, row = i / p.y.cols, col = i % p.y.cols;
  if (row >= p.y.rows) return;
  T sum(0);
  for (Index k = 0; k < p.x.cols; ++k) sum += p.x(row, k) * rwkv::widen<T>(p.w(col, k));
  p.y(row, col) = p.epilogue(rwkv::One<T>(sum)).v;
}
/// The matrix products of a backend, counted.
struct Products {
  static inline long count = 0, calls = 0;
  template <class T, class W, class... Epilogue>
  void operator()(const rwkv::CudaStream& stream, const rwkv::Product<T, W, Epilogue>&... products) const {
    (stream.launch({dim3(rwkv::gpu::blocks_for(products.y.rows * products.y.cols, 64)), dim3(64)},
                   product_kernel<T, W, Epilogue>, products),
     ...);
    count += long{sizeof...(products)};
    ++calls;
  }
};
using Gpu = rwkv::BasicCuda<Products>;

/// Two works: every thread of the first writes a number 1, 2, ...; the second sums them.
struct Numbered {
  [[maybe_unused]] static constexpr int resident = 1;
  static constexpr std::size_t shared_bytes = 0;
  int* numbers;
  unsigned blocks;

  __device__ void run_block(unsigned block) const {
    const int i = static_cast<int>(block) * rwkv::gpu::work_threads + static_cast<int>(threadIdx.x);
    numbers[i] = i + 1;
  }
};
struct Summed {
  const int* numbers;
  int count;
  int* sums;
  unsigned blocks;

  template <class Wait>
  __device__ void run_block(unsigned block, const Wait& wait) const {
    wait();
    int sum = 0;
    for (int i = 0; i < count; ++i) sum += numbers[i];
    if (threadIdx.x == 0) sums[block] = sum;
  }
};

/// A number in [-1, 1) that its arguments choose.
double number(std::uint64_t stream, std::uint64_t i) {
  return 2 * rwkv::Philox{.key = 7, .stream = stream}.block(i).uniform_double(0) - 1;
}

/// Memory of a backend.
template <class B>
class Memory {
 public:
  explicit Memory(const B& be) : be_(be) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (void* block : blocks_) be_.free(block);
  }
  template <class T>
  T* take(const std::vector<T>& numbers) {
    T* const block = be_.template allocate<T>(std::ssize(numbers) + 1);
    blocks_.push_back(block);
    rwkv::upload(be_, std::span<const T>(numbers), block);
    return block;
  }

 private:
  B be_;
  std::vector<void*> blocks_;
};

/// A layer, embedding or head with live parameters in memory of its backend.
template <class K>
class Runner {
 public:
  using B = typename K::backend;
  using T = typename K::compute;

  explicit Runner(const rwkv::ModelSizes& sizes, B backend = {})
      : be(std::move(backend)), part(make(sizes)), memory_(be) {
    std::uint64_t stream = 0;
    K::visit(part, "", [&](const rwkv::TensorSpec& spec, auto& view) {
      using S = std::remove_cvref_t<decltype(*view.data)>;
      std::vector<S> numbers(static_cast<std::size_t>(spec.shape.count()));
      const double scale = spec.shape.rank == 2 ? 2 / std::sqrt(static_cast<double>(spec.shape.sizes[1])) : 1;
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        // Numbers that the 16-bit types hold exactly, so that all backends have the same weights.
        numbers[i] = rwkv::narrow<S>(
            static_cast<double>(static_cast<float>(rwkv::bf16(static_cast<float>(scale * number(stream, i))))));
      }
      bind(view, memory_.take(numbers), spec.shape);
      ++stream;
    });
  }

  std::vector<T> read(const T* from, Index count) {
    const rwkv::OnHost host(be, std::span<const T>(from, static_cast<std::size_t>(count)));
    return {host.begin(), host.end()};
  }
  template <class U>
  U* take(const std::vector<U>& numbers) {
    return memory_.take(numbers);
  }

  B be;
  K part;

 private:
  static K make(const rwkv::ModelSizes& sizes) {
    if constexpr (std::is_constructible_v<K, const rwkv::ModelSizes&, Index>) return K(sizes, 0);
    else return K(sizes);
  }
  Memory<B> memory_;
};

/// A layer that runs token after token.
template <class L>
class LayerRunner : public Runner<L> {
 public:
  using T = typename L::compute;
  using Base = Runner<L>;
  using Base::be, Base::part;

  LayerRunner(const rwkv::ModelSizes& sizes, Index batch, typename L::backend backend = {})
      : Base(sizes, std::move(backend)), batch_(batch), width_(sizes.width) {
    part.visit_state(state_, "", [&](const std::string&, Index numbers, rwkv::Mat<T>& view) {
      view = rwkv::matrix(this->take(std::vector<T>(static_cast<std::size_t>(batch * numbers))), batch, numbers);
      states_.push_back(view);
    });
    part.reset(be, state_);
    scratch_bytes_ = rwkv::scratch_for(be, [&](rwkv::Arena ws) {
                       part.forward(be, ws, rwkv::Seq<const T>{nullptr, batch, 1, width_}, state_,
                                    rwkv::Seq<T>{nullptr, batch, 1, width_});
                     }).bytes();
    const auto bytes = static_cast<std::size_t>(scratch_bytes_);
    scratch_ = reinterpret_cast<std::byte*>(this->take(std::vector<unsigned char>(bytes)));
    x_ = this->take(std::vector<T>(static_cast<std::size_t>(batch * width_)));
    y_ = this->take(std::vector<T>(static_cast<std::size_t>(batch * width_)));
  }

  void set(const std::vector<double>& x) {
    std::vector<T> numbers(x.begin(), x.end());
    rwkv::upload(be, std::span<const T>(numbers), x_);
    be.fill(rwkv::matrix(reinterpret_cast<unsigned char*>(scratch_), 1, scratch_bytes_),
            static_cast<unsigned char>(0xff));
  }
  void forward(bool in_place) {
    T* const to = in_place ? x_ : y_;
    part.forward(be, rwkv::Arena(scratch_, scratch_bytes_), rwkv::Seq<const T>{x_, batch_, 1, width_}, state_,
                 rwkv::Seq<T>{to, batch_, 1, width_});
  }
  std::vector<T> output(bool in_place) { return this->read(in_place ? x_ : y_, batch_ * width_); }
  /// y of one token.
  std::vector<T> step(const std::vector<double>& x, bool in_place) {
    set(x);
    if (!in_place) be.fill(rwkv::matrix(y_, 1, batch_ * width_), std::numeric_limits<T>::quiet_NaN());
    forward(in_place);
    return output(in_place);
  }
  std::vector<T> state() {
    std::vector<T> all;
    for (const auto& view : states_) {
      const auto numbers = this->read(view.data, view.rows * view.cols);
      all.insert(all.end(), numbers.begin(), numbers.end());
    }
    return all;
  }

 private:
  Index batch_, width_, scratch_bytes_ = 0;
  typename L::State state_;
  std::vector<rwkv::Mat<T>> states_;
  std::byte* scratch_ = nullptr;
  T *x_ = nullptr, *y_ = nullptr;
};

template <class V, class S, class B>
using LayerOf = rwkv::Layer<rwkv::TimeMix<V, S, B>, rwkv::ChannelMix<V, S, B>>;

std::vector<double> tokens(Index batch, Index width, std::uint64_t step) {
  std::vector<double> x;
  for (Index b = 0; b < batch; ++b) {
    for (Index c = 0; c < width; ++c) {
      x.push_back(2 + 3 * number(100 + static_cast<std::uint64_t>(b), step * 1000 + static_cast<std::uint64_t>(c)));
    }
  }
  return x;
}

/// The norm of the difference over the norm.
template <class T, class U>
double distance(const std::vector<T>& got, const std::vector<U>& want) {
  REQUIRE(got.size() == want.size());
  double difference = 0, whole = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    difference += d * d;
    whole += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return difference == 0 ? 0 : std::sqrt(difference / whole);  // NaN stays NaN
}

template <class T>
std::vector<T> part_of(const std::vector<T>& numbers, Index begin, Index count) {
  return {numbers.begin() + begin, numbers.begin() + begin + count};
}

/// Some tokens against the generic path in double, and the number of kernels.
template <class V, class S, class B = Gpu>
void check_layer(Index width, Index ffn, Index batch, bool in_place) {
  CAPTURE(width);
  CAPTURE(ffn);
  CAPTURE(batch);
  CAPTURE(in_place);
  const rwkv::ModelSizes sizes{.vocab = 1, .width = width, .depth = 1, .head_size = 0, .ffn = ffn};
  LayerRunner<LayerOf<V, S, B>> gpu(sizes, batch);
  LayerRunner<LayerOf<V, double, rwkv::Reference>> reference(sizes, batch);
  const double bound = std::is_same_v<rwkv::compute_t<S>, double> ? 1e-12 : 1e-5;
  const bool apart = std::is_same_v<B, Gpu> && batch > 8;  // products are launches of their own
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto x = tokens(batch, width, step);
    const auto want = reference.step(x, false);
    gpu.set(x);
    gpu.be.sync();
    const long waits = simt::counts.waits, before = simt::counts.launches, products = Products::count,
               calls = Products::calls;
    gpu.forward(in_place);
    gpu.be.sync();
    const long kernels = simt::counts.launches - before;
    CHECK(Products::calls - calls == (apart ? 4 : 0));
    if constexpr (simt::emulated) CHECK(kernels - (Products::count - products) == (apart ? 4 : 5));
    if (simt::emulated && batch > 8) {
      const long blocks = 2 * batch * ((width + 255) / 256) + batch;  // of the cell and the gate, and of the norm
      CHECK(simt::counts.waits - waits == (apart ? 0 : blocks));
    }
    const auto got = gpu.output(in_place);
    CHECK(distance(got, want) < bound);
    if (!in_place) CHECK(distance(gpu.output(true), std::vector<rwkv::compute_t<S>>(x.begin(), x.end())) == 0);
    CHECK(distance(gpu.state(), reference.state()) < bound);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("simt: a layer at one token", S, float, double, rwkv::bf16, rwkv::f16) {
  const Index sizes[][2] = {{1, 1}, {3, 5}, {8, 24}, {33, 70}, {64, 256}, {136, 200}};
  Index batch = 1;
  for (const auto& [width, ffn] : sizes) {
    for (int i = 0; i < 4; ++i) {
      check_layer<rwkv::V4, S>(width, ffn, batch, batch % 2 == 0);
      batch = batch % 9 + 1;
    }
  }
}

TEST_CASE("simt: a layer at one token of every number of sequences") {
  for (Index batch = 1; batch <= 9; ++batch) check_layer<rwkv::V4, float>(40, 56, batch, batch % 2 == 1);
}

TEST_CASE("simt: the second work of a launch waits for all of the first") {
  constexpr int blocks = 5, count = blocks * rwkv::gpu::work_threads;
  rwkv::Cuda be;
  Memory<rwkv::Cuda> memory(be);
  const rwkv::CudaStream& stream = be.stream();
  simt::shuffle_blocks = true;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    simt::seed = seed;
    int* const numbers = memory.take(std::vector<int>(count));
    int* const sums = memory.take(std::vector<int>(7));
    auto* const turn = reinterpret_cast<rwkv::gpu::Turn*>(memory.take(std::vector<unsigned>{0, 0}));
    rwkv::gpu::launch_in_turn(stream, Numbered{numbers, blocks}, Summed{numbers, count, sums, 7}, turn);
    const rwkv::OnHost host(be, std::span<const int>(sums, 7));
    for (const int sum : host) CHECK(sum == count * (count + 1) / 2);
#if RWKV_SIMT
    // As if a block of the first work had its ticket but never ended.
    auto* const late = reinterpret_cast<rwkv::gpu::Turn*>(memory.take(std::vector<unsigned>{1, 0}));
    const auto run = [&] {
      rwkv::gpu::launch_in_turn(stream, Numbered{numbers, 1}, Summed{numbers, count, sums, 1}, late);
      stream.sync();
    };
    CHECK_THROWS_WITH_AS(run(), doctest::Contains("spin without end"), simt::Error);
#endif
  }
  simt::shuffle_blocks = false;
}

TEST_CASE_TEMPLATE("simt: a layer at one token of many sequences is five kernels", S, float, double, rwkv::bf16,
                   rwkv::f16, rwkv::Numerics<rwkv::bf16, double>) {
  const Index sizes[][3] = {{9, 1, 3}, {17, 40, 56}, {33, 33, 70}, {129, 72, 130}};
  for (const auto& [batch, width, ffn] : sizes) check_layer<rwkv::V4, S, rwkv::Cuda>(width, ffn, batch, batch == 17);
}

#if RWKV_SIMT
TEST_CASE_TEMPLATE("simt: and on a device without tensor cores", S, float, rwkv::bf16, rwkv::f16) {
  const int major = std::exchange(simt::device.major, 7);
  for (const Index batch : {33, 70}) check_layer<rwkv::V4, S, rwkv::Cuda>(40, 56, batch, batch == 33);
  // Few rows of 16-bit weights are launches of their own.
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 40, .depth = 1, .head_size = 0, .ffn = 56};
  LayerRunner<LayerOf<rwkv::V4, S, rwkv::Cuda>> gpu(sizes, 9);
  LayerRunner<LayerOf<rwkv::V4, double, rwkv::Reference>> reference(sizes, 9);
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto x = tokens(9, 40, step);
    CHECK(distance(gpu.step(x, false), reference.step(x, false)) < 1e-5);
  }
  simt::device.major = major;
}
#endif

TEST_CASE("simt: a layer at one token is that of the version") {
  for (const Index batch : {1, 3, 10}) {
    check_layer<Own, float>(40, 72, batch, batch == 3);
  }
  check_layer<Own, float, rwkv::Cuda>(40, 72, 10, false);
}

TEST_CASE("simt: a layer at one token of 16-bit weights in double") {
  for (const Index batch : {1, 9}) check_layer<rwkv::V4, rwkv::Numerics<rwkv::bf16, double>>(40, 72, batch, true);
}

TEST_CASE("simt: a layer at one token in any order of threads and blocks") {
  simt::shuffle_blocks = true;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    simt::seed = seed;
    check_layer<rwkv::V4, rwkv::bf16>(72, 136, static_cast<Index>(seed), true);
    check_layer<rwkv::V4, rwkv::bf16, rwkv::Cuda>(72, 136, 9, true);
    check_layer<rwkv::V4, float, rwkv::Cuda>(40, 70, 34, false);
  }
  simt::shuffle_blocks = false;
}

TEST_CASE("simt: long rows go through shared memory in chunks") {
  const int multiprocessors = std::exchange(simt::device.multiprocessors, 132);
  check_layer<rwkv::V4, float>(12, 2 * 2048 + 40, 8, true);
  check_layer<rwkv::V4, double>(6, 8192 + 300, 1, true);
  simt::device.multiprocessors = multiprocessors;
}

TEST_CASE_TEMPLATE("simt: a sequence does not depend on those beside it", S, float, rwkv::bf16) {
  using T = rwkv::compute_t<S>;
  for (const Index width : {24, 17}) {
    const rwkv::ModelSizes sizes{.vocab = 1, .width = width, .depth = 1, .head_size = 0, .ffn = 2 * width};
    LayerRunner<LayerOf<rwkv::V4, S, Gpu>> all(sizes, 8);
    std::vector<std::vector<T>> want;
    for (std::uint64_t step = 0; step < 2; ++step) want.push_back(all.step(tokens(8, width, step), true));
    for (const Index batch : {1, 2, 3, 5}) {
      LayerRunner<LayerOf<rwkv::V4, S, Gpu>> few(sizes, batch);
      for (std::uint64_t step = 0; step < 2; ++step) {
        const auto got = few.step(tokens(batch, width, step), true);
        CHECK(std::memcmp(got.data(), want[step].data(), got.size() * sizeof(T)) == 0);
      }
    }
  }
}

TEST_CASE("simt: a layer that cannot be fused takes the generic path") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 16, .depth = 1, .head_size = 0, .ffn = 20};
  LayerRunner<LayerOf<Summing, float, Gpu>> gpu(sizes, 2);
  LayerRunner<LayerOf<Summing, double, rwkv::Reference>> reference(sizes, 2);
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto x = tokens(2, 16, step);
    CHECK(distance(gpu.step(x, false), reference.step(x, false)) < 1e-5);
  }
}

TEST_CASE_TEMPLATE("simt: embedding and head at one token", S, float, double, rwkv::bf16) {
  using T = rwkv::compute_t<S>;
  const double bound = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  for (const Index width : {1, 33, 64}) {
    for (const Index batch : {1, 2, 8, 9}) {
      CAPTURE(width);
      CAPTURE(batch);
      const rwkv::ModelSizes sizes{.vocab = 50, .width = width, .depth = 1};
      Runner<rwkv::Embedding<S, Gpu>> embedding(sizes);
      Runner<rwkv::Embedding<double, rwkv::Reference>> want_embedding(sizes);
      Runner<rwkv::Head<S, Gpu>> head(sizes, embedding.be);
      Runner<rwkv::Head<double, rwkv::Reference>> want_head(sizes);

      rwkv::Exchange<rwkv::Token, Gpu> tokens(embedding.be, static_cast<std::size_t>(batch));
      for (Index b = 0; b < batch; ++b) {
        tokens.numbers()[static_cast<std::size_t>(b)] = static_cast<rwkv::Token>(49 - 7 * b % 50);
      }
      const std::span<const rwkv::Token> chosen(tokens.numbers());
      const std::vector<T> nothing(static_cast<std::size_t>(batch * width), std::numeric_limits<T>::quiet_NaN());
      const rwkv::Seq<T> x{embedding.take(nothing), batch, 1, width};
      std::vector<double> want_x(nothing.size()), want(static_cast<std::size_t>(batch * 50));
      const rwkv::Seq<double> reference_x{want_x.data(), batch, 1, width};
      const rwkv::Seq<T> logits{head.take(std::vector<T>(want.size(), std::numeric_limits<T>::quiet_NaN())), batch, 1,
                                50};
      std::vector<std::byte> memory(1 << 16);
      want_embedding.part.forward(want_embedding.be, chosen, reference_x);
      want_head.part.forward(want_head.be, rwkv::Arena(memory.data(), 1 << 16), reference_x,
                             rwkv::Seq<double>{want.data(), batch, 1, 50});
      const auto scratch =
          rwkv::scratch_for(head.be, [&](rwkv::Arena ws) { head.part.forward(head.be, ws, x, logits); });
      CHECK((scratch.bytes() == 0) == (batch <= 8));

      const long before = simt::counts.launches;
      embedding.part.forward(embedding.be, chosen, x);
      embedding.be.sync();
      if constexpr (simt::emulated) CHECK(simt::counts.launches - before == 1);
      CHECK(distance(embedding.read(x.data, batch * width), want_x) < bound);
      head.part.forward(head.be, scratch.arena(), x, logits);
      head.be.sync();
      if (simt::emulated && batch <= 8) CHECK(simt::counts.launches - before == 2);
      CHECK(distance(head.read(logits.data, batch * 50), want) < bound);
    }
  }
}

TEST_CASE("simt: recorded work runs again") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 24, .depth = 1, .head_size = 0, .ffn = 40};
  LayerRunner<LayerOf<rwkv::V4, float, Gpu>> plain(sizes, 2), recorded(sizes, 2);
  const rwkv::CudaGraph empty;
  CHECK(empty.empty());
  recorded.be.replay(empty);
  recorded.be.sync();
  const auto before = simt::counts;
  {
    rwkv::CudaGraph first = recorded.be.record([&] { recorded.forward(false); });
    rwkv::CudaGraph graph;
    graph = std::move(first);
    CHECK(!graph.empty());
    for (std::uint64_t step = 0; step < 3; ++step) {
      const auto x = tokens(2, 24, step);
      const auto want = plain.step(x, false);
      recorded.set(x);
      recorded.be.replay(graph);
      CHECK(distance(recorded.output(false), want) == 0);
    }
    CHECK(distance(recorded.state(), plain.state()) == 0);
  }
  CHECK(simt::counts.graphs == before.graphs);
  CHECK(simt::counts.graph_execs == before.graph_execs);
}

TEST_CASE("simt: a recording that fails leaves the stream usable") {
  const rwkv::ModelSizes sizes{.vocab = 1, .width = 8, .depth = 1, .head_size = 0, .ffn = 8};
  LayerRunner<LayerOf<rwkv::V4, float, Gpu>> runner(sizes, 1), plain(sizes, 1);
  const auto before = simt::counts;
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] {
                    runner.forward(false);
                    throw std::runtime_error("on the way");
                  })),
                  std::runtime_error);
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] { runner.be.sync(); })), rwkv::Error);
#if RWKV_SIMT
  simt::fail_function("cudaGraphInstantiate", cudaErrorMemoryAllocation);
  CHECK_THROWS_AS(static_cast<void>(runner.be.record([&] { runner.forward(false); })), rwkv::Error);
  simt::fail_nothing();
#endif
  CHECK(simt::counts.graphs == before.graphs);
  CHECK(simt::counts.graph_execs == before.graph_execs);
  const auto x = tokens(1, 8, 0);
  CHECK(distance(runner.step(x, false), plain.step(x, false)) == 0);
}
