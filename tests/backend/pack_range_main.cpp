/// exp and the 16-bit conversions of packs against their scalar forms, over the whole range of a number. Compiled once for
/// every instruction set, because packs are made of what the target has.
#include <rwkv/backend/cpu/pack.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

using namespace rwkv;

int faults = 0;

template <class T>
void report(const char* what, T x, double got, double want) {
  if (++faults <= 20) std::printf("BAD: %s(%.9g) is %.17g, not %.17g\n", what, static_cast<double>(x), got, want);
}

/// Whether a result is within six units in the last place, at the end of the range in units of the smallest number.
/// Eigen's exponential of floats is off by four where vectors have 64 bytes.
template <class T>
bool close(T got, T want) {
  if (std::isnan(want) || std::isinf(want) || want == 0) return std::isnan(want) ? std::isnan(got) : got == want;
  const T unit =
      std::max(std::nextafter(want, std::numeric_limits<T>::infinity()) - want, std::numeric_limits<T>::denorm_min());
  return std::abs(got - want) <= 6 * unit;
}

template <class T>
void check_exp(const T* inputs) {
  using R = Widest<T>;
  T outputs[R::size];
  exp(R::load(inputs)).store(outputs);
  for (int i = 0; i < R::size; ++i) {
    const T want = exp(One<T>(inputs[i])).v;
    // Where the scalar underflows to the last bit or to 0, or overflows, the pack may round to the neighbour.
    const bool at_the_end = want == 0          ? outputs[i] <= std::numeric_limits<T>::denorm_min() && inputs[i] > -1000
                            : std::isinf(want) ? outputs[i] >= std::numeric_limits<T>::max() * T(0.9999)
                                               : false;
    if (!close(outputs[i], want) && !(at_the_end && !std::isinf(inputs[i]))) {
      report(sizeof(T) == 4 ? "float exp" : "double exp", inputs[i], static_cast<double>(outputs[i]),
             static_cast<double>(want));
    }
  }
}

template <class T>
void sweep_exp() {
  constexpr int lanes = Widest<T>::size;
  T inputs[lanes];
  int filled = 0;
  const auto add = [&](T x) {
    inputs[filled++] = x;
    if (filled == lanes) check_exp(inputs), filled = 0;
  };
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const Bits step = sizeof(T) == 4 ? Bits(1009) : static_cast<Bits>(0x0000'1003'1234'5677u);
  Bits bits = 0;
  do {  // all exponents, signs, infinities and NaNs
    T x;
    std::memcpy(&x, &bits, sizeof x);
    add(x);
    bits = static_cast<Bits>(bits + step);
  } while (bits >= step);
  const T end = sizeof(T) == 4 ? T(104) : T(746);
  for (T x = -end; x < end; x += end / T(400'000)) add(x);
  constexpr T infinity = std::numeric_limits<T>::infinity();
  for (int i = 0; i < lanes; ++i) {
    for (const T x : {infinity, -infinity, std::numeric_limits<T>::quiet_NaN(), T(0), -T(0)}) add(x);
  }
}

template <class Half>
void sweep_half() {
  constexpr int lanes = Widest<float>::size;
  for (std::uint32_t begin = 0; begin < 0x10000; begin += lanes) {
    Half stored[lanes];
    float outputs[lanes];
    for (int i = 0; i < lanes; ++i) stored[i].bits = static_cast<std::uint16_t>(begin + static_cast<std::uint32_t>(i));
    Widest<float>::load(stored).store(outputs);
    for (int i = 0; i < lanes; ++i) {
      const auto want = widen<float>(stored[i]);
      if (std::memcmp(&outputs[i], &want, sizeof want) != 0) {
        report("widened half", static_cast<double>(stored[i].bits), static_cast<double>(outputs[i]),
               static_cast<double>(want));
      }
    }
  }
}

bool has_instructions() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") != 0;
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
#else
  return true;
#endif
}

}  // namespace

int main() {
  if (!has_instructions()) return std::puts("skipped: this processor lacks the instructions"), 0;
  sweep_exp<float>();
  sweep_exp<double>();
  sweep_half<f16>();
  sweep_half<bf16>();
  std::printf("packs of %d bytes: %d faults\n", RWKV_SIMD_BYTES, faults);
  return faults == 0 ? 0 : 1;
}
