/// Oracle: the timemix_v4, channelmix_v4v5 and tokenshift goldens.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include "../golden.hpp"
#include "harness.hpp"

using namespace rwkv;
using config::Buffer;
using config::Standalone;

namespace {

/// aa, bb, pp of [batch, width] each, interleaved as the state keeps them: [batch, 3, width].
std::vector<double> wkv_of(const golden::File& file, const std::string& prefix, Index batch) {
  std::vector<double> numbers;
  const auto aa = file[prefix + "aa"].values, bb = file[prefix + "bb"].values, pp = file[prefix + "pp"].values;
  const auto width = static_cast<Index>(aa.size()) / batch;
  for (Index b = 0; b < batch; ++b) {
    for (const auto* component : {&aa, &bb, &pp}) {
      numbers.insert(numbers.end(), component->begin() + b * width, component->begin() + (b + 1) * width);
    }
  }
  return numbers;
}

}  // namespace

TEST_CASE_TEMPLATE("the RWKV-4 time mix reproduces the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "timemix_v4", 3)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1), width = x.size(2);
    CAPTURE(path.filename().string());
    Standalone<TimeMix<V4, T, typename C::Backend>> block(
        {.width = width}, batch, C::backend(), [&](const std::string& name) { return file["param." + name].values; },
        [&](const std::string& name) {
          return name == "shift" ? file["in.state.att_x"].values : wkv_of(file, "in.state.", batch);
        });
    CHECK(golden::error_ratio<T>(block.forward(x.as<T>(), batch, time), file["out.y"]) < 1);
    CHECK(golden::error_ratio<T>(block.state("shift"), file["out.state.att_x"]) < 1);
    const std::string components[] = {"aa", "bb", "pp"};
    for (Index n = 0; n < 3; ++n) {
      std::vector<T> component;  // [batch, width] of [batch, 3, width]
      for (Index b = 0; b < batch; ++b) {
        const auto begin = block.state("wkv").begin() + (b * 3 + n) * width;
        component.insert(component.end(), begin, begin + width);
      }
      CHECK(golden::error_ratio<T>(component, file["out.state." + components[n]]) < 1);
    }
  }
}

TEST_CASE_TEMPLATE("the RWKV-4 channel mix reproduces the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "channelmix_v4v5", 2)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1), width = x.size(2);
    CAPTURE(path.filename().string());
    Standalone<ChannelMix<V4, T, typename C::Backend>> block(
        {.width = width, .ffn = file["param.key.weight"].size(0)}, batch, C::backend(),
        [&](const std::string& name) { return file["param." + name].values; },
        [&](const std::string&) { return file["in.state.ffn_x"].values; });
    CHECK(golden::error_ratio<T>(block.forward(x.as<T>(), batch, time), file["out.y"]) < 1);
    CHECK(golden::error_ratio<T>(block.state("shift"), file["out.state.ffn_x"]) < 1);
  }
}

TEST_CASE_TEMPLATE("token shift and both mixing rules reproduce the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "tokenshift_", 2)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1), width = x.size(2);
    CAPTURE(path.filename().string());
    const auto initial = [&](const std::string&) { return file["in.state.x"].values; };
    Standalone<TokenShift<T, typename C::Backend>> block(
        {.width = width}, batch, C::backend(), [](const std::string&) { return std::vector<double>(); }, initial);
    CHECK(golden::max_error(block.forward(x.as<T>(), batch, time), file["out.shifted"].values) == 0);
    CHECK(golden::max_error(block.state("shift"), file["out.state.x"].values) == 0);

    auto be = C::backend();
    Buffer<T> in(x.values), before(file["in.state.x"].values), weights(file["in.mix"].values),
        out(batch * time * width);
    const auto mixed = [&](auto rule) {
      be.rows(Mix<decltype(rule)>{}, arg::in(in.seq(batch, time, width)),
              arg::prev(in.seq(batch, time, width), before.mat(batch, width)), arg::chan(weights.vec()),
              arg::out(out.seq(batch, time, width)));
      return out.numbers;
    };
    CHECK(golden::error_ratio<T>(mixed(MixCurrent{}), file["out.mix_v4v5"]) < 1);
    CHECK(golden::error_ratio<T>(mixed(MixPrevious{}), file["out.mix_v6v7"]) < 1);
  }
}
