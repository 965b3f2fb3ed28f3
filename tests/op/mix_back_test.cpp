/// Oracle: the gradients of the tokenshift goldens.
#include <doctest/doctest.h>

#include <rwkv/backend/rows_back.hpp>
#include <rwkv/blocks.hpp>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

TEST_CASE_TEMPLATE("the gradients of token shift and both mixing rules are those of the goldens", C,
                   RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "tokenshift_", 2)) {
    const golden::File file(path);
    const auto input = file["in.x"];
    const Index batch = input.size(0), time = input.size(1), width = input.size(2);
    CAPTURE(path.filename().string());
    auto be = C::backend();
    config::Scratch scratch(1 << 16);
    const auto buffer = [&](const std::string& name) { return Buffer<T>(file[name].values); };
    Buffer<T> x = buffer("in.x"), before = buffer("in.state.x"), mix = buffer("in.mix");
    Buffer<T> shifted = buffer("cot.shifted"), current = buffer("cot.mix_v4v5"), previous = buffer("cot.mix_v6v7"),
              after = buffer("cot.state.x");
    Buffer<T> dx(batch * time * width), dmix(width), none(batch * width);
    Buffer<T> dfirst = none, of_current = none, of_previous = none;
    const auto seq = [&](Buffer<T>& numbers) { return numbers.seq(batch, time, width); };
    const auto state = [&](Buffer<T>& numbers) { return numbers.mat(batch, width); };

    rows_back(be, scratch.arena(), Copy{}, arg::prev(seq(x), state(before)), arg::cot(seq(shifted)),
              arg::back(seq(dx), state(after), state(dfirst)));
    const auto mix_back = [&](auto rule, Buffer<T>& dy, Buffer<T>& first) {
      rows_back(be, scratch.arena(), Mix<decltype(rule)>{}, arg::in(seq(x)), arg::prev(seq(x), state(before)),
                arg::chan(mix.vec()), arg::cot(seq(dy)), arg::add(seq(dx)),
                arg::back(seq(dx), state(none), state(first)), arg::sum(dmix.vec()));
    };
    mix_back(MixCurrent{}, current, of_current);
    mix_back(MixPrevious{}, previous, of_previous);
    for (Index i = 0; i < batch * width; ++i) dfirst[i] += of_current[i] + of_previous[i];
    CHECK(golden::error_ratio<T>(dx.numbers, file["grad.x"]) < 1);
    CHECK(golden::error_ratio<T>(dmix.numbers, file["grad.mix"]) < 1);
    CHECK(golden::error_ratio<T>(dfirst.numbers, file["grad.state.x"]) < 1);
  }
}
