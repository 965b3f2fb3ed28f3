/// Oracle: what the documentation of the CUDA runtime says, and faults put into programs on purpose, each of which the
/// emulated runtime must report.
#include <cuda_runtime.h>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t seeds[] = {1, 2, 3, 4, 5, 6, 7, 8};

/// Device memory that frees itself.
template <class T>
struct Buffer {
  explicit Buffer(std::size_t size_) : size(size_) { REQUIRE(cudaMalloc(&data, size * sizeof(T)) == cudaSuccess); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  std::vector<T> read(cudaStream_t stream) const {
    std::vector<T> out(size);
    REQUIRE(cudaMemcpyAsync(out.data(), data, size * sizeof(T), cudaMemcpyDefault, stream) == cudaSuccess);
    return out;
  }

  std::size_t size;
  T* data = nullptr;
};

struct Stream {
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking) == cudaSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(handle); }
  operator cudaStream_t() const { return handle; }

  cudaStream_t handle = nullptr;
};

struct Event {
  Event() { REQUIRE(cudaEventCreateWithFlags(&handle, cudaEventDefault) == cudaSuccess); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(handle); }
  operator cudaEvent_t() const { return handle; }

  cudaEvent_t handle = nullptr;
};

cudaLaunchConfig_t shape(unsigned grid, unsigned block, cudaStream_t stream, std::size_t shared = 0) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return config;
}

template <class... Params, class... Args>
cudaError_t run(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Args... args) {
  return cudaLaunchKernelEx(&config, kernel, args...);
}

__global__ void set_all(int* out, int value) { out[blockIdx.x * blockDim.x + threadIdx.x] = value; }
__global__ void add_all(int* out, const int* in) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] += in[i];
}

