/// Oracle: the same functor on single scalars.
#include <doctest/doctest.h>

#include <rwkv/backend/cpu/pack.hpp>
#include <rwkv/core/dual.hpp>

#include <cmath>
#include <limits>
#include <vector>

using namespace rwkv;

namespace {

template <class T>
std::vector<T> awkward_numbers() {
  std::vector<T> x{0, T(-0.0), 1, -1, T(1e-30), T(-1e-30), 88, -88, 700, -700, 80, -80};
  x.push_back(std::numeric_limits<T>::infinity());
  x.push_back(-std::numeric_limits<T>::infinity());
  x.push_back(std::numeric_limits<T>::max());
  x.push_back(std::numeric_limits<T>::denorm_min());
  x.push_back(std::numeric_limits<T>::quiet_NaN());
  for (int i = 0; i < 400; ++i) x.push_back(T(-40) + T(i) / 5);
  while (x.size() % 16 != 0) x.push_back(T(0.5));
  return x;
}

template <class T>
bool close(T got, T want, T relative) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  // Below the normal range a vector exponential may flush to the smallest normal number.
  return std::abs(got - want) <= relative * std::abs(want) + 2 * std::numeric_limits<T>::min();
}

template <class T, class F>
void check_function(F f, T relative) {
  using R = Widest<T>;
  const auto x = awkward_numbers<T>();
  for (std::size_t i = 0; i < x.size(); i += R::size) {
    T got[R::size];
    f(R::load(&x[i])).store(got);
    for (int lane = 0; lane < R::size; ++lane) {
      CAPTURE(x[i + static_cast<std::size_t>(lane)]);
      CHECK(close(got[lane], f(One<T>(x[i + static_cast<std::size_t>(lane)])).v, relative));
    }
  }
}

/// All lanes of a number, and of its derivatives.
template <class R>
std::vector<double> lanes_of(const R& x) {
  typename R::scalar numbers[R::size];
  x.store(numbers);
  return {numbers, numbers + R::size};
}
template <class T, int K>
std::vector<double> lanes_of(One<Dual<T, K>> x) {
  return {x.v.value, x.v.direction[0]};
}
template <class R, int K>
std::vector<double> lanes_of(const Dual<R, K>& x) {
  auto all = lanes_of(x.value);
  for (const R& direction : x.direction) {
    for (const double lane : lanes_of(direction)) all.push_back(lane);
  }
  return all;
}

/// Constants on either side of x mean what they mean as numbers of its type.
template <class R>
void check_constants(R x) {
  const auto same = [](const R& got, const R& want) { CHECK(lanes_of(got) == lanes_of(want)); };
  const auto with = [&](auto c) {
    same(c - x, R(c) - x);
    same(x - c, x - R(c));
    same(c + x, R(c) + x);
    same(x + c, x + R(c));
    same(c * x, R(c) * x);
    same(x * c, x * R(c));
    same(c / x, R(c) / x);
    same(x / c, x / R(c));
    R y = x;
    same(y += c, x + R(c));
    same(y -= c, (x + R(c)) - R(c));
    same(y *= c, ((x + R(c)) - R(c)) * R(c));
    same(y, ((x + R(c)) - R(c)) * R(c));
    same(y /= c, ((x + R(c)) - R(c)) * R(c) / R(c));
    const R begun = c;
    same(begun, R(c));
    same(y = c, R(c));
    same(max(x, c), max(x, R(c)));
    same(max(c, x), max(R(c), x));
    same(min(x, c), min(x, R(c)));
    same(min(c, x), min(R(c), x));
    same(select(x < c, x, c), select(x < R(c), x, R(c)));
    same(select(x < c, c, x), select(x < R(c), R(c), x));
    const R yes = R(1), no = R(2);
    same(select(x < c, yes, no), select(x < R(c), yes, no));
    same(select(c < x, yes, no), select(R(c) < x, yes, no));
    same(select(x > c, yes, no), select(x > R(c), yes, no));
    same(select(c > x, yes, no), select(R(c) > x, yes, no));
  };
  with(1), with(3u), with(0.1), with(0.1f), with(-2);
}

}  // namespace

