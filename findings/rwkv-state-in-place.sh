#!/usr/bin/env bash
# Package:  rwkv 0.8.30 with torch 2.9.1 and numpy 2.2.6
# Happens:  model.forward(tokens, state) of an RWKV-4 model (5 and 6 share the code) overwrites the list it was given:
#           two calls with the same state and the same token give different logits. With RWKV-7, same package and call,
#           the list is left as it was and both calls agree.
# Expected: One rule for all versions of one API. A prompt's state that is kept to continue it several times is silently
#           spoiled by the first continuation, in 4 to 6 only.
# Source:   rwkv/model.py: RWKV.forward assigns to state[i*5+0] and so on and returns the same list; RWKV_x070.forward
#           hands the list to a TorchScript method, which works on a copy. Users copy it before use:
#           https://github.com/oobabooga/textgen/pull/1354 ("I'm not deepcopying the cached state").
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
cat >twice.py <<'EOF'
import os, sys

version = int(sys.argv[1])
os.environ.update(RWKV_JIT_ON="1", RWKV_CUDA_ON="0", RWKV_V7_ON="1" if version == 7 else "0")
import torch
from rwkv.model import RWKV

torch.manual_seed(0)
D, V, R = 64, 50, 8  # width, vocabulary, rank of the small matrices of RWKV-7
z = {"emb.weight": (V, D), "head.weight": (V, D), "ln_out.weight": (D,), "ln_out.bias": (D,)}
for b in ("blocks.0.", "blocks.1."):
    for ln in ["ln1", "ln2"] + ["ln0"] * (b == "blocks.0.") + ["att.ln_x"] * (version == 7):
        z |= {b + ln + ".weight": (D,), b + ln + ".bias": (D,)}
    z |= {b + f"att.{m}.weight": (D, D) for m in ("receptance", "key", "value", "output")}
    z |= {b + "ffn.key.weight": (4 * D, D), b + "ffn.value.weight": (D, 4 * D)}
    if version == 4:
        z |= {b + "att.time_" + n: (D,) for n in ("decay", "first", "mix_k", "mix_v", "mix_r")}
        z |= {b + "ffn.time_mix_k": (D,), b + "ffn.time_mix_r": (D,), b + "ffn.receptance.weight": (D, D)}
    else:
        z |= {b + "att." + n: (1, 1, D) for n in "x_r x_w x_k x_v x_a x_g w0 a0 v0 k_k k_a".split()}
        z |= {b + f"att.{n}1": (D, R) for n in "wavg"} | {b + f"att.{n}2": (R, D) for n in "wavg"}
        z |= {b + "att.r_k": (1, D), b + "ffn.x_k": (1, 1, D)}
torch.save({name: torch.randn(shape) * 0.3 for name, shape in z.items()}, "tiny.pth")
model = RWKV("tiny", strategy="cpu fp32")
_, state = model.forward([1, 2, 3], None)
first, _ = model.forward([4], state)
second, _ = model.forward([4], state)
difference = (first - second).abs().max().item()
print(f"answer: RWKV-{version}, token 4 twice from one state: the logits differ by {difference:.2g}")
sys.exit((difference > 0.01) != (version == 4))
EOF
for version in 4 7; do
  if venv/bin/python twice.py $version >"$version.log" 2>&1; then grep answer "$version.log"; else
    cat "$version.log" && echo "the behaviour has changed" && exit 1
  fi
done
