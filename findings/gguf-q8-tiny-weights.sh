#!/usr/bin/env bash
# Package:  gguf 0.17.1 with numpy 2.2.6
# Happens:  Q8_0, the format of eight bits, is exact to 0.4 % for weights of ordinary size, 1.7 % for weights within
#           1e-4, 22 % within 1e-5, where Q4_0 with its four bits is three times better, and all zeros within 3e-6.
# Expected: The same relative error at any scale, since every block of 32 weights has a scale of its own. RWKV's
#           training code starts the embedding within plus and minus the learning rate, such as 1e-4.
# Source:   gguf/quants.py, class Q8_0: the scale, max|w| / 127, is stored as float16, whose numbers end at 6e-8. Q4_0
#           divides by 8 instead of 127, so its scales stay normal for longer. For the embedding: RWKV-LM,
#           RWKV-v4neo/src/model.py, generate_init_weight.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q gguf==0.17.1 numpy==2.2.6; } >&2 || exit 2
"$work/venv/bin/python" - <<'EOF'
import numpy as np
from gguf import GGMLQuantizationType as Type, quants


def error(kind, scale):
    w = (np.random.default_rng(0).uniform(-1, 1, (64, 64)) * scale).astype(np.float32)
    back = quants.dequantize(quants.quantize(w, kind), kind)
    return float(np.linalg.norm(back - w) / np.linalg.norm(w))


print("weights within    Q8_0     Q4_0   (relative error, root mean square)")
seen = {scale: (error(Type.Q8_0, scale), error(Type.Q4_0, scale)) for scale in (1, 1e-3, 1e-4, 1e-5, 3e-6)}
for scale, (eight, four) in seen.items():
    print(f"{scale:12g} {eight:9.4f} {four:8.4f}")
assert seen[1][0] < 0.005 and 0.015 < seen[1e-4][0] < 0.025, "the behaviour has changed"
assert seen[1e-5][0] > 3 * seen[1e-5][1] and seen[3e-6][0] == 1, "the behaviour has changed"
EOF
