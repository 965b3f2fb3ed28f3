/// Time per token and resident memory by position, 1 to 100000: RWKV remembers the past in a state of fixed size, so
/// both must stay flat. Writes a CSV to the file named by the first argument, or to the console.
#include <fstream>
#include <iostream>
#include <string>

#include "../limits.hpp"
#include "../synthetic.hpp"

namespace {

/// Resident memory of this process in kilobytes, as the system counts it.
long resident_kilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stol(line.substr(6));
  }
  return 0;
}

void write_table(std::ostream& out) {
  using Net = rwkv::LanguageModel<rwkv::V4, float, rwkv::Cpu>;
  constexpr bench::Index last = 100'000, every = 4'000;
  Net net({.vocab = 256, .width = 128, .depth = 4});
  bench::FillParameters fill;
  for (auto& parameter : net.parameters()) fill(parameter, parameter);
  auto context = net.context();
  std::vector<double> times(static_cast<std::size_t>(every));
  out << "positions,median_us_per_token,worst_us_per_token,resident_kB\n";
  for (bench::Index begin = 0; begin < last; begin += every) {
    for (bench::Index t = 0; t < every; ++t) {
      const auto start = bench::Clock::now();
      context.step(static_cast<rwkv::Token>((begin + t) * 97 % 256));
      times[static_cast<std::size_t>(t)] = bench::seconds_since(start) * 1e6;
    }
    out << begin + 1 << '-' << begin + every << ',' << bench::median(times) << ','
        << *std::max_element(times.begin(), times.end()) << ',' << resident_kilobytes() << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc <= 1) {
    write_table(std::cout);
    return 0;
  }
  std::ofstream file(argv[1]);
  write_table(file);
  if (!file.flush()) {
    std::cerr << "position: cannot write " << argv[1] << '\n';
    return 1;
  }
}
