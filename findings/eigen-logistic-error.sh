#!/usr/bin/env bash
# Package:  Eigen 3.4.0 (cmeel-eigen 3.4.0), g++ -O2 for plain x86-64
# Happens:  ArrayXf::logistic, the sigmoid, is up to 8000 units in the last place off, at -8.36.
# Expected: A few units, as with ArrayXf::exp or with 1 / (1 + exp(-x)) written out. The receptance of RWKV and the
#           decay of RWKV-7 are sigmoids, and a closed gate is a large negative argument.
# Source:   Eigen/src/Core/functors/UnaryFunctors.h, scalar_logistic_op<float>: a rational function moved up by 0.5,
#           whose result near 0 is a difference of two halves; below -9 it takes exp(x) for exp(x) / (1 + exp(x)).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || { echo "skipped: needs g++"; exit 77; }
[ "$(uname -m)" = x86_64 ] || { echo "skipped: needs an x86-64 processor"; exit 77; }
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --no-deps cmeel-eigen==3.4.0; } >&2 || exit 2
include=$(echo "$work"/venv/lib/python3*/site-packages/cmeel.prefix/include/eigen3)
cat >"$work/logistic.cpp" <<'EOF'
#include <Eigen/Core>
#include <cmath>
#include <cstdio>

double units(float y, float x) {
  const float right = float(1 / (1 + std::exp(-double(x))));
  return std::abs(double(y) - right) / (std::nextafterf(right, 2) - right);
}

int main() {
  double worst = 0, worst_written_out = 0;
  float where = 0;
  for (float x = -20; x < 20; x += 1.f / 1024) {
    const Eigen::ArrayXf in = Eigen::ArrayXf::Constant(16, x), out = in.logistic(), written_out = 1 / (1 + (-in).exp());
    worst_written_out = std::fmax(worst_written_out, units(written_out[0], x));
    if (units(out[0], x) > worst) worst = units(out[0], x), where = x;
  }
  std::printf("units in the last place: logistic %.0f at %.4f, 1 / (1 + exp(-x)) %.0f\n",
              worst, where, worst_written_out);
  return worst > 4000 && worst_written_out < 4 ? 0 : 1;
}
EOF
g++ -std=c++17 -O2 -I "$include" "$work/logistic.cpp" -o "$work/logistic"
"$work/logistic" || { echo "the behaviour has changed"; exit 1; }
