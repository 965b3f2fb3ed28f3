#include "suite.cuh"

#include <cerrno>
#include <cstring>
#include <exception>

namespace bench {

namespace {

int attribute_of(int device, cudaDeviceAttr which) {
  int value = 0;
  RWKV_CUDA_TRY(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

/// Four digits.
std::string digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

}  // namespace

Suite::Suite(Cuda be, const Options& options)
    : backend_(std::move(be)), options_(options), filter_(options.filter), ceilings_(measure_ceilings(backend_)) {
  if (options_.csv.empty()) return;
  csv_ = std::fopen(options_.csv.c_str(), "w");
  rwkv::expects(csv_ != nullptr, options_.csv, ": ", std::strerror(errno));
  std::fputs(
      "section,kernel,shape,number,time_us,spread_percent,repeats,floor_us,limit,x_floor,goal,met,GB_per_s,TFLOP_per_s,"
      "remark\n",
      csv_);
}

Suite::~Suite() {
  if (csv_ != nullptr) std::fclose(csv_);
}

void Suite::print_device() {
  const cudaDeviceProp& device = backend_.stream().properties();
  const int nth = backend_.stream().device();
  int driver = 0, runtime = 0;
  RWKV_CUDA_TRY(cudaDriverGetVersion(&driver));
  RWKV_CUDA_TRY(cudaRuntimeGetVersion(&runtime));
  std::printf(
      "- %s, compute capability %d.%d, %d multiprocessors, %.1f GB, L2 %.0f MB; clocks at most %.0f MHz, memory %.0f "
      "MHz\n- driver of CUDA %d.%d, runtime %d.%d, library %d.%d.%d%s%s\n",
      device.name, device.major, device.minor, device.multiProcessorCount,
      static_cast<double>(device.totalGlobalMem) / 1e9, static_cast<double>(device.l2CacheSize) / 1048576,
      attribute_of(nth, cudaDevAttrClockRate) / 1e3, attribute_of(nth, cudaDevAttrMemoryClockRate) / 1e3, driver / 1000,
      driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, RWKV_VERSION_MAJOR, RWKV_VERSION_MINOR,
      RWKV_VERSION_PATCH, options_.quick ? "; quick" : "", options_.eager ? "; kernels launched one by one" : "");
  const Ceilings& c = ceilings_;
  std::printf(
      "- ceilings: copy %.0f GB/s, read %.0f GB/s, FMA %.1f TFLOP/s at %.0f MHz, mma.sync bf16 %.0f TFLOP/s, broadcast "
      "LDS.128 %.1f TB/s, graph edge %.2f us, with early launch %.2f us, launch by the host %.2f us\n",
      c.copy / 1e9, c.read / 1e9, c.fma / 1e12, c.clock / 1e6, c.mma / 1e12, c.shared / 1e12, c.edge * 1e6,
      c.early_edge * 1e6, c.launch * 1e6);
  std::fflush(stdout);
}

Index Suite::sets(double bytes) const {
  const double cache = backend_.stream().properties().l2CacheSize;
  return static_cast<Index>(3 * cache / bytes) + 1;
}

void Suite::run(const Case& what, const std::function<void()>& run) {
  if (!std::regex_search(what.name(), filter_)) return;
  try {
    run();
    backend_.sync();
  } catch (const std::exception& error) {
    failed_ = true;
    say(what, std::string("failed: ") + error.what());
  }
}

void Suite::say(const Case& what, const std::string& text) {
  head();
  std::printf("| %s | %s | %s | %s |\n", what.kernel.c_str(), what.shape.c_str(), what.number.c_str(), text.c_str());
  std::fflush(stdout);
}

std::vector<double> Suite::seconds_of(Index sets, const std::function<void(Index)>& call) {
  const rwkv::CudaStream& stream = backend_.stream();
  const StreamClock clock(stream);
  const auto each_set = [&] {
    for (Index set = 0; set < sets; ++set) call(set);
  };
  each_set();
  const double once = clock(each_set);
  // A repetition is long against the ends of a recording and uses all sets equally often.
  constexpr double least_seconds = 1e-3;
  const Index most_rounds = std::max<Index>(1, 500 / sets);
  const auto rounds = std::clamp<Index>(static_cast<Index>(std::min(least_seconds / once, 1e6)) + 1, 1, most_rounds);
  const auto all = [&] {
    for (Index round = 0; round < rounds; ++round) each_set();
  };
  std::vector<double> seconds;
  const auto repeat = [&](const auto& work) {
    clock(work);
    for (int r = 0; r < repeats; ++r) seconds.push_back(clock(work) / static_cast<double>(rounds * sets));
  };
  if (options_.eager) {
    repeat(all);
  } else {
    const Graph graph(stream, all);
    repeat([&] { graph.replay(); });
  }
  return seconds;
}

/// Work that writes little is compared with the bandwidth of reading.
double Suite::memory_seconds(const Work& work) const {
  return (work.read + work.written) / (work.written < 0.1 * work.read ? ceilings_.read : ceilings_.copy);
}

double Suite::floor_of(const Work& work) const {
  return std::max(memory_seconds(work), work.flops / (work.unit == Work::mma ? ceilings_.mma : ceilings_.fma));
}

const char* Suite::limit_of(const Work& work) const {
  if (floor_of(work) > memory_seconds(work)) return work.unit == Work::mma ? "mma" : "FMA";
  return work.written < 0.1 * work.read ? "read" : "copy";
}

void Suite::head() {
  if (!head_due_) return;
  head_due_ = false;
  std::printf(
      "\n## %s\n\n| kernel | shape | numbers | time, us | spread, %% | floor, us | limit | x floor | goal | met | GB/s | "
      "TFLOP/s | |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
      section_.c_str());
}

void Suite::report(const Case& what, const std::vector<double>& seconds, const std::string& remark) {
  head();
  const double time = median(seconds), floor = floor_of(what.work), ratio = time / floor;
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  // Between the tenth and the ninetieth percentile.
  const auto count = sorted.size();
  const double spread = (sorted[count - 1 - count / 10] - sorted[count / 10]) / time * 100;
  const char* met = what.goal == 0 ? "" : ratio <= what.goal ? "yes" : "no";
  const std::string goal = what.goal == 0 ? "" : digits(what.goal);
  const double rate = (what.work.read + what.work.written) / time / 1e9, tera = what.work.flops / time / 1e12;
  const std::string row[] = {what.kernel,
                             what.shape,
                             what.number,
                             digits(time * 1e6),
                             digits(spread),
                             digits(floor * 1e6),
                             limit_of(what.work),
                             digits(ratio),
                             goal,
                             met,
                             digits(rate),
                             tera > 0 ? digits(tera) : "",
                             remark};
  std::string line = "|";
  for (const std::string& cell : row) line += " " + cell + " |";
  std::puts(line.c_str());
  std::fflush(stdout);
  if (csv_ == nullptr) return;
  std::fprintf(csv_, "%s,%s,%s,%s,%.9g,%.4g,%zu,%.9g,%s,%.6g,%s,%s,%.6g,%.6g,%s\n", section_.c_str(),
               what.kernel.c_str(), what.shape.c_str(), what.number.c_str(), time * 1e6, spread, count, floor * 1e6,
               limit_of(what.work), ratio, goal.c_str(), met, rate, tera, remark.c_str());
  std::fflush(csv_);
}

}  // namespace bench