TEST_CASE("simt: work is queued until the host waits, with its arguments as they were") {
  const Stream stream;
  const Buffer<int> numbers(64);
  int value = 3;
  const long before = simt::counts.launches;
  CHECK(run(shape(2, 32, stream), set_all, numbers.data, value) == cudaSuccess);
  value = 4;
  CHECK(simt::counts.launches == before);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(simt::counts.launches == before + 1);
  CHECK(numbers.read(stream) == std::vector<int>(64, 3));

  // A copy from memory that is not registered takes its source at once; one from registered memory, when it runs.
  std::vector<int> source(64, 5);
  CHECK(cudaMemcpyAsync(numbers.data, source.data(), 64 * sizeof(int), cudaMemcpyDefault, stream) == cudaSuccess);
  std::fill(source.begin(), source.end(), 6);
  CHECK(numbers.read(stream) == std::vector<int>(64, 5));
  int* pinned = nullptr;
  REQUIRE(cudaHostAlloc(&pinned, 64 * sizeof(int), cudaHostAllocDefault) == cudaSuccess);
  CHECK(cudaMemcpyAsync(numbers.data, pinned, 64 * sizeof(int), cudaMemcpyHostToDevice, stream) == cudaSuccess);
  std::fill(pinned, pinned + 64, 7);
  CHECK(numbers.read(stream) == std::vector<int>(64, 7));
  CHECK(cudaMemsetAsync(numbers.data, 0, 32 * sizeof(int), stream) == cudaSuccess);
  CHECK(cudaMemcpyAsync(pinned, numbers.data, 64 * sizeof(int), cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  CHECK(pinned[0] == 7);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(pinned[0] == 0);
  CHECK(pinned[32] == 7);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

TEST_CASE("simt: a copy in two dimensions moves the rows and nothing between them") {
  const Stream stream;
  const Buffer<int> numbers(6 * 4);
  CHECK(cudaMemsetAsync(numbers.data, 0, 24 * sizeof(int), stream) == cudaSuccess);
  std::vector<int> rows(3 * 5);
  std::iota(rows.begin(), rows.end(), 1);
  CHECK(cudaMemcpy2DAsync(numbers.data + 1, 6 * sizeof(int), rows.data(), 5 * sizeof(int), 4 * sizeof(int), 3,
                          cudaMemcpyDefault, stream) == cudaSuccess);
  std::fill(rows.begin(), rows.end(), 0);
  const std::vector<int> got = numbers.read(stream);
  CHECK(got == std::vector<int>{0, 1, 2, 3, 4, 0, 0, 6, 7, 8, 9, 0, 0, 11, 12, 13, 14, 0, 0, 0, 0, 0, 0, 0});
  CHECK(cudaMemcpy2DAsync(numbers.data, 12, rows.data(), 20, 16, 3, cudaMemcpyDefault, stream) ==
        cudaErrorInvalidPitchValue);
  CHECK(cudaMemcpyAsync(numbers.data + 20, rows.data(), 20, cudaMemcpyDefault, stream) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(numbers.data, rows.data(), 20, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("simt: a captured graph replays") {
  const Stream stream;
  const Buffer<int> sum(32), one(32);
  CHECK(run(shape(1, 32, stream), set_all, sum.data, 0) == cudaSuccess);
  CHECK(run(shape(1, 32, stream), set_all, one.data, 1) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(run(shape(1, 32, stream), add_all, sum.data, one.data) == cudaSuccess);
  CHECK(run(shape(1, 32, stream), add_all, sum.data, one.data) == cudaSuccess);
  CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
  CHECK(status == cudaStreamCaptureStatusActive);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(sum.read(stream) == std::vector<int>(32, 0));
  CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(sum.read(stream) == std::vector<int>(32, 6));
}

TEST_CASE("simt: a capture takes a second stream in and refuses what CUDA refuses") {
  const Stream stream, other;
  const Buffer<int> numbers(32);
  const Event fork, join;
  cudaGraph_t graph = nullptr;
  const auto begin = [&] {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaEventRecord(fork, stream) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(other, fork) == cudaSuccess);
    CHECK(run(shape(1, 32, other), set_all, numbers.data, 9) == cudaSuccess);
  };
  begin();
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureUnjoined);

  begin();
  CHECK(cudaEventRecord(join, other) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(stream, join) == cudaSuccess);
  CHECK(cudaEventSynchronize(join) == cudaErrorCapturedEvent);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaGraphInstantiate(&exec, graph) == cudaSuccess);
  CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  CHECK(numbers.read(stream) == std::vector<int>(32, 9));
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);

  std::vector<int> pageable(32);
  void* memory = nullptr;
  const auto refused = [&](auto call) {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(call() == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
  };
  refused([&] { return cudaMalloc(&memory, 16); });
  refused([&] { return cudaFree(numbers.data); });
  refused([&] { return cudaStreamSynchronize(stream); });
  refused([&] { return cudaDeviceSynchronize(); });
  refused([&] { return cudaMemcpyAsync(numbers.data, pageable.data(), 128, cudaMemcpyDefault, stream); });
  refused([&] { return cudaMemcpyAsync(pageable.data(), numbers.data, 128, cudaMemcpyDefault, stream); });
  cudaGetLastError();
}

TEST_CASE("simt: streams run in any order that events allow") {
  std::set<int> ends;
  for (const std::uint64_t seed : seeds) {
    simt::seed = seed;
    const Stream first, second;
    const Buffer<int> raced(1), ordered(1);
    const Event event;
    CHECK(run(shape(1, 1, first), set_all, raced.data, 1) == cudaSuccess);
    CHECK(run(shape(1, 1, second), set_all, raced.data, 2) == cudaSuccess);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    ends.insert(raced.read(first).front());

    for (int i = 0; i < 10; ++i) CHECK(run(shape(1, 1, first), set_all, ordered.data, i) == cudaSuccess);
    CHECK(cudaEventRecord(event, first) == cudaSuccess);
    CHECK(cudaEventQuery(event) == cudaErrorNotReady);
    CHECK(cudaStreamWaitEvent(second, event) == cudaSuccess);
    CHECK(run(shape(1, 1, second), add_all, ordered.data, ordered.data) == cudaSuccess);
    CHECK(ordered.read(second) == std::vector<int>{18});
    CHECK(cudaEventQuery(event) == cudaSuccess);
    float time = -1;
    CHECK(cudaEventElapsedTime(&time, event, event) == cudaSuccess);
    CHECK(time == 0);
  }
  CHECK(ends == std::set<int>{1, 2});
}

/// Whether a child of this process that calls `act` dies of a signal.
template <class F>
bool dies(F act) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(STDERR_FILENO);
    for (const int fault : {SIGSEGV, SIGBUS}) signal(fault, SIG_DFL);
    act();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

__global__ void touch(int* at) { *at = 1; }

TEST_CASE("simt: who touches memory that is not his dies") {
  const Stream stream;
  const Buffer<int> numbers(1000);
  const auto on_device = [&](int* at) {
    return [=, &stream] {
      (void)run(shape(1, 1, stream), touch, at);
      cudaStreamSynchronize(stream);
    };
  };
  CHECK(dies([&] { *const_cast<volatile int*>(numbers.data) = 1; }));
  CHECK_FALSE(dies(on_device(numbers.data)));
  CHECK(dies(on_device(numbers.data + 1024)));
  CHECK(dies(on_device(numbers.data - 1024)));
  int* freed = nullptr;
  REQUIRE(cudaMalloc(&freed, 64) == cudaSuccess);
  REQUIRE(cudaFree(freed) == cudaSuccess);
  CHECK(dies(on_device(freed)));
  // Between the end and the guard page a write is found afterwards.
  CHECK(run(shape(1, 1, stream), touch, numbers.data + 1000) == cudaSuccess);
  CHECK_THROWS_WITH_AS(cudaStreamSynchronize(stream), doctest::Contains("behind the end"), simt::Error);
  CHECK(reinterpret_cast<std::uintptr_t>(numbers.data) % 256 == 0);
  CHECK(numbers.read(stream)[999] == -1);
}

TEST_CASE("simt: pointers know what they point to") {
  const Buffer<int> numbers(10);
  int local = 0;
  void* pinned = nullptr;
  REQUIRE(cudaHostAlloc(&pinned, 100, cudaHostAllocDefault) == cudaSuccess);
  cudaPointerAttributes attributes = {};
  CHECK(cudaPointerGetAttributes(&attributes, numbers.data + 9) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeDevice);
  CHECK(attributes.devicePointer == numbers.data + 9);
  CHECK(cudaPointerGetAttributes(&attributes, static_cast<char*>(pinned) + 99) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeHost);
  CHECK(attributes.devicePointer == attributes.hostPointer);
  CHECK(cudaPointerGetAttributes(&attributes, &local) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  CHECK(attributes.devicePointer == nullptr);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

TEST_CASE("simt: leaks are counted and memory runs out") {
  const simt::Counts before = simt::counts;
  void *memory = nullptr, *host = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  CHECK(cudaMalloc(&memory, 1000) == cudaSuccess);
  CHECK(cudaHostAlloc(&host, 10, cudaHostAllocDefault) == cudaSuccess);
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(simt::counts.device_allocations == before.device_allocations + 1);
  CHECK(simt::counts.device_bytes == before.device_bytes + 1000);
  CHECK(simt::counts.host_allocations == before.host_allocations + 1);
  CHECK(simt::counts.streams == before.streams + 1);
  CHECK(simt::counts.events == before.events + 1);

  const std::size_t limit = std::exchange(simt::device_bytes_limit, simt::counts.device_bytes + 99);
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 100) == cudaErrorMemoryAllocation);
  CHECK(more == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  std::size_t free = 0, total = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free == 99);
  simt::device_bytes_limit = limit;

  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaErrorInvalidValue);
  CHECK(cudaFreeHost(host) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(simt::counts.device_allocations == before.device_allocations);
  CHECK(simt::counts.device_bytes == before.device_bytes);
  CHECK(simt::counts.host_bytes == before.host_bytes);
  CHECK(simt::counts.streams == before.streams);
  CHECK(simt::counts.events == before.events);
  cudaGetLastError();
}

template <class Element>
__global__ void reverse(int* numbers) {
  auto* const slots = simt::dynamic_shared<Element>();
  const unsigned i = threadIdx.x;
  slots[i] = numbers[i];
  __syncthreads();
  numbers[i] = slots[blockDim.x - 1 - i];
}

TEST_CASE("simt: a launch that no GPU takes is refused") {
  const Stream stream;
  std::vector<int> numbers(1024);
  const auto with = [&](dim3 grid, dim3 block, std::size_t shared = 0) {
    cudaLaunchConfig_t config = shape(1, 1, stream, shared);
    config.gridDim = grid;
    config.blockDim = block;
    return run(config, reverse<simt::Shared<int>>, numbers.data());
  };
  CHECK(with(0, 1) == cudaErrorInvalidConfiguration);
  CHECK(with(1, 0) == cudaErrorInvalidConfiguration);
  CHECK(with({1, 65536}, 1) == cudaErrorInvalidConfiguration);
  CHECK(with(1, 1025) == cudaErrorInvalidConfiguration);
  CHECK(with(1, {32, 33}) == cudaErrorInvalidConfiguration);
  CHECK(with(1, {1, 1, 65}) == cudaErrorInvalidConfiguration);
  CHECK(with(1, 1024, (48 << 10) + 1) == cudaErrorInvalidValue);
  const auto raise = [](int bytes) {
    return cudaFuncSetAttribute(reverse<simt::Shared<int>>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  CHECK(raise((227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(raise(227 << 10) == cudaSuccess);
  CHECK(with(1, 1024, 227 << 10) == cudaSuccess);
  CHECK(with(1, 1024, (227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(raise(48 << 10) == cudaSuccess);
  cudaLaunchConfig_t config = shape(1, 1024, stream, 1024 * sizeof(int));
  cudaLaunchAttribute attribute = {};
  config.attrs = &attribute;
  config.numAttrs = 1;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  CHECK(run(config, reverse<simt::Shared<int>>, numbers.data()) == cudaSuccess);
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {2, 1, 1};
  CHECK(run(config, reverse<simt::Shared<int>>, numbers.data()) == cudaErrorNotSupported);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  cudaGetLastError();
}

template <class Element, bool Barrier>
__global__ void rotate(int* out) {
  __shared__ Element slots[64];
  slots[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (Barrier) __syncthreads();
  out[threadIdx.x] = slots[(threadIdx.x + 1) % 64];
}
__global__ void diverge() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}

__global__ void record_order(std::vector<unsigned>* order) { order->push_back(blockIdx.x * blockDim.x + threadIdx.x); }

TEST_CASE("simt: a seed decides the order of threads, of blocks and of every launch") {
  std::set<std::vector<unsigned>> orders;
  for (const bool shuffled : {false, true}) {
    simt::shuffle_blocks = shuffled;
    for (int repeat = 0; repeat < 2; ++repeat) {
      for (const std::uint64_t seed : seeds) {
        simt::seed = seed;
        std::vector<unsigned> order;
        for (int launch = 0; launch < 2; ++launch) {
          CHECK(run(shape(8, 4, nullptr), record_order, &order) == cudaSuccess);
        }
        CHECK(cudaStreamSynchronize(nullptr) == cudaSuccess);
        REQUIRE(order.size() == 64);
        CHECK(!std::equal(order.begin(), order.begin() + 32, order.begin() + 32));
        bool ascending = true;
        for (unsigned i = 0; i < 64; ++i) ascending = ascending && order[i] / 4 == i / 4 % 8;
        CHECK(ascending != shuffled);
        orders.insert(order);
      }
    }
  }
  simt::shuffle_blocks = false;
  CHECK(orders.size() == 2 * std::size(seeds));
}

TEST_CASE("simt: a fault in a kernel comes out of the call that waits, and drops what follows") {
  const Stream stream;
  const Buffer<int> numbers(64);
  for (const std::uint64_t seed : seeds) {
    simt::seed = seed;
    CHECK(run(shape(1, 64, stream), rotate<simt::Shared<int>, true>, numbers.data) == cudaSuccess);
    CHECK(numbers.read(stream)[63] == 0);
    CHECK(run(shape(1, 64, stream), rotate<simt::Shared<int>, false>, numbers.data) == cudaSuccess);
    CHECK(run(shape(2, 32, stream), set_all, numbers.data, 5) == cudaSuccess);
    CHECK_THROWS_AS(cudaStreamSynchronize(stream), simt::Error);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(numbers.read(stream)[0] != 5);
    CHECK(run(shape(1, 64, stream), diverge) == cudaSuccess);
    CHECK_THROWS_WITH_AS(cudaDeviceSynchronize(), doctest::Contains("diverge"), simt::Error);
    // A call that destructors make keeps it for the next.
    CHECK(run(shape(1, 64, stream), diverge) == cudaSuccess);
    CHECK(cudaFree(nullptr) == cudaSuccess);
    { const Buffer<int> unused(1); }
    CHECK_THROWS_WITH_AS(cudaDeviceSynchronize(), doctest::Contains("diverge"), simt::Error);
  }
}

TEST_CASE("simt: errors are put in by number and by name") {
  const simt::Counts before = simt::counts;
  void* memory = nullptr;
  simt::fail_call(2, cudaErrorECCUncorrectable);
  CHECK(cudaMalloc(&memory, 16) == cudaSuccess);
  CHECK(cudaMemsetAsync(memory, 0, 16) == cudaErrorECCUncorrectable);
  CHECK(cudaPeekAtLastError() == cudaErrorECCUncorrectable);
  CHECK(cudaMemsetAsync(memory, 0, 16) == cudaSuccess);
  simt::fail_function("cudaFree", cudaErrorLaunchFailure);
  CHECK(cudaFree(memory) == cudaErrorLaunchFailure);
  CHECK(simt::counts.device_allocations == before.device_allocations);
  simt::fail_nothing();
  CHECK(simt::counts.failures == before.failures + 2);
  CHECK(std::string(cudaGetErrorName(cudaGetLastError())) == "cudaErrorLaunchFailure");
}

TEST_CASE("simt: a machine may have no device, an old driver, another device, or no kernel for it") {
  const simt::Device usual = simt::device;
  int count = -1, value = 0;
  simt::device.count = 0;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(count == 0);
  simt::device = usual;
  simt::device.driver_version = 11080;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(cudaDriverGetVersion(&value) == cudaSuccess);
  CHECK(value == 11080);
  simt::device = usual;
  simt::device.major = 7;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  CHECK(value == 7);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
  simt::device = usual;
  simt::device.kernel_image = false;
  std::vector<int> numbers(32);
  CHECK(run(shape(1, 32, nullptr), set_all, numbers.data(), 1) == cudaErrorNoKernelImageForDevice);
  cudaFuncAttributes attributes = {};
  CHECK(cudaFuncGetAttributes(&attributes, set_all) == cudaErrorNoKernelImageForDevice);
  simt::device = usual;
  simt::device.count = 2;
  const Stream of_first;
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(run(shape(1, 32, of_first), set_all, numbers.data(), 1) == cudaErrorInvalidResourceHandle);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  simt::device = usual;
  cudaDeviceProp properties = {};
  CHECK(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK(properties.sharedMemPerBlockOptin == 227 << 10);
  cudaGetLastError();
}

}  // namespace
