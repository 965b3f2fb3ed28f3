/// Oracle: the wkv4 and wkv7 goldens; finite differences for the dual numbers.
#include <doctest/doctest.h>

#include <rwkv/blocks.hpp>

#include "../configs.hpp"
#include "../golden.hpp"

using namespace rwkv;
using config::Buffer;

namespace {

using Cell = WKV4;

/// Turns the raw decay w of the files into the decay of the recurrence, exp(-exp(w)).
struct Decay {
  template <class R>
  RWKV_HD void map(R w, R& decay) const {
    decay = exp(-exp(w));
  }
};

/// Runs a WKV4 golden case with a schedule and compares outputs and final state.
template <class Config, class Schedule>
void check_wkv4(const std::filesystem::path& path, Schedule schedule) {
  using T = typename Config::scalar;
  const golden::File file(path);
  const auto k = file["in.k"];
  const Index batch = k.size(0), time = k.size(1), width = k.size(2);
  auto be = Config::backend();
  Buffer<T> key(k.values), value(file["in.v"].values), u(file["in.time_first"].values),
      raw(file["in.time_decay"].values);
  Buffer<T> w(width), y(batch * time * width), state(batch * 3 * width);
  const char* components[] = {"aa", "bb", "pp"};
  for (Index n = 0; n < 3; ++n) {
    const auto initial = file[std::string("in.state.") + components[n]].values;
    for (Index b = 0; b < batch; ++b) {
      for (Index c = 0; c < width; ++c)
        state[(b * 3 + n) * width + c] = static_cast<T>(initial[static_cast<std::size_t>(b * width + c)]);
    }
  }
  config::Scratch scratch(1 << 22);
  be.rows(NegativeExp{}, arg::chan(raw.vec()), arg::out(w.seq(1, 1, width)));
  be.recur(scratch.arena(), schedule, Cell{}, Extent<3>{}, state.mat(batch, 3 * width), arg::chan(w.vec()),
           arg::chan(u.vec()), arg::in(key.seq(batch, time, width)), arg::in(value.seq(batch, time, width)),
           arg::out(y.seq(batch, time, width)));

  CAPTURE(path.filename().string());
  const bool wide = path.string().find("k80") != std::string::npos;  // exponents up to 80: float keeps fewer digits
  const double limit = wide && !std::is_same_v<T, double> ? 5e-5 : golden::tolerance<T>(file["out.y"]);
  CHECK(golden::relative_error(y.numbers, file["out.y"].values) < limit);
  for (Index n = 0; n < 3; ++n) {
    CAPTURE(components[n]);
    std::vector<double> final_state;
    for (Index b = 0; b < batch; ++b) {
      for (Index c = 0; c < width; ++c) final_state.push_back(static_cast<double>(state[(b * 3 + n) * width + c]));
    }
    CHECK(golden::relative_error(final_state, file[std::string("out.state.") + components[n]].values) < limit);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("WKV4 reproduces the official recurrence in sequence", C, RWKV_TEST_CONFIGS) {
  for (const auto& path : golden::files("ops", "wkv4_", 6)) check_wkv4<C>(path, Sequential{});
}

#ifndef RWKV_TEST_CUDA
TEST_CASE_TEMPLATE("WKV4 reproduces the official recurrence as a scan", C, RWKV_CPU_CONFIGS) {
  for (const auto& path : golden::files("ops", "wkv4_", 6)) {
    for (const Index chunk : {1, 2, 3, 5, 8}) check_wkv4<C>(path, Scan{chunk});
  }
}
#endif

TEST_CASE_TEMPLATE("WKV7 reproduces the official recurrence through the same verb", C, RWKV_TEST_CONFIGS) {
  using T = typename C::scalar;
  for (const auto& path : golden::files("ops", "wkv7_", 6)) {
    const golden::File file(path);
    CAPTURE(path.filename().string());
    const auto r = file["in.r"];
    const Index batch = r.size(0), time = r.size(1), heads = r.size(2), n = r.size(3), width = heads * n;
    auto be = C::backend();
    Buffer<T> receptance(r.values), raw(file["in.w"].values), key(file["in.k"].values), value(file["in.v"].values);
    Buffer<T> a(file["in.a"].values), b(file["in.b"].values), decay(batch * time * width), y(batch * time * width);

    // Files store the state as [value, key], the recurrence as [key, value]: lanes last.
    const auto transposed_state = [&](const std::vector<double>& from) {
      std::vector<double> to(from.size());
      for (Index h = 0; h < batch * heads; ++h) {
        for (Index i = 0; i < n; ++i) {
          for (Index j = 0; j < n; ++j)
            to[static_cast<std::size_t>((h * n + j) * n + i)] = from[static_cast<std::size_t>((h * n + i) * n + j)];
        }
      }
      return to;
    };
    Buffer<T> state(transposed_state(file["in.state.wkv"].values));

    const auto seq = [&](Buffer<T>& x) { return x.seq(batch, time, width); };
    config::Scratch scratch(0);
    be.rows(Decay{}, arg::in(seq(raw)), arg::out(seq(decay)));
    be.recur(scratch.arena(), Auto{}, WKV7{}, Extent<>{n}, state.mat(batch, heads * n * n), arg::in(seq(value)),
             arg::shared(arg::in(seq(receptance))), arg::shared(arg::in(seq(decay))), arg::shared(arg::in(seq(key))),
             arg::shared(arg::in(seq(a))), arg::shared(arg::in(seq(b))), arg::out(seq(y)));
    const double limit = golden::tolerance<T>(file["out.y"]);
    CHECK(golden::relative_error(y.numbers, file["out.y"].values) < limit);
    CHECK(golden::relative_error(state.numbers, transposed_state(file["out.state.wkv"].values)) < limit);
  }
}

#ifndef RWKV_TEST_CUDA
TEST_CASE("WKV4 on dual numbers yields its derivatives") {
  // Inputs decay, bonus, key, value and the state a, b; the exponent is a scale and counts as constant.
  using D = Dual<One<double>, 6>;
  const double at[6] = {-0.7, 0.4, 0.3, -1.2, 0.8, 1.9};
  const auto run = [](const double(&point)[6], double(&outputs)[3]) {
    One<double> state[3] = {One<double>(point[4]), One<double>(point[5]), One<double>(0.2)};
    const One<double> x[4] = {One<double>(point[0]), One<double>(point[1]), One<double>(point[2]),
                              One<double>(point[3])};
    outputs[0] = Cell::step(state, x).v;
    // Numerator and denominator multiplied by the scale, so that they do not depend on its choice.
    outputs[1] = state[0].v * std::exp(state[2].v);
    outputs[2] = state[1].v * std::exp(state[2].v);
  };
  D x[6];
  for (int i = 0; i < 6; ++i) {
    x[i] = D(at[i]);
    x[i].direction[i] = One<double>(1);
  }
  D state[3] = {x[4], x[5], D(0.2)};
  const D inputs[4] = {x[0], x[1], x[2], x[3]};
  const D y = Cell::step(state, inputs);
  const double scale = std::exp(state[2].value.v);
  for (int i = 0; i < 6; ++i) {
    CAPTURE(i);
    const double h = 1e-6;
    double up[6], down[6], above[3], below[3];
    std::copy(at, at + 6, up);
    std::copy(at, at + 6, down);
    up[i] += h;
    down[i] -= h;
    run(up, above);
    run(down, below);
    CHECK(y.direction[i].v == doctest::Approx((above[0] - below[0]) / (2 * h)).epsilon(1e-8));
    CHECK(state[0].direction[i].v * scale == doctest::Approx((above[1] - below[1]) / (2 * h)).epsilon(1e-8));
    CHECK(state[1].direction[i].v * scale == doctest::Approx((above[2] - below[2]) / (2 * h)).epsilon(1e-8));
    CHECK(state[2].direction[i].v == 0);
  }
}

TEST_CASE("composition of WKV4 stretches is associative") {
  for (std::uint64_t i = 0; i < 200; ++i) {
    const auto draw = [&](std::uint64_t n) {
      return One<double>(40 * Philox{.key = 4}.block(8 * i + n).uniform_double(0) - 20);
    };
    const auto stretch = [&](std::uint64_t n) {
      return Cell::Stretch<One<double>>{-exp(draw(n)), draw(n + 1), exp(draw(n + 2)), draw(n + 3)};
    };
    const auto a = stretch(0), b = stretch(4), c = stretch(8);
    const auto left = Cell::compose(Cell::compose(a, b), c), right = Cell::compose(a, Cell::compose(b, c));
    CHECK(left.log_decay.v == doctest::Approx(right.log_decay.v).epsilon(1e-14));
    CHECK(left.p.v == doctest::Approx(right.p.v).epsilon(1e-14));
    CHECK(left.a.v == doctest::Approx(right.a.v).epsilon(1e-13));
    CHECK(left.b.v == doctest::Approx(right.b.v).epsilon(1e-13));
  }
}
#endif
