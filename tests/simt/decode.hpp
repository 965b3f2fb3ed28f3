#pragma once
/// Layers that run token after token on the CUDA backend and on the generic path in double. Fused layers run in float and
/// in bf16, once in double of 16-bit weights; the products under them in every number, in embedding and head and in
/// gemm_test.cpp.
#include <rwkv/blocks.hpp>
#include <rwkv/cuda.cuh>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "../cuda/order.hpp"

namespace decode {

using rwkv::Index;

using Fused = rwkv::V4;  ///< the version whose layers run a token as one fused step

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

/// A number in [-1, 1) that its arguments choose.
inline double number(std::uint64_t stream, std::uint64_t i) {
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

inline std::vector<double> tokens(Index batch, Index width, std::uint64_t step) {
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

}  // namespace decode
