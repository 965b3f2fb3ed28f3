#!/usr/bin/env bash
# Package:  rwkv 0.8.30 with torch 2.9.1 and numpy 2.2.6
# Happens:  With the strategy "cpu fp32i8" a model gives NaN for every logit if one of its matrices is zero; with "cpu
#           fp32" the same file gives finite logits.
# Expected: Zero is the easiest matrix to store in eight bits. It is not rare: the official training code starts
#           att.output, ffn.value and others at zero, so the first checkpoint of such a training has some.
# Source:   rwkv/model.py, the branch for torch.uint8: it divides by w[x+'_rx'], the maximum of each column after the
#           minimum was taken off, which is 0 for a zero matrix: 0 / 0. RWKV-LM, RWKV-v4neo/src/model.py,
#           generate_init_weight: scale = 0 for ".att.output.", ".ffn.value." and others.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q rwkv==0.8.30 numpy==2.2.6
} >&2 || exit 2
cd "$work"
venv/bin/python >log 2>&1 - <<'EOF' || { cat log && echo "the behaviour has changed" && exit 1; }
import os

os.environ.update(RWKV_JIT_ON="0", RWKV_CUDA_ON="0")
import torch
from rwkv.model import RWKV

torch.manual_seed(0)
D, V = 64, 50  # width, vocabulary
b = "blocks.0."
z = {"emb.weight": (V, D), "head.weight": (V, D)}
z |= {ln + kind: (D,) for ln in ("ln_out", b + "ln0", b + "ln1", b + "ln2") for kind in (".weight", ".bias")}
z |= {b + "att.time_" + n: (D,) for n in ("decay", "first", "mix_k", "mix_v", "mix_r")}
z |= {b + f"att.{m}.weight": (D, D) for m in ("receptance", "key", "value", "output")}
z |= {b + "ffn.time_mix_k": (D,), b + "ffn.time_mix_r": (D,), b + "ffn.receptance.weight": (D, D)}
z |= {b + "ffn.key.weight": (4 * D, D), b + "ffn.value.weight": (D, 4 * D)}
z = {name: torch.randn(shape) * 0.3 for name, shape in z.items()}
for zero in ("no matrix", b + "att.output.weight"):
    if zero in z:
        z[zero].zero_()
    torch.save(z, "tiny.pth")
    for strategy in ("cpu fp32", "cpu fp32i8"):
        logits, _ = RWKV("tiny", strategy=strategy).forward([1, 2, 3], None)
        nan = logits.isnan().sum().item()
        print(f"answer: {zero} is zero, {strategy}: {nan} of {V} logits are NaN")
        assert nan == (V if zero in z and strategy == "cpu fp32i8" else 0)
EOF
grep answer log
