#!/usr/bin/env bash
# Package:  Eigen 3.4.0 (cmeel-eigen 3.4.0), g++ -O2, with and without -mavx2 -mfma
# Happens:  ArrayXf::exp of minus infinity is 2.9e-39, as is that of -104, -200 and -89. In an array of 17 equal numbers
#           the last one, computed alone, is 0, 0, 0 and 2.2e-39 instead: the answer depends on the position.
# Expected: exp(-inf) == 0, as std::exp gives. A masked score or an empty decay, exp(-inf), otherwise adds a little
#           something, which a division by such a sum turns into a number where 0 / 0 was to be noticed.
# Source:   Eigen/src/Core/arch/Default/GenericPacketMathFunctions.h, pexp_float, clamps its argument to -88.723 from
#           below and so ends at exp(-88.723). The rest of an array that fills no pack goes through std::exp.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || { echo "skipped: needs g++"; exit 77; }
for feature in avx2 fma; do
  grep -qw "$feature" /proc/cpuinfo || { echo "skipped: needs $feature"; exit 77; }
done
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --no-deps cmeel-eigen==3.4.0; } >&2 || exit 2
include=$(echo "$work"/venv/lib/python3*/site-packages/cmeel.prefix/include/eigen3)
cat >"$work/exp.cpp" <<'EOF'
#include <Eigen/Core>
#include <cmath>
#include <cstdio>

int main() {
  bool as_described = true;
  for (float x : {-INFINITY, -200.f, -104.f, -89.f}) {
    const Eigen::ArrayXf y = Eigen::ArrayXf::Constant(17, x).exp();
    std::printf("exp(%g): first of 17 %g, last of 17 %g, std::exp %g\n", x, y[0], y[16], std::exp(x));
    as_described &= y[0] > 2.9e-39f && y[0] < 3e-39f && y[16] == std::exp(x);
  }
  return as_described ? 0 : 1;
}
EOF
for options in "" "-mavx2 -mfma"; do
  # shellcheck disable=SC2086  # several options
  g++ -std=c++17 -O2 $options -I "$include" "$work/exp.cpp" -o "$work/exp"
  echo "g++ -O2 $options"
  "$work/exp" || { echo "the behaviour has changed"; exit 1; }
done
