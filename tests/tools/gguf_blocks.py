#!/usr/bin/env python3
"""Writes tests/io/gguf_blocks.gguf: random blocks of every quantised number type and, as F32, the numbers that the
package gguf makes of them; further number types, and metadata of every type. Made with gguf 0.17.1 and numpy 2.4.6:

    python3 -m venv V && V/bin/pip install gguf==0.17.1 numpy==2.4.6 && V/bin/python tests/tools/gguf_blocks.py FILE
"""
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quants

# Where the half-precision numbers of a block begin.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}

random = np.random.default_rng(1)
writer = GGUFWriter(sys.argv[1], "blocks")
writer.add_uint8("u8", 255)
writer.add_int8("i8", -128)
writer.add_uint16("u16", 65535)
writer.add_int16("i16", -32768)
writer.add_uint32("u32", 2**32 - 1)
writer.add_int32("i32", -(2**31))
writer.add_float32("f32", 1e-5)
writer.add_uint64("u64", 2**64 - 1)
writer.add_int64("i64", -(2**63))
writer.add_float64("f64", 1e-5)
writer.add_bool("bool", True)
writer.add_string("text", "naïve")
writer.add_array("words", ["one", "", "three"])
writer.add_array("numbers", [1, 2, 3])
writer.add_array("arrays", [[1, 2], [3, 4]])
for name, halves in HALVES.items():
    kind = GGMLQuantizationType[name]
    length, size = GGML_QUANT_SIZES[kind]
    rows, columns = (4, 2) if length == 32 else (2, 1)  # in blocks
    blocks = random.integers(0, 256, (rows * columns, size), dtype=np.uint8)
    for at in halves:
        half = blocks[:, at : at + 2].copy().view(np.uint16)
        half[(half & 0x7C00) == 0x7C00] ^= 0x4000  # neither infinite nor NaN
        half[0] = half[0] & 0x83FF  # subnormal
        blocks[:, at : at + 2] = half.view(np.uint8)
    blocks = blocks.reshape(rows, columns * size)
    writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.add_tensor(name + ".numbers", quants.dequantize(blocks, kind))
numbers = random.standard_normal((3, 5)).astype(np.float32)
writer.add_tensor("F64", numbers.astype(np.float64))
writer.add_tensor("F32", numbers)
writer.add_tensor("F16", numbers.astype(np.float16))
writer.add_tensor("BF16", quants.quantize(numbers, GGMLQuantizationType.BF16), raw_dtype=GGMLQuantizationType.BF16)
writer.add_tensor("I8", np.arange(-3, 3, dtype=np.int8))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
