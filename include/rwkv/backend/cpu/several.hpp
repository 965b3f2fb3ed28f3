#pragma once
/// Several packs that behave as one number, so that a functor works on independent packs in turn: a sum along a head is
/// one chain of dependent additions for each pack, and a single chain would wait for itself most of the time.
#include "rwkv/backend/cpu/pack.hpp"

namespace rwkv {
inline namespace RWKV_ABI {
inline namespace RWKV_CPU_ABI {

/// Where a comparison of Several holds.
template <class Flags, int K>
struct SeveralFlags {
  Flags parts[K];
};

/// K numbers R of neighbouring lanes. Each lane has the bits that it has in R.
template <class R, int K>
struct Several {
  using scalar = typename R::scalar;
  static constexpr int size = K * R::size;
  R parts[K];

  Several() = default;
  template <class U>
  requires std::is_constructible_v<R, U> RWKV_HD explicit Several(U all) {
    RWKV_UNROLL for (int i = 0; i < K; ++i) parts[i] = R(all);
  }
  template <class U>
  requires std::is_arithmetic_v<U> RWKV_HD Several& operator=(U all) { return *this = Several(all); }

  template <class U>
  RWKV_HD static Several load(const U* from) {
    Several x;
    RWKV_UNROLL for (int i = 0; i < K; ++i) x.parts[i] = R::load(from + i * R::size);
    return x;
  }
  template <class U>
  RWKV_HD void store(U* to) const {
    RWKV_UNROLL for (int i = 0; i < K; ++i) parts[i].store(to + i * R::size);
  }

  RWKV_HD friend Several operator+(const Several& a, const Several& b) {
    return each([](R x, R y) { return x + y; }, a, b);
  }
  RWKV_HD friend Several operator-(const Several& a, const Several& b) {
    return each([](R x, R y) { return x - y; }, a, b);
  }
  RWKV_HD friend Several operator*(const Several& a, const Several& b) {
    return each([](R x, R y) { return x * y; }, a, b);
  }
  RWKV_HD friend Several operator/(const Several& a, const Several& b) {
    return each([](R x, R y) { return x / y; }, a, b);
  }
  RWKV_HD friend Several operator-(const Several& a) {
    return each([](R x) { return -x; }, a);
  }
  RWKV_HD friend Several& operator+=(Several& a, const Several& b) { return a = a + b; }
  RWKV_HD friend Several& operator-=(Several& a, const Several& b) { return a = a - b; }
  RWKV_HD friend Several& operator*=(Several& a, const Several& b) { return a = a * b; }
  RWKV_HD friend auto operator<(const Several& a, const Several& b) {
    return flags([](R x, R y) { return x < y; }, a, b);
  }
  RWKV_HD friend auto operator>(const Several& a, const Several& b) {
    return flags([](R x, R y) { return x > y; }, a, b);
  }

  /// f of the parts of its arguments.
  template <class F, class... Arg>
  RWKV_HD static Several each(const F& f, const Arg&... args) {
    RWKV_CONTRACT
    Several y;
    RWKV_UNROLL for (int i = 0; i < K; ++i) y.parts[i] = f(args.parts[i]...);
    return y;
  }

 private:
  template <class F>
  RWKV_HD static auto flags(const F& f, const Several& a, const Several& b) {
    SeveralFlags<decltype(f(a.parts[0], b.parts[0])), K> which;
    RWKV_UNROLL for (int i = 0; i < K; ++i) which.parts[i] = f(a.parts[i], b.parts[i]);
    return which;
  }
};

template <class Flags, class R, int K>
RWKV_HD Several<R, K> select(const SeveralFlags<Flags, K>& which, const Several<R, K>& yes, const Several<R, K>& no) {
  return Several<R, K>::each([](Flags flags, R x, R y) { return select(flags, x, y); }, which, yes, no);
}
template <class R, int K>
RWKV_HD Several<R, K> exp(const Several<R, K>& x) {
  return Several<R, K>::each([](R part) { return exp(part); }, x);
}
template <class R, int K>
RWKV_HD Several<R, K> sqrt(const Several<R, K>& x) {
  return Several<R, K>::each([](R part) { return sqrt(part); }, x);
}
template <class R, int K>
RWKV_HD Several<R, K> detach(const Several<R, K>& x) {
  return x;
}
static_assert(FunctorNumber<Several<Widest<float>, 2>>);

}  // namespace RWKV_CPU_ABI
}  // namespace RWKV_ABI
}  // namespace rwkv
