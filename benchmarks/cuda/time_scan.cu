/// A scan over time-contiguous numbers with a cell of one's own, by the device scan of CUB: what the library's layout
/// [batch, time, channels] is not.
#include <thrust/iterator/transform_iterator.h>
#include <thrust/iterator/transform_output_iterator.h>
#include <cub/device/device_scan.cuh>

#include "suite.cuh"

namespace bench {

namespace {

/// A stretch of h = 0.9 h + x.
struct Stretch {
  float keep, add;
};
struct Lift {
  __host__ __device__ Stretch operator()(float x) const { return {0.9f, x}; }
};
struct Compose {
  __host__ __device__ Stretch operator()(const Stretch& earlier, const Stretch& later) const {
    return {earlier.keep * later.keep, later.keep * earlier.add + later.add};
  }
};
struct Read {
  __host__ __device__ float operator()(const Stretch& stretch) const { return stretch.add; }
};

}  // namespace

void add_time_scan(Suite& suite) {
  suite.section("Scan over contiguous time");
  const Index count = Index{1} << (suite.quick() ? 26 : 28);
  const double bytes = static_cast<double>(count) * sizeof(float);
  const Case what{"CUB, own cell", by(count), "fp32", {.read = bytes, .written = bytes}, share(0.80)};
  suite.run(what, [&] {
    Cuda& be = suite.backend();
    const Numbers<float> x(be, count, -1, 1, 1), y(be, count, -1, 1, 2);
    const auto from = thrust::make_transform_iterator(static_cast<const float*>(x.data()), Lift{});
    const auto to = thrust::make_transform_output_iterator(y.data(), Read{});
    std::size_t scratch_bytes = 0;
    const auto scan = [&](void* scratch) {
      RWKV_CUDA_TRY(
          cub::DeviceScan::InclusiveScan(scratch, scratch_bytes, from, to, Compose{}, count, be.stream().handle()));
    };
    scan(nullptr);
    const rwkv::Memory<Cuda> scratch(be, static_cast<Index>(scratch_bytes));
    suite.measure(what, 1, [&](Index) { scan(scratch.data()); });
  });
}

}  // namespace bench
