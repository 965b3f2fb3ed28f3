/// Oracle: the gradients of the layernorm and groupnorm goldens.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

template <class T>
void check_gradients(const golden::File& file, const std::filesystem::path& path, const Buffer<T>& dx,
                     const Buffer<T>& dscale, const Buffer<T>& dshift) {
  const bool hard = path.string().find("_hard_") != std::string::npos;
  const double limit = std::is_same_v<T, double> ? 1e-11 : hard ? 1e-4 : 1e-5;
  CAPTURE(path.filename().string());
  CHECK(golden::relative_error(dx.numbers, file["grad.x"].values) < limit);
  CHECK(golden::relative_error(dscale.numbers, file["grad.weight"].values) < limit);
  CHECK(golden::relative_error(dshift.numbers, file["grad.bias"].values) < limit);
}

}  // namespace

TEST_CASE_TEMPLATE("the gradients of layer norm are those of the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "layernorm_", 2)) {
    const golden::File file(path);
    const Index rows = file["in.x"].size(0), width = file["in.x"].size(1);
    Buffer<T> x(file["in.x"].values), scale(file["in.weight"].values), dy(file["cot.y"].values);
    Buffer<T> dx(rows * width), dscale(width), dshift(width), again(width);
    auto be = C::backend();
    config::Scratch scratch(1 << 16);
    layer_norm_back(be, scratch.arena(), x.seq(1, rows, width), scale.vec(), 1e-5, dy.seq(1, rows, width),
                    arg::out(dx.seq(1, rows, width)), dscale.vec(), dshift.vec());
    check_gradients(file, path, dx, dscale, dshift);
    // In place, as a batch, and with a frozen shift (null gradient).
    layer_norm_back(be, scratch.arena(), x.seq(rows, 1, width), scale.vec(), 1e-5, dy.seq(rows, 1, width),
                    arg::out(dy.seq(rows, 1, width)), again.vec(), Vec<T>{nullptr, width});
    CHECK(dy.numbers == dx.numbers);
    CHECK(again.numbers == dscale.numbers);
  }
}

TEST_CASE_TEMPLATE("the gradients of group norm are those of the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "groupnorm_", 2)) {
    const golden::File file(path);
    const Index rows = file["in.x"].size(0), width = file["in.x"].size(1), heads = std::stol(file.metadata("H"));
    Buffer<T> x(file["in.x"].values), scale(file["in.weight"].values), dy(file["cot.y"].values);
    Buffer<T> dx(rows * width), dscale(width), dshift(width);
    auto be = C::backend();
    config::Scratch scratch(1 << 16);
    group_norm_back(be, scratch.arena(), x.seq(1, rows, width), heads, scale.vec(), 64e-5, dy.seq(1, rows, width),
                    arg::out(dx.seq(1, rows, width)), dscale.vec(), dshift.vec());
    check_gradients(file, path, dx, dscale, dshift);
  }
}
