/// Oracle: the gradients of the wkv4 goldens.
#include <doctest/doctest.h>

#include "../golden.hpp"
#include "wkv_back.hpp"

using namespace rwkv;
using config::Buffer;
using config::ChannelBack;

namespace {

/// aa, bb, pp as [batch, 3, width]; zero for tensors that the file does not have. The cotangent of the exponent is not
/// zero, because it must have no effect.
std::vector<double> state_of(const golden::File& file, const std::string& prefix, Index batch, Index width) {
  std::vector<double> state;
  for (Index b = 0; b < batch; ++b) {
    for (const std::string name : {"aa", "bb", "pp"}) {
      for (Index c = 0; c < width; ++c) {
        const double otherwise = name == "pp" ? 5 : 0;
        state.push_back(file.has(prefix + name) ? file[prefix + name].values[static_cast<std::size_t>(b * width + c)]
                                                : otherwise);
      }
    }
  }
  return state;
}

template <class Config, class Schedule>
void check_wkv4_back(const std::filesystem::path& path, Schedule schedule) {
  using T = typename Config::scalar;
  CAPTURE(path.filename().string());
  const golden::File file(path);
  const auto k = file["in.k"];
  const Index batch = k.size(0), time = k.size(1), width = k.size(2);
  const auto buffer = [&](const std::string& name) { return Buffer<T>(file[name].values); };
  ChannelBack<T> back{batch,
                      time,
                      width,
                      buffer("in.time_decay"),
                      buffer("in.time_first"),
                      buffer("in.k"),
                      buffer("in.v"),
                      buffer("cot.y"),
                      Buffer<T>(state_of(file, "in.state.", batch, width)),
                      Buffer<T>(state_of(file, "cot.state.", batch, width))};
  back.run(Config::backend(), schedule);

  const std::string name = path.filename().string();
  const double in_float = name.find("k80") != std::string::npos    ? 5e-5
                          : name.find("_t1_") != std::string::npos ? 1e-4
                                                                   : 1e-5;
  const auto check = [&](const auto& got, const std::string& tensor) {
    CAPTURE(tensor);
    const auto want = file[tensor];
    const double limit = std::is_same_v<T, double> ? golden::tolerance<T>(want) : in_float;
    double size = 1e-30;  // the gradient of an empty state is zero, up to the smallest exponential of a pack
    for (const double number : want.values) size = std::max(size, std::abs(number));
    CHECK(golden::max_error(got, want.values) < limit * size);
  };
  check(back.dk.numbers, "grad.k");
  check(back.dv.numbers, "grad.v");
  check(back.draw.numbers, "grad.time_decay");
  check(back.du.numbers, "grad.time_first");
  const char* const components[] = {"grad.state.aa", "grad.state.bb", "grad.state.pp"};
  for (Index n = 0; n < 3; ++n) {
    if (!file.has(components[n])) continue;
    std::vector<T> component;
    for (Index b = 0; b < batch; ++b) {
      for (Index c = 0; c < width; ++c) component.push_back(back.dfirst[(b * 3 + n) * width + c]);
    }
    check(component, components[n]);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the gradients of WKV4 are those of the goldens", C, RWKV_TEST_CONFIGS) {
  for (const auto& path : golden::files("ops", "wkv4_", 6)) {
    check_wkv4_back<C>(path, Sequential{});
    check_wkv4_back<C>(path, Scan{64});
  }
}
