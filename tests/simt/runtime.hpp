#pragma once
/// The machine behind the emulated CUDA runtime, and what tests set and read of it. include/cuda_runtime.h has the
/// functions of the API.
///
/// Work on a stream is queued and runs only when the host waits: at a synchronisation, or at a copy that CUDA does not
/// return from early. Several streams take turns, operation by operation, in a random order that simt::seed chooses and
/// that events restrict. An exception of a kernel leaves through the call that waits, and all other queued work is
/// dropped. Calls that release something are used by destructors: they keep the exception for the next call that waits.
///
/// Stricter than CUDA: no stream waits for the null stream; a captured copy needs registered host memory.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_types.hpp"
#include "device_memory.hpp"
#include "emulator.hpp"

namespace simt {

/// Properties of the emulated machine. Tests may change them.
struct Device {
  int count = 1;  ///< of devices
  int major = 9, minor = 0;
  int multiprocessors = 4;
  int driver_version = 13000;
  bool kernel_image = true;  ///< off, the program holds no kernel for this device
};
inline Device device;
inline std::size_t device_bytes_limit = std::size_t{8} << 30;  ///< above it, memory is out

/// The order of streams, blocks and threads. Assigning starts the sequence anew, so that a test repeats exactly.
struct Seed {
  detail::Random random{1};
  Seed& operator=(std::uint64_t value) {
    random = detail::Random{value};
    return *this;
  }
};
inline Seed seed;
inline bool shuffle_blocks = false;  ///< off, blocks run in ascending order
inline bool check_races = true;
inline bool host_memory_is_managed = false;  ///< whether the device reaches what tests allocate themselves

/// Objects that exist now, and events since the program began.
struct Counts {
  long device_allocations = 0, host_allocations = 0, streams = 0, events = 0, graphs = 0, graph_execs = 0;
  std::size_t device_bytes = 0, host_bytes = 0;
  long launches = 0;  ///< kernels that ran
  long waits = 0;     ///< of blocks for others of their launch
  long copies = 0;    ///< copies and fills that ran
  long calls = 0;     ///< of the runtime, other than for errors, their names and versions
  long failures = 0;  ///< that fail_call() and fail_function() made
  bool operator==(const Counts&) const = default;
};
inline Counts counts;

/// Faults to inject. A call that fails does nothing, but a call that releases something still releases it.
namespace detail {
struct Fault {
  cudaError_t error = cudaSuccess;
  long call = 0;              ///< by number, or
  const char* function = "";  ///< by name
};
inline Fault fault;
}  // namespace detail

/// Lets the n-th call from now fail, counting from 1.
inline void fail_call(long n, cudaError_t error) { detail::fault = {error, counts.calls + n}; }
/// Lets all calls of a function fail; keeps the pointer to its name.
inline void fail_function(const char* function, cudaError_t error) { detail::fault = {error, 0, function}; }
inline void fail_nothing() { detail::fault = {}; }

namespace detail {

/// A place in a stream that other streams wait for.
struct Record {
  bool done = false;
  std::chrono::steady_clock::time_point when = {};
};
using Work = std::shared_ptr<const std::function<void()>>;

/// An entry of a queue: exactly one of the three is set.
struct Operation {
  Work work;
  std::shared_ptr<Record> wait, record;

  bool ready() const { return wait == nullptr || wait->done; }
};

/// What streams do between cudaStreamBeginCapture and cudaStreamEndCapture.
struct Capture {
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread = std::this_thread::get_id();
  bool valid = true;
  std::vector<Work> works;
  std::map<cudaStream_t, long> unjoined;  ///< other streams, with the number of what they did last
};

}  // namespace detail
}  // namespace simt

struct CUstream_st {
  int device = 0;
  std::deque<simt::detail::Operation> queue = {};
  std::shared_ptr<simt::detail::Capture> capture = {};
  bool destroyed = false;  ///< and goes when its work is done
};
struct CUevent_st {
  int device = 0;
  bool timed = true;
  std::shared_ptr<simt::detail::Record> last = {};
  std::shared_ptr<simt::detail::Capture> capture = {};  ///< in which it was recorded last, with where:
  cudaStream_t stream = nullptr;
  long number = 0;
};
struct CUgraph_st {
  std::vector<simt::detail::Work> works;
};
struct CUgraphExec_st {
  std::vector<simt::detail::Work> works;
};

namespace simt::detail {

class Runtime {
 public:
  static constexpr int version = 13000;
  static constexpr int shared_bytes = 48 << 10, shared_bytes_optin = 227 << 10;

  static Runtime& instance() {
    static Runtime& runtime = *new Runtime;  // never destroyed: destructors at the end of the program still call it
    return runtime;
  }

  enum class Kind { query, ordinary, release };

  /// Every function of the API calls this. `body` does the work and may throw the exceptions of kernels.
  template <class F>
  cudaError_t call(const char* function, F body, Kind kind = Kind::ordinary) {
    const std::lock_guard lock(mutex_);
    const cudaError_t refused = kind == Kind::query ? cudaSuccess : enter(function);
    if (refused != cudaSuccess && kind != Kind::release) return last_error = refused;
    const cudaError_t error = body();
    return note(refused != cudaSuccess ? refused : error);
  }