TEST_CASE_TEMPLATE("plain constants stand beside all numbers of functors", T, float, double) {
  using P = Widest<T>;
  T lanes[P::size];
  for (int i = 0; i < P::size; ++i) lanes[i] = T(i + 1) * T(0.37) - 1;
  check_constants(One<T>(0.1));
  check_constants(P::load(lanes));
  check_constants(Dual<One<T>, 2>::variable(One<T>(0.7), 1));
  check_constants(Dual<P>::variable(P::load(lanes), 0));
  check_constants(One<Dual<T>>(Dual<T>::variable(T(0.7), 0)));
}

TEST_CASE_TEMPLATE("functions of packs agree with scalars, on ordinary and awkward numbers", T, float, double) {
  const T some = 4 * std::numeric_limits<T>::epsilon();
  check_function<T>([](auto x) { return exp(x); }, some);
  check_function<T>([](auto x) { return sigmoid(x); }, some);
  check_function<T>([](auto x) { return tanh(x); }, some);
  check_function<T>([](auto x) { return max(x, decltype(x)(0.25)); }, T(0));
  check_function<T>([](auto x) { return min(x, decltype(x)(0.25)); }, T(0));
  check_function<T>([](auto x) { return sqrt(x * x); }, some);
  check_function<T>([](auto x) { return select(x < decltype(x)(3), -x, x + x); }, T(0));
}

TEST_CASE_TEMPLATE("two exponentials under one scale never overflow", T, float, double) {
  for (const T a : {T(0), T(1e30), T(-1e38), T(700), T(-700)}) {
    for (const T b : {T(0), T(2), T(-1e38), T(1e30)}) {
      const auto pair = exp_pair(One<T>(a), One<T>(b));
      CHECK(pair.scale.v == std::max(a, b));
      CHECK(std::max(pair.first.v, pair.second.v) == 1);
      CHECK(std::min(pair.first.v, pair.second.v) == std::exp(-std::abs(a - b)));
    }
  }
}

TEST_CASE_TEMPLATE("loading part of a pack touches nothing beyond and fills with zero", T, float, double) {
  using R = Widest<T>;
  for (int lanes = 1; lanes <= R::size; ++lanes) {
    std::vector<T> exact(static_cast<std::size_t>(lanes), T(7));  // a sanitizer would report reads past the end
    T got[R::size], kept[R::size];
    const R x = R::load(static_cast<const T*>(exact.data()), lanes);
    x.store(got);
    first_lanes(R(T(7)), lanes).store(kept);
    for (int i = 0; i < R::size; ++i) {
      CHECK(got[i] == (i < lanes ? T(7) : T(0)));
      CHECK(kept[i] == got[i]);
    }
    CHECK(sum_lanes(x) == T(7 * lanes));
    x.store(exact.data(), lanes);
  }
}

TEST_CASE("16-bit storage widens in packs as it does alone, for every pattern") {
  using R = Widest<float>;
  const auto check = [](auto example) {
    using H = decltype(example);
    std::vector<H> stored(65536);
    for (std::uint32_t bits = 0; bits < 65536; ++bits) stored[bits].bits = static_cast<std::uint16_t>(bits);
    for (std::size_t i = 0; i < stored.size(); i += R::size) {
      float got[R::size];
      R::load(&stored[i]).store(got);
      for (std::size_t lane = 0; lane < R::size; ++lane) {
        const float want = static_cast<float>(stored[i + lane]);
        REQUIRE((std::isnan(want) ? std::isnan(got[lane]) : got[lane] == want));
      }
    }
  };
  check(bf16{});
  check(f16{});
}

TEST_CASE("a dual number of packs differentiates every lane") {
  using R = Widest<float>;
  using D = Dual<R>;
  std::vector<float> at(R::size);
  for (int i = 0; i < R::size; ++i) at[static_cast<std::size_t>(i)] = 0.1f * static_cast<float>(i) - 0.4f;
  D x(0);
  x.value = R::load(at.data());
  x.direction[0] = R(1);
  const D y = sigmoid(x) * max(x, D(0)) + x / (D(2) + x * x) + tanh(x) * min(x, D(0));
  float slope[R::size];
  y.direction[0].store(slope);
  for (int i = 0; i < R::size; ++i) {
    const double v = at[static_cast<std::size_t>(i)], s = 1 / (1 + std::exp(-v));
    const double t = std::tanh(v), of_tanh = v < 0 ? (1 - t * t) * v + t : 0;
    const double want = (v > 0 ? s * (1 - s) * v + s : 0) + (2 - v * v) / ((2 + v * v) * (2 + v * v)) + of_tanh;
    CHECK(slope[i] == doctest::Approx(want).epsilon(1e-5));
  }
}
