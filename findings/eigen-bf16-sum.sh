#!/usr/bin/env bash
# Package:  Eigen 3.4.0 (cmeel-eigen 3.4.0), g++ -O2 for plain x86-64
# Happens:  In Eigen::bfloat16 the sum of 4096 ones is 256 and their mean 0.0625. A product of 8 x 4096 and 4096 x 8
#           ones is some multiple of 256 that depends on the size of the L1 cache; 8 x 4096 times one vector is 4096.
# Expected: 4096, 1, 4096 and 4096: sums of bfloat16 kept in float, as torch keeps them. At the least the same product
#           on two processors that differ in their caches alone.
# Source:   Eigen/src/Core/arch/Default/BFloat16.h: operator+ rounds to bfloat16, where 256 + 1 is 256; Redux.h sums in
#           the scalar type. products/GeneralBlockPanelKernel.h, gebp_traits: the accumulator is of the type of the
#           result, so each block of the inner dimension ends at 256; its length follows from the caches, asked of the
#           processor (evaluateProductBlockingSizesHeuristic). setCpuCacheSizes, which sets them, is in Eigen's
#           documentation.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || { echo "skipped: needs g++"; exit 77; }
[ "$(uname -m)" = x86_64 ] || { echo "skipped: needs an x86-64 processor"; exit 77; }
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --no-deps cmeel-eigen==3.4.0; } >&2 || exit 2
include=$(echo "$work"/venv/lib/python3*/site-packages/cmeel.prefix/include/eigen3)
cat >"$work/sum.cpp" <<'EOF'
#include <Eigen/Core>
#include <cstdio>

using Matrix = Eigen::Matrix<Eigen::bfloat16, -1, -1>;
using Vector = Eigen::Matrix<Eigen::bfloat16, -1, 1>;

int main() {
  const Vector ones = Vector::Ones(4096);
  const Matrix rows = Matrix::Ones(8, 4096), columns = Matrix::Ones(4096, 8);
  const float sum(ones.sum()), mean(ones.mean()), by_vector(Vector(rows * ones)(0));
  std::printf("sum %g\nmean %g\nrows times a vector %g\n", sum, mean, by_vector);
  float product[2];
  for (int i = 0; i < 2; ++i) {
    const int l1 = i ? 49152 : 16384;
    Eigen::setCpuCacheSizes(l1, 1 << 20, 1 << 22);
    product[i] = float(Matrix(rows * columns)(0, 0));
    std::printf("rows times columns %g, for %d bytes of L1 cache\n", product[i], l1);
  }
  const bool blocks = product[0] != product[1] && product[0] < 4096 && product[1] < 4096;
  return sum == 256 && mean == 0.0625f && by_vector == 4096 && blocks ? 0 : 1;
}
EOF
g++ -std=c++17 -O2 -I "$include" "$work/sum.cpp" -o "$work/sum"
"$work/sum" || { echo "the behaviour has changed"; exit 1; }
