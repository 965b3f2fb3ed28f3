/// Scans over time-contiguous numbers with a user's cell, by the device scan of CUB: over stretches in memory, and over
/// tokens that become stretches as they are loaded.
#include <thrust/iterator/transform_iterator.h>
#include <thrust/iterator/transform_output_iterator.h>

#include "rwkv/backend/cuda/recur/cub_scan.cuh"
#include "suite.cuh"

namespace bench {

/// h = 0.9 h + x.
struct Decay {
  static constexpr auto inputs = rwkv::Inputs{"x"};
  static constexpr int state_size = 1;

  template <class R>
  struct Stretch {
    R keep, add;
  };
  template <class R>
  RWKV_HD static void init(R (&h)[1]) {
    h[0] = R(0);
  }
  template <class R>
  RWKV_HD static R step(R (&h)[1], const R (&x)[1]) {
    enter(h, lift(x));
    return h[0];
  }
  template <class R>
  RWKV_HD static Stretch<R> lift(const R (&x)[1]) {
    return {R(0.9f), x[0]};
  }
  template <class R>
  RWKV_HD static Stretch<R> compose(const Stretch<R>& earlier, const Stretch<R>& later) {
    return {earlier.keep * later.keep, later.keep * earlier.add + later.add};
  }
  template <class R>
  RWKV_HD static void enter(R (&h)[1], const Stretch<R>& stretch) {
    h[0] = stretch.keep * h[0] + stretch.add;
  }
};

namespace {

using Number = rwkv::One<float>;
using Stretch = Decay::Stretch<Number>;

struct Lift {
  __host__ __device__ Stretch operator()(float token) const {
    const Number x[1] = {Number(token)};
    return Decay::lift(x);
  }
};
/// The state behind a stretch that begins in the empty state.
struct Read {
  __host__ __device__ float operator()(const Stretch& stretch) const { return stretch.add.v; }
};

void of_tokens(Suite& suite, Index count) {
  const double bytes = static_cast<double>(count) * sizeof(float);
  const Case what{"CUB, tokens", by(count), "fp32", {.read = bytes, .written = bytes}, share(0.80)};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Numbers<float> x(be, count, -1, 1, 1), y(be, count, -1, 1, 2);
    const auto from = thrust::make_transform_iterator(static_cast<const float*>(x.data()), Lift{});
    const auto to = thrust::make_transform_output_iterator(y.data(), Read{});
    std::size_t scratch_bytes = 0;
    const auto scan = [&](void* scratch) {
      RWKV_CUDA_TRY(cub::DeviceScan::InclusiveScan(scratch, scratch_bytes, from, to, rwkv::Compose<Decay>(), count,
                                                   be.stream().handle()));
    };
    scan(nullptr);
    const rwkv::Memory<Cuda> scratch(be, static_cast<Index>(scratch_bytes));
    suite.measure(what, 1, [&](Index) { scan(scratch.data()); });
  });
}

void of_stretches(Suite& suite, Index count) {
  const double bytes = static_cast<double>(count) * sizeof(Stretch);
  const Case what{"CUB, stretches", by(count), "fp32", {.read = bytes, .written = bytes}, share(0.80)};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Numbers<float> from(be, 2 * count, -1, 1, 1), to(be, 2 * count, -1, 1, 2);
    const auto call = [&](rwkv::Arena ws) {
      rwkv::scan_stretches<Decay>(be.stream(), be.dry, ws, reinterpret_cast<const Stretch*>(from.data()),
                                  reinterpret_cast<Stretch*>(to.data()), count);
    };
    const auto scratch = scratch_for(be, call);
    suite.measure(what, 1, [&](Index) { call(scratch.arena()); });
  });
}

}  // namespace

void add_time_scan(Suite& suite) {
  suite.section("Scan over contiguous time");
  const Index count = Index{1} << (suite.quick() ? 26 : 28);
  of_tokens(suite, count);
  of_stretches(suite, count);
}

}  // namespace bench
