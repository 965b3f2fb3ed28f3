#include "ceilings.cuh"

#include <chrono>

namespace bench {

namespace {

constexpr int repeats = 20;

/// The median time of work() over the repetitions, after one that warms up.
template <class Work>
double seconds_of(const Cuda& be, const Work& work) {
  const StreamClock clock(be.stream());
  std::vector<double> seconds;
  for (int r = -2; r < repeats; ++r) {
    const double once = clock(work);
    if (r >= 0) seconds.push_back(once);
  }
  return median(seconds);
}

/// 16 bytes at a time, four of them in flight in every thread.
template <bool Write>
__global__ void stream_kernel(const uint4* from, uint4* to, Index count) {
  constexpr int flight = 4;
  const Index all = Index{gridDim.x} * blockDim.x;
  uint4 sum{};
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i + (flight - 1) * all < count; i += flight * all) {
    uint4 words[flight];
    RWKV_UNROLL for (int n = 0; n < flight; ++n) words[n] = from[i + n * all];
    RWKV_UNROLL for (int n = 0; n < flight; ++n) {
      if constexpr (Write) to[i + n * all] = words[n];
      else sum = {sum.x ^ words[n].x, sum.y ^ words[n].y, sum.z ^ words[n].z, sum.w ^ words[n].w};
    }
  }
  if constexpr (!Write) {
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x5eed) *to = sum;  // keeps the loads
  }
}

template <int Chains>
__global__ void fma_kernel(float* to, int steps, float a, float b, long long* cycles) {
  float sums[Chains];
  RWKV_UNROLL for (int c = 0; c < Chains; ++c) sums[c] = static_cast<float>(threadIdx.x + c);
  const long long begin = clock64();
  for (int step = 0; step < steps; ++step) {
    RWKV_UNROLL for (int c = 0; c < Chains; ++c) sums[c] = fmaf(sums[c], a, b);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = clock64() - begin;
  float sum = 0;
  RWKV_UNROLL for (int c = 0; c < Chains; ++c) sum += sums[c];
  if (sum == 12345.0f) *to = sum;
}

/// bf16 tiles of 16 x 8 x 16 from registers that hold random numbers, `Tiles` independent sums in every warp.
template <int Tiles>
__global__ void mma_kernel(const unsigned* numbers, float* to, int steps) {
  unsigned a[4], b[Tiles][2];
  float sums[Tiles][4] = {};
  RWKV_UNROLL for (int i = 0; i < 4; ++i) a[i] = numbers[threadIdx.x * 4 + i];
  RWKV_UNROLL for (int t = 0; t < Tiles; ++t) {
    b[t][0] = numbers[threadIdx.x + t];
    b[t][1] = numbers[threadIdx.x + t + 32];
  }
  for (int step = 0; step < steps; ++step) {
    RWKV_UNROLL for (int t = 0; t < Tiles; ++t) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(sums[t][0]), "+f"(sums[t][1]), "+f"(sums[t][2]), "+f"(sums[t][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[t][0]), "r"(b[t][1]));
    }
  }
  float sum = 0;
  RWKV_UNROLL for (int t = 0; t < Tiles; ++t) sum += sums[t][0] + sums[t][1] + sums[t][2] + sums[t][3];
  if (sum == 12345.0f) *to = sum;
}

/// Every lane of a warp loads the same 16 bytes.
__global__ void broadcast_kernel(unsigned* to, int steps) {
  constexpr int words = 256;
  __shared__ uint4 shared[words];
  if (threadIdx.x < words) shared[threadIdx.x] = {threadIdx.x, 1, 2, 3};
  __syncthreads();
  const auto base = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  uint4 sum{};
  for (int step = 0; step < steps; ++step) {
    RWKV_UNROLL for (int i = 0; i < 16; ++i) {
      uint4 word;
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
                   : "r"(base + static_cast<unsigned>((step + i) % words) * 16u));
      sum = {sum.x ^ word.x, sum.y ^ word.y, sum.z ^ word.z, sum.w ^ word.w};
    }
  }
  if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x5eed) *to = sum.x;
}

__global__ void relay_kernel() {
  rwkv::detail::wait_for_predecessor();
  rwkv::detail::let_successor_begin();
}

