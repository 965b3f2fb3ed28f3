/// Oracle: the channelmix and tokenshift goldens, for every version.
#include "official.hpp"

using namespace rwkv;
using config::Buffer;
using config::Standalone;
using namespace official;

namespace {

template <class Version, class C>
void check_channel_mix() {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", config::Goldens<Version>::channel_mix, 2)) {
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index batch = x.size(0), time = x.size(1);
    CAPTURE(path.filename().string());
    const auto make = [&] {
      return block_of<ChannelMix<Version, T, typename C::Backend>>(
          file, C::backend(), [&](const std::string&) { return file["in.state.ffn_x"].values; });
    };
    auto block = make();
    CHECK(golden::error_ratio<T>(block.forward(x.as<T>(), batch, time), file["out.y"]) < 1);
    CHECK(golden::error_ratio<T>(block.state("shift"), file["out.state.ffn_x"]) < 1);
    auto trained = make();
    const auto dx = trained.forward_and_backward(x.as<T>(), time, file["cot.y"].as<T>(),
                                                 [&](const std::string&) { return file["cot.state.ffn_x"].values; });
    CHECK(golden::error_ratio<T>(dx, file["grad.x"]) < 1);
    check_gradients<T>(trained, file, 1);
    CHECK(golden::error_ratio<T>(trained.state_gradient("shift"), file["grad.state.ffn_x"]) < 1);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("the channel mixes and their gradients are those of the goldens", C, RWKV_TEST_CONFIGS) {
  config::each_version_in<C>([&]<class V>() { check_channel_mix<V, C>(); });
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
        {.width = width}, batch, C::backend(), [](const TensorSpec&) { return std::vector<double>(); }, initial);
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
