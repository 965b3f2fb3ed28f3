/// Oracle: the layernorm and groupnorm goldens.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include <cmath>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

template <class T>
double tolerance(const std::filesystem::path& path) {
  if (std::is_same_v<T, double>) return 1e-11;
  return path.string().find("_hard_") != std::string::npos ? 1e-4 : 1e-5;
}

}  // namespace

TEST_CASE_TEMPLATE("layer norm reproduces the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "layernorm_", 2)) {
    CAPTURE(path.filename().string());
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index rows = x.size(0), width = x.size(1);
    Buffer<T> in(x.values), scale(file["in.weight"].values), shift(file["in.bias"].values), out(rows * width);
    auto be = C::backend();
    layer_norm(be, in.seq(1, rows, width), scale.vec(), shift.vec(), 1e-5, out.seq(1, rows, width));
    CHECK(golden::relative_error(out.numbers, file["out.y"].values) < tolerance<T>(path));
    layer_norm(be, in.seq(rows, 1, width), scale.vec(), shift.vec(), 1e-5, in.seq(rows, 1, width));
    CHECK(in.numbers == out.numbers);  // in place, and as a batch
  }
}

TEST_CASE_TEMPLATE("group norm reproduces the goldens", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "groupnorm_", 2)) {
    CAPTURE(path.filename().string());
    const golden::File file(path);
    const auto x = file["in.x"];
    const Index rows = x.size(0), width = x.size(1), heads = std::stol(file.metadata("H"));
    Buffer<T> in(x.values), scale(file["in.weight"].values), shift(file["in.bias"].values), out(rows * width);
    auto be = C::backend();
    group_norm(be, in.seq(1, rows, width), heads, scale.vec(), shift.vec(), 64e-5, out.seq(1, rows, width));
    CHECK(golden::relative_error(out.numbers, file["out.y"].values) < tolerance<T>(path));
  }
}

TEST_CASE_TEMPLATE("a constant row normalises to its shift, however large", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  auto be = C::backend();
  for (const Index width : {1, 7, 48, 380}) {
    for (const double value : {1e-30, 1.0, 6.7e9, -3.3e15}) {
      Buffer<T> x(width, static_cast<T>(value)), scale(width, T(2)), shift(width, T(0.5)), y(width);
      layer_norm(be, x.seq(1, 1, width), scale.vec(), shift.vec(), 1e-5, y.seq(1, 1, width));
      for (const T number : y.numbers) CHECK(std::isfinite(number));
    }
  }
}

TEST_CASE("group norm refuses groups that do not divide the channels") {
  Cpu be;
  Buffer<float> x(10), p(10);
  CHECK_THROWS_WITH_AS(group_norm(be, x.seq(1, 1, 10), 3, p.vec(), p.vec(), 1e-5, x.seq(1, 1, 10)),
                       "rwkv: 10 channels do not form 3 equal groups", Error);
}
