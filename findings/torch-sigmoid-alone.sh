#!/usr/bin/env bash
# Package:  torch 2.9.1 with numpy 2.2.6, on a processor with AVX2 or AVX-512
# Happens:  torch.sigmoid of 4096 numbers in one array and of the same numbers one by one, or with a stride of two,
#           differs in 4 % of them in the last bit. silu and softplus do the same; exp, tanh, log and rsqrt do not.
# Expected: An elementwise function depends on the element. The gates of a model that reads one token at a time, or a
#           shorter array, are otherwise not those of the model that reads the prompt at once, bit for bit.
# Source:   ATen/native/cpu/UnaryOpsKernel.cpp, sigmoid_kernel, gives cpu_kernel_vec two functions: 1 / (1 +
#           std::exp(-a)) for elements that fill no vector, and (1 + exp(-a)).reciprocal() with the exponential of Sleef
#           for vectors. exp, tanh, log and rsqrt go through ATen/cpu/vml.h, one function for any length.
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
import sys, torch

capability = torch.backends.cpu.get_cpu_capability()
if not capability.startswith("AVX"):
    print(f"skipped: needs AVX2 or AVX-512, torch found {capability}")
    sys.exit(77)
torch.manual_seed(0)
x = 4 * torch.randn(4096)
seen = {}
for name in ("sigmoid", "silu", "softplus", "exp", "tanh", "log", "rsqrt"):
    f = getattr(torch.nn.functional if name in ("silu", "softplus") else torch, name)
    values = x.abs() if name in ("log", "rsqrt") else x
    together = f(values)
    alone = torch.cat([f(value.reshape(1)) for value in values])
    strided = f(torch.stack([values, values], 1)[:, 0])
    seen[name] = ((together != alone).sum().item(), (together != strided).sum().item())
    print(f"{name:9} {seen[name][0]:4} of 4096 differ one by one, {seen[name][1]:4} with a stride ({capability})")
assert min(seen[name][i] for name in ("sigmoid", "silu", "softplus") for i in (0, 1)) > 20, "the behaviour has changed"
assert all(seen[name] == (0, 0) for name in ("exp", "tanh", "log", "rsqrt")), "the behaviour has changed"
EOF
