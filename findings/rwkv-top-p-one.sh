#!/usr/bin/env bash
# Package:  rwkv 0.8.30 with torch 2.9.1 and numpy 2.2.6, on the CPU
# Happens:  PIPELINE.sample_logits(logits, top_p=1.0) is greedy for many logits of the size of the World vocabulary: 50
#           draws give one and the same token, where top_p=0.999 gives about 40 different ones.
# Expected: top_p=1.0 leaves every token in, so it is the freest choice there is.
# Source:   rwkv/utils.py cuts at argmax(cumulative_probs >= top_p). In float32 the sum of 65536 probabilities often
#           ends below 1; then nothing is >= 1, argmax of all False is 0, and the cut is the highest probability. The
#           same was reported for top_p = 1 and mended by ">" to ">=", which is not enough:
#           https://github.com/BlinkDL/ChatRWKV/pull/170.
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
venv/bin/python - <<'EOF'
import numpy as np, torch
from rwkv.utils import PIPELINE

pipeline = PIPELINE(None, "rwkv_vocab_v20230424")
np.random.seed(0)  # on the CPU the pipeline draws with numpy
seen = []
for seed in range(10):
    logits = torch.from_numpy(3 * np.random.default_rng(seed).normal(size=65536).astype(np.float32))
    draws = [len({pipeline.sample_logits(logits, 1.0, top_p) for _ in range(50)}) for top_p in (0.999, 1.0)]
    print(f"logits {seed}: of 50 draws {draws[0]} differ with top_p=0.999, {draws[1]} with top_p=1.0")
    seen.append(draws)
greedy = sum(ones == 1 for _, ones in seen)
assert greedy >= 3 and min(many for many, _ in seen) > 20, "the behaviour has changed"
EOF
