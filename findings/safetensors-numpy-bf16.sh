#!/usr/bin/env bash
# Package:  safetensors 0.6.2 with numpy 2.2.6 and ml_dtypes 0.5.4
# Happens:  safetensors.numpy.load_file refuses a bfloat16 file with TypeError, although ml_dtypes is installed. The
#           same call reads it once ANY part of the program has imported ml_dtypes. safetensors itself never does.
# Expected: The same answer whichever unrelated modules were imported before. RWKV checkpoints are bfloat16.
# Source:   safetensors/numpy.py hands the name "bfloat16" to numpy; ml_dtypes registers that name with numpy as a side
#           effect of its import.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    "$work/venv/bin/pip" install -q safetensors==0.6.2 numpy==2.2.6 ml_dtypes==0.5.4
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import json, struct

head = json.dumps({"emb.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
with open("model.safetensors", "wb") as out:
    out.write(struct.pack("<Q", len(head)) + head + bytes.fromhex("803f0040"))  # 1 and 2
EOF
venv/bin/python - <<'EOF'
from safetensors.numpy import load_file

try:
    first = load_file("model.safetensors")
except TypeError as error:
    first = f"TypeError: {error}"
print("before ml_dtypes is imported:", first)
import ml_dtypes

second = load_file("model.safetensors")["emb.weight"]
print("after ml_dtypes is imported: ", second.tolist(), second.dtype)
assert str(first).startswith("TypeError") and second.dtype == ml_dtypes.bfloat16, "the behaviour has changed"
EOF
