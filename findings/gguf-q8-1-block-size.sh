#!/usr/bin/env bash
# Package:  gguf 0.19.0 with numpy 2.2.6
# Happens:  For a tensor of type Q8_1, GGUFReader takes 40 bytes a block. So the second block of a row is read from byte
#           40, four bytes too late, and the last one reaches into what follows the tensor, without a word.
# Expected: 36 bytes a block: two halves, the scale and the scaled sum, and 32 levels.
# Source:   block_q8_1 and its static_assert in ggml/src/ggml-common.h of llama.cpp: 2 * sizeof(ggml_half) + QK8_1. The
#           package still has the 4 + 4 + 32 bytes of an older layout in GGML_QUANT_SIZES of gguf/constants.py.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{ python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q gguf==0.19.0 numpy==2.2.6; } >&2 || exit 2
"$work/venv/bin/python" - "$work/two.gguf" <<'EOF'
import struct, sys
from gguf import GGUFReader, GGMLQuantizationType

def text(s):
    return struct.pack("<Q", len(s)) + s.encode()

def block(scale, level):  # as ggml has it: scale and scaled sum in half precision, 32 equal levels
    return struct.pack("<ee", scale, scale * level * 32) + struct.pack("<32b", *[level] * 32)

blocks = block(0.5, 1) + block(0.25, 2)
head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
head += text("general.architecture") + struct.pack("<I", 8) + text("none")
head += text("two_blocks") + struct.pack("<IQIQ", 1, 64, GGMLQuantizationType.Q8_1, 0)
head += bytes(-len(head) % 32)
open(sys.argv[1], "wb").write(head + blocks + bytes(-len(blocks) % 32))

tensor = GGUFReader(sys.argv[1]).tensors[0]
second = bytes(tensor.data.reshape(2, -1)[1])
print("bytes of 64 numbers:", len(blocks), "by ggml,", tensor.n_bytes, "by the package")
print("second block begins with", second[:4].hex(), "instead of", blocks[36:40].hex())
if tensor.n_bytes != 80 or second[:4] != blocks[40:44]:
    sys.exit("the behaviour has changed")
EOF