  cudaError_t take_last_error() { return std::exchange(last_error, cudaSuccess); }
  cudaError_t peek_last_error() const { return last_error; }

  // --- Streams.

  CUstream_st* stream(cudaStream_t handle) {
    if (handle == nullptr) return &null_stream_;
    const auto found = std::find_if(streams_.begin(), streams_.end(), [&](const auto& s) { return s.get() == handle; });
    return found == streams_.end() || handle->destroyed ? nullptr : handle;
  }
  cudaStream_t new_stream() {
    ++counts.streams;
    return streams_.emplace_back(std::make_unique<CUstream_st>(CUstream_st{current_device})).get();
  }
  void delete_stream(cudaStream_t handle) {
    --counts.streams;
    handle->destroyed = true;
    bury();
  }

  /// Queues work, or captures it.
  void push(CUstream_st& stream, std::function<void()> work) {
    push(stream, std::make_shared<const std::function<void()>>(std::move(work)));
  }
  void push(CUstream_st& stream, Work work) {
    if (stream.capture == nullptr) {
      stream.queue.push_back({std::move(work), {}, {}});
    } else {
      stream.capture->works.push_back(std::move(work));
      touch(stream);
    }
  }

  /// Runs operations while pending() is true.
  template <class F>
  void run_while(F pending) {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    std::optional<DeviceMemory::Open> open;
    while (pending()) {
      if (!open) open.emplace();
      try {
        run_one();
      } catch (...) {
        drop_all();
        throw;
      }
    }
    if (open) DeviceMemory::instance().check_ends();
    bury();
  }
  void finish(CUstream_st& stream) {
    run_while([&] { return !stream.queue.empty(); });
  }
  void finish_all() {
    run_while([&] { return busy(); });
  }
  /// For calls that release something, which must not throw.
  void finish_all_quietly() {
    if (failure_) return;
    try {
      finish_all();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }
  /// Runs one operation, so that a host which polls makes progress.
  void advance() {
    bool once = busy();
    run_while([&] { return std::exchange(once, false); });
  }

  // --- Captures.

  /// Whether this thread may make a call that captures forbid. Invalidates the capture if not.
  bool outside_capture() {
    bool outside = true;
    for (const auto& capture : captures_) {
      if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
      if (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread != std::this_thread::get_id()) continue;
      capture->valid = outside = false;
    }
    return outside;
  }
  bool capturing() const { return !captures_.empty(); }
  cudaError_t spoil(CUstream_st& stream) {
    stream.capture->valid = false;
    return cudaErrorStreamCaptureUnsupported;
  }
  void begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode) {
    stream.capture = std::make_shared<Capture>();
    stream.capture->origin = &stream;
    stream.capture->mode = mode;
    captures_.insert(stream.capture);
  }
  cudaError_t end_capture(CUstream_st& stream, cudaGraph_t* graph) {
    const std::shared_ptr<Capture> capture = stream.capture;
    if (capture->origin != &stream) return cudaErrorStreamCaptureUnmatched;
    if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    captures_.erase(capture);
    stream.capture.reset();
    for (const auto& other : streams_) {
      if (other->capture == capture) other->capture.reset();
    }
    *graph = nullptr;
    if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
    if (!capture->unjoined.empty()) return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{std::move(capture->works)};
    ++counts.graphs;
    graphs.insert(*graph);
    return cudaSuccess;
  }

  // --- Events.

  void record(CUevent_st& event, CUstream_st& stream) {
    event.capture = stream.capture;
    if (stream.capture == nullptr) {
      event.last = std::make_shared<Record>();
      stream.queue.push_back({{}, {}, event.last});
    } else {
      event.stream = &stream;
      event.number = number_;
    }
  }
  cudaError_t wait(CUstream_st& stream, const CUevent_st& event) {
    if (event.capture == nullptr) {
      if (stream.capture != nullptr) {
        stream.capture->valid = false;
        return cudaErrorStreamCaptureIsolation;
      }
      if (event.last != nullptr) stream.queue.push_back({{}, event.last, {}});
      return cudaSuccess;
    }
    if (captures_.count(event.capture) == 0) return cudaErrorCapturedEvent;
    if (stream.capture != nullptr && stream.capture != event.capture) return cudaErrorStreamCaptureMerge;
    stream.capture = event.capture;
    if (event.stream == &stream) return cudaSuccess;
    const auto joined = event.capture->unjoined.find(event.stream);
    if (joined != event.capture->unjoined.end() && joined->second <= event.number)
      event.capture->unjoined.erase(joined);
    touch(stream);
    return cudaSuccess;
  }

  // --- Host memory and kernels.

