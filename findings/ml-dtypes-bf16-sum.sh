#!/usr/bin/env bash
# Package:  ml_dtypes 0.5.4 with numpy 2.2.6
# Happens:  The sum of 4096 ones in bfloat16 is 256 and their mean is 0.0625. The dot product of the same array is 4096.
# Expected: 4096 and 1. A sum could be kept in float32 and rounded once, as numpy's own mean does for float16; the mean
#           and variance of a bfloat16 weight, taken to inspect a checkpoint, are otherwise off by any factor.
# Source:   numpy's documentation of numpy.mean, note: "By default, float16 results are computed using float32
#           intermediates for extra precision"; that special case names float16 alone (numpy/_core/_methods.py, _mean).
#           A bfloat16 type of another package adds element after element, and 256 + 1 rounds to 256.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q ml_dtypes==0.5.4 numpy==2.2.6; } >&2 || exit 2
"$work/venv/bin/python" - <<'EOF'
import ml_dtypes, numpy as np

brain = np.ones(4096, ml_dtypes.bfloat16)
half = np.full(4096, 16, np.float16)  # its sum, 65536, is above the range of float16
seen = {
    "bfloat16 sum": float(brain.sum()),
    "bfloat16 mean": float(brain.mean()),
    "bfloat16 mean, dtype=float32": float(brain.mean(dtype=np.float32)),
    "bfloat16 dot": float(np.dot(brain, brain)),
    "float16 mean of 16s": float(half.mean()),
}
for name, value in seen.items():
    print(f"{name:30} {value}")
assert list(seen.values()) == [256, 0.0625, 1, 4096, 16], "the behaviour has changed"
EOF
