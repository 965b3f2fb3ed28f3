#!/usr/bin/env bash
# Package:  Eigen 3.4.0 (cmeel-eigen 3.4.0), g++ -O2 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma
# Happens:  With AVX-512 ArrayXf::exp is infinite from 88.38 on and 0 at -88, where the same Eigen for AVX2 gives 2.7e38
#           (at 88.5) and 6e-39. Within [-80, 80] it is up to 4 units in the last place off; for AVX2 up to 1.
# Expected: Wider registers, the same function: std::exp is finite up to 88.72. A program that was tested with AVX2 and
#           runs a running maximum close to that limit meets infinities on newer processors only.
# Source:   Eigen/src/Core/arch/AVX512/MathFunctions.h has a pexp<Packet16f> of its own, clamped to 88.376 on both
#           sides, which subtracts m * ln 2 with one constant; the generic pexp_float subtracts it in two parts, to
#           88.723.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || { echo "skipped: needs g++"; exit 77; }
for feature in avx512f avx512dq avx512bw avx512vl; do
  grep -qw "$feature" /proc/cpuinfo || { echo "skipped: needs AVX-512 ($feature)"; exit 77; }
done
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --no-deps cmeel-eigen==3.4.0; } >&2 || exit 2
include=$(echo "$work"/venv/lib/python3*/site-packages/cmeel.prefix/include/eigen3)
cat >"$work/exp.cpp" <<'EOF'
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdio>

float packed(float x) { return Eigen::ArrayXf(Eigen::ArrayXf::Constant(16, x).exp())[0]; }

int main() {
  double worst = 0;
  for (float x = -80; x < 80; x += 1.f / 4096) {
    const float y = packed(x), right = float(std::exp(double(x)));
    worst = std::max(worst, std::abs(double(y) - right) / (std::nextafterf(right, INFINITY) - right));
  }
  std::printf("exp(88.5) %.3g, exp(-88) %.3g, worst error %g units in the last place\n",
              packed(88.5f), packed(-88), worst);
}
EOF
for options in "-mavx2" "-mavx512f -mavx512dq -mavx512bw -mavx512vl"; do
  # shellcheck disable=SC2086  # several options
  g++ -std=c++17 -O2 -mfma $options -I "$include" "$work/exp.cpp" -o "$work/exp"
  echo "$options: $("$work/exp")" | tee -a "$work/seen"
done
for line in "avx2: exp(88.5) 2.72e+38, exp(-88) 6.05e-39, worst error 1 " \
  "avx512vl: exp(88.5) inf, exp(-88) 0, worst error 4 "; do
  grep -qF "$line" "$work/seen" || { echo "the behaviour has changed"; exit 1; }
done
