#!/usr/bin/env bash
# Package:  torch 2.9.1 with numpy 2.2.6
# Happens:  In float64 torch's softplus falls: softplus(20) is larger than softplus(20 + 1e-10). gradcheck, which
#           differences a function in float64, fails just above 20 with the default settings of both.
# Expected: The softplus of float64 is accurate and increasing; torch.logaddexp(x, 0), the same function, is. It is a
#           step of 2e-9, too small for float32 to see, but a reference for the decay of RWKV-7, -softplus(-w) - 0.5, is
#           computed in float64 to see more.
# Source:   The documentation of torch.nn.Softplus: "For numerical stability the implementation reverts to the linear
#           function when input * beta > threshold", 20 for every type. log1p(exp(-20)) is 2e-9, far above the step of
#           float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q numpy==2.2.6
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import torch

x = torch.tensor([20, 20 + 1e-10], dtype=torch.float64)
softplus = torch.nn.functional.softplus
below, above = (softplus(x) - 20).tolist()
right = (torch.logaddexp(x, torch.zeros(2, dtype=torch.float64)) - 20).tolist()
print(f"softplus(20) - 20 = {below:.3g}, softplus(20 + 1e-10) - 20 = {above:.3g}")
print(f"with logaddexp:     {right[0]:.3g},                          {right[1]:.3g}")
at = torch.tensor([20 + 1e-7], dtype=torch.float64, requires_grad=True)
passes = torch.autograd.gradcheck(softplus, at, raise_exception=False)
print("gradcheck at 20 + 1e-7:", "passes" if passes else "fails")
assert below > above and right[0] < right[1] and not passes, "the behaviour has changed"
EOF