  struct HostAllocation {
    std::size_t bytes;
    int device;
  };
  /// The registered host memory that `pointer` lies in; null if there is none.
  const std::pair<std::byte* const, HostAllocation>* find_host(const void* pointer) const {
    const auto after = host.upper_bound(static_cast<std::byte*>(const_cast<void*>(pointer)));
    if (after == host.begin()) return nullptr;
    const auto& candidate = *std::prev(after);
    return pointer < candidate.first + candidate.second.bytes ? &candidate : nullptr;
  }

  /// Queues a kernel, or says what is wrong with its launch.
  cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void(const Launch&)> run) {
    CUstream_st* const on = stream(config.stream);
    if (on == nullptr || (config.stream != nullptr && on->device != current_device)) {
      return cudaErrorInvalidResourceHandle;
    }
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (!simt::device.kernel_image) return cudaErrorNoKernelImageForDevice;
    const dim3 grid = config.gridDim, block = config.blockDim;
    const auto within = [](const dim3& extent, unsigned x, unsigned y, unsigned z) {
      return extent.x - 1 < x && extent.y - 1 < y && extent.z - 1 < z;  // 0 - 1 is not
    };
    if (!within(grid, 0x7fff'ffff, 0xffff, 0xffff) || !within(block, 1024, 1024, 64) ||
        std::size_t{block.x} * block.y * block.z > 1024) {
      return cudaErrorInvalidConfiguration;
    }
    if (config.dynamicSmemBytes > static_cast<std::size_t>(max_shared(kernel))) return cudaErrorInvalidValue;
    for (unsigned i = 0; i < config.numAttrs; ++i) {
      const cudaLaunchAttribute& attribute = config.attrs[i];
      const auto& cluster = attribute.val.clusterDim;
      if (attribute.id == cudaLaunchAttributeClusterDimension && cluster.x * cluster.y * cluster.z != 1) {
        return cudaErrorNotSupported;
      }
      if (attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative != 0) {
        return cudaErrorNotSupported;
      }
    }
    push(*on, [grid, block, bytes = config.dynamicSmemBytes, run = std::move(run)] {
      ++counts.launches;
      const std::uint64_t threads = seed.random(), blocks = seed.random() | 1;
      run({grid, block, bytes, threads, shuffle_blocks ? blocks : 0, check_races});
    });
    return cudaSuccess;
  }
  int max_shared(const void* kernel) const {
    const auto raised = max_shared_.find(kernel);
    return raised == max_shared_.end() ? shared_bytes : raised->second;
  }
  void set_max_shared(const void* kernel, int bytes) { max_shared_[kernel] = bytes; }

  std::map<std::byte*, HostAllocation> host;
  std::set<cudaEvent_t> events;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> execs;
  static inline thread_local int current_device = 0;
  static inline thread_local cudaError_t last_error = cudaSuccess;

 private:
  Runtime() = default;

  static cudaError_t note(cudaError_t error) {
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
  }
  static cudaError_t enter(const char* function) {
    ++counts.calls;
    if (fault.error != cudaSuccess && (fault.call == counts.calls || std::strcmp(fault.function, function) == 0)) {
      ++counts.failures;
      return fault.error;
    }
    if (simt::device.driver_version / 1000 < version / 1000) return cudaErrorInsufficientDriver;
    return simt::device.count == 0 ? cudaErrorNoDevice : cudaSuccess;
  }

  bool busy() const {
    bool any = !null_stream_.queue.empty();
    for (const auto& stream : streams_) any = any || !stream->queue.empty();
    return any;
  }
  /// Runs one operation of one stream. One is always ready, because operations only wait for earlier ones.
  void run_one() {
    ready_.clear();
    const auto consider = [&](CUstream_st& stream) {
      if (!stream.queue.empty() && stream.queue.front().ready()) ready_.push_back(&stream);
    };
    consider(null_stream_);
    for (const auto& stream : streams_) consider(*stream);
    CUstream_st& stream = *ready_[seed.random.below(static_cast<std::uint32_t>(ready_.size()))];
    const Operation operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (operation.work) (*operation.work)();
    if (operation.record) *operation.record = {true, std::chrono::steady_clock::now()};
  }
  void drop_all() {
    const auto drop = [](CUstream_st& stream) {
      for (const Operation& operation : stream.queue) {
        if (operation.record) operation.record->done = true;
      }
      stream.queue.clear();
    };
    drop(null_stream_);
    for (const auto& stream : streams_) drop(*stream);
  }
  void bury() {
    std::erase_if(streams_, [](const auto& stream) { return stream->destroyed && stream->queue.empty(); });
  }
  /// A captured stream that is not the origin has done something that the origin must still wait for.
  void touch(CUstream_st& stream) {
    if (stream.capture->origin != &stream) stream.capture->unjoined[&stream] = ++number_;
  }

  std::recursive_mutex mutex_;
  std::vector<std::unique_ptr<CUstream_st>> streams_;  // in the order they were created
  CUstream_st null_stream_;
  std::vector<CUstream_st*> ready_;
  std::set<std::shared_ptr<Capture>> captures_;
  std::map<const void*, int> max_shared_;
  std::exception_ptr failure_;
  long number_ = 0;
};

}  // namespace simt::detail
