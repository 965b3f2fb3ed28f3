#!/usr/bin/env bash
# Package:  torch 2.9.1, numpy 2.2.6 and ml_dtypes 0.5.4
# Happens:  From float64, torch rounds to float32 first and then to float16 or bfloat16: 1 + 2^-11 + 2^-40 becomes 1,
#           though the next float16, 1 + 2^-10, is nearer. numpy gives the nearer one, for float16; ml_dtypes rounds
#           twice as well.
# Expected: Correct rounding, as numpy's. A reference computed in float64 and compared for equal bits with a kernel that
#           rounds once meets differences in about one number of 16000.
# Source:   torch/headeronly/util/Half.h and BFloat16.h have a constructor from float and none from double, so a double
#           becomes a float on the way. numpy converts the bits of the double itself: npy_doublebits_to_halfbits in
#           numpy/_core/src/npymath/halffloat.cpp.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q numpy==2.2.6 ml_dtypes==0.5.4
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import ml_dtypes, numpy as np, torch

half, brain = 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40  # a little above the middle of two numbers
seen = {
    "float16, numpy": float(np.float16(half)),
    "float16, torch": torch.tensor(half, dtype=torch.float64).half().item(),
    "bfloat16, torch": torch.tensor(brain, dtype=torch.float64).bfloat16().item(),
    "bfloat16, ml_dtypes": float(np.float64(brain).astype(ml_dtypes.bfloat16)),
}
for name, value in seen.items():
    print(f"{name:20} {value}")
print(f"nearest: float16 {1 + 2.0**-10}, bfloat16 {1 + 2.0**-7}")
x = np.random.default_rng(0).uniform(1, 2, 1 << 22)
count = int((torch.from_numpy(x).half().numpy() != x.astype(np.float16)).sum())
print(f"of {x.size} numbers between 1 and 2, {count} differ in float16 between torch and numpy")
assert list(seen.values()) == [1 + 2.0**-10, 1, 1, 1] and 100 < count < 1000, "the behaviour has changed"
EOF