void measure_memory(const Cuda& be, Ceilings& found) {
  constexpr Index bytes = Index{1} << 30;
  const Numbers<float> from(be, bytes / 4, -1, 1, 1), to(be, bytes / 4, -1, 1, 2);
  const auto words = [](const Numbers<float>& numbers) { return reinterpret_cast<uint4*>(numbers.data()); };
  const rwkv::CudaStream& stream = be.stream();
  const dim3 grid(static_cast<unsigned>(stream.properties().multiProcessorCount * 8)), block(256);
  const double both = 2.0 * static_cast<double>(bytes);
  const double by_kernel = seconds_of(be, [&] {
    stream.launch({grid, block}, stream_kernel<true>, words(from), words(to), bytes / 16);
  });
  const double by_runtime = seconds_of(be, [&] {
    RWKV_CUDA_TRY(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream.handle()));
  });
  found.copy = both / std::min(by_kernel, by_runtime);
  found.read = both / 2 / seconds_of(be, [&] {
                 stream.launch({grid, block}, stream_kernel<false>, words(from), words(to), bytes / 16);
               });
}

void measure_arithmetic(const Cuda& be, Ceilings& found) {
  const rwkv::CudaStream& stream = be.stream();
  const auto processors = static_cast<unsigned>(stream.properties().multiProcessorCount);
  // Numbers of either sign and size near 1, two in every word.
  const Numbers<rwkv::bf16> numbers(be, 8192, -1, 1, 3);
  const Numbers<float> to(be, 4, 0, 1, 4);
  const rwkv::Memory<Cuda> cycles(be, sizeof(long long));
  const auto counted = reinterpret_cast<long long*>(cycles.data());

  constexpr int chains = 8, fma_steps = 20000;
  constexpr unsigned threads = 512, per_processor = 4;
  const double fma_seconds = seconds_of(be, [&] {
    stream.launch({dim3(processors * per_processor), dim3(threads)}, fma_kernel<chains>, to.data(), fma_steps, 0.999f,
                  0.001f, counted);
  });
  found.fma = 2.0 * chains * fma_steps * threads * per_processor * processors / fma_seconds;
  long long ran = 0;
  RWKV_CUDA_TRY(cudaMemcpy(&ran, counted, sizeof ran, cudaMemcpyDefault));
  found.clock = static_cast<double>(ran) / fma_seconds;

  constexpr int tiles = 8, mma_steps = 4000;
  constexpr unsigned warps = 8, mma_per_processor = 2;
  const double mma_seconds = seconds_of(be, [&] {
    stream.launch({dim3(processors * mma_per_processor), dim3(warps * 32)}, mma_kernel<tiles>,
                  reinterpret_cast<const unsigned*>(numbers.data()), to.data(), mma_steps);
  });
  found.mma = 2.0 * 16 * 8 * 16 * tiles * mma_steps * warps * mma_per_processor * processors / mma_seconds;

  constexpr int steps = 2000;
  const double shared_seconds = seconds_of(be, [&] {
    stream.launch({dim3(processors * 2), dim3(512)}, broadcast_kernel, reinterpret_cast<unsigned*>(to.data()), steps);
  });
  found.shared = 16.0 * 16 * steps * 512 * 2 * processors / shared_seconds;
}

void measure_launches(const Cuda& be, Ceilings& found) {
  const rwkv::CudaStream& stream = be.stream();
  constexpr int length = 500;
  const auto chain = [&](bool early) {
    for (int i = 0; i < length; ++i) stream.launch({dim3(1), dim3(32), 0, early}, relay_kernel);
  };
  const Graph plain(stream, [&] { chain(false); }), overlapped(stream, [&] { chain(true); });
  found.edge = seconds_of(be, [&] { plain.replay(); }) / length;
  found.early_edge = seconds_of(be, [&] { overlapped.replay(); }) / length;
  be.sync();
  const auto begin = std::chrono::steady_clock::now();
  chain(false);
  found.launch = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / length;
  be.sync();
}

}  // namespace

Ceilings measure_ceilings(const Cuda& be) {
  Ceilings found;
  measure_memory(be, found);
  measure_arithmetic(be, found);
  measure_launches(be, found);
  return found;
}

}  // namespace bench
